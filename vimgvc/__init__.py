"""git for virtual-machine disks: encrypted, deduplicated history of disk images."""

__version__ = "0.1.0"
