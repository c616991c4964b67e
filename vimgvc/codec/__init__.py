"""Bytes to sealed bytes and back: compression, authenticated encryption, keys. Pure."""
