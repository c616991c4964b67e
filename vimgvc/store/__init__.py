"""Objects in packs, and the index that finds them. Private to `repo` and `pipeline`."""
