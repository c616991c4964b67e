"""The two hot loops: a disk into the store, and out of it."""
