"""The hot loops: disks into the store, out of it, compared with it, and from one place to another."""
