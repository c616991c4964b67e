"""The facade over everything stored: keys, refs, history, disks."""
