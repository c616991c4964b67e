"""Copies of commits between repositories of one root key: push, fetch, clone, bundles."""
