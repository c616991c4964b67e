"""The network block device protocol: sans-I/O state machines, a client and a read-only server."""
