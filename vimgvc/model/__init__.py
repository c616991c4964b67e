"""What a repository is made of: pure values and their encodings (specs/formats.md)."""
