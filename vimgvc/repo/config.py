"""The repository's public facts (specs/formats.md §4)."""

from __future__ import annotations

from dataclasses import dataclass

from vimgvc import errors
from vimgvc.model import encoding, geometry

NAME = "config"
FEATURES: frozenset[str] = frozenset()


@dataclass(frozen=True, slots=True)
class Config:
    """`id` is 32 hexadecimal digits, `average` the average size of a chunk in bytes."""

    id: str
    average: int

    def encode(self) -> bytes:
        return encoding.dumps_canonical(
            {
                "chunk": {"average": self.average, "maximum": 4 * self.average, "minimum": geometry.BLOCK},
                "features": [],
                "format": 1,
                "id": self.id,
            }
        )


def decode(data: bytes) -> Config:
    """Raises `FormatError`, and `Unsupported` naming what this version does not know."""
    members = encoding.Members(encoding.loads_canonical(data, NAME), NAME)
    version = members.number("format")
    if version != 1:
        raise errors.Unsupported(f"repository format {version}")
    for feature in members.get("features", list):
        if not isinstance(feature, str):
            raise errors.FormatError(NAME, "has a feature that is not text")
        if feature not in FEATURES:
            raise errors.Unsupported(feature)
    chunk = encoding.Members(members.get("chunk", dict), NAME)
    average, maximum, minimum = chunk.number("average"), chunk.number("maximum"), chunk.number("minimum")
    chunk.end()
    config = Config(members.hex("id", 16), average)
    members.end()
    if average not in geometry.AVERAGES or maximum != 4 * average or minimum != geometry.BLOCK:
        raise errors.FormatError(NAME, "has impossible chunk sizes")
    return config
