"""A file of specs/vectors, as its README describes it."""

from __future__ import annotations

import itertools
import pathlib
import re
from dataclasses import dataclass

DIRECTORY = pathlib.Path(__file__).parents[1] / "specs" / "vectors"
_KEYS = re.compile(r"root=([0-9a-f]{64}) repo=([0-9a-f]{32})")


@dataclass(frozen=True)
class Vector:
    name: str
    expect: str
    kind: str
    comment: str
    root: bytes
    repo: bytes
    facts: dict[str, str]
    body: bytes

    def parts(self, fact: str) -> list[bytes]:
        """The body cut into pieces of the lengths that the line `fact` gives."""
        ends = list(itertools.accumulate(map(int, self.facts[fact].split()), initial=0))
        assert ends[-1] == len(self.body)
        return [self.body[start:end] for start, end in itertools.pairwise(ends)]

    def entries(self) -> list[tuple[int, bytes]]:
        """Sequence and bytes of the entries of a log."""
        pairs = [tuple(map(int, item.split(":"))) for item in self.facts["entries"].split()]
        ends = list(itertools.accumulate((length for _, length in pairs), initial=0))
        return [(seq, self.body[at : at + length]) for (seq, length), at in zip(pairs, ends, strict=False)]


def load(path: pathlib.Path) -> Vector:
    head, _, body = path.read_text().partition("\n\n")
    facts = dict(line.split(": ", 1) for line in head.splitlines())
    keys = _KEYS.fullmatch(facts.pop("keys"))
    assert keys is not None
    expect, kind, comment = (facts.pop(name) for name in ("expect", "kind", "comment"))
    root, repo = (bytes.fromhex(text) for text in keys.groups())
    return Vector(path.stem, expect, kind, comment, root, repo, facts, bytes.fromhex(body))


def load_all() -> list[Vector]:
    return [load(path) for path in sorted(DIRECTORY.glob("*.txt"))]
