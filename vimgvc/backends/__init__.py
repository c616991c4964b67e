"""Where blobs live: one protocol, one conformance suite, several places."""
