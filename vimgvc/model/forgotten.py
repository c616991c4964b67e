"""The record that a commit is forgotten (specs/formats.md §14)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vimgvc.model import commit as commits
from vimgvc.model import encoding


@dataclass(frozen=True, slots=True)
class Forgotten:
    """`commit` is hexadecimal, `time` when it was forgotten, `host` and `reason` free text."""

    commit: str
    time: str
    host: str
    reason: str

    def encode(self) -> bytes:
        return encoding.dumps_canonical({**asdict(self), "v": 1})


def decode(body: bytes, where: str) -> Forgotten:
    """Raises `FormatError`, `Unsupported`."""
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    members.version("forgotten record")
    record = Forgotten(
        commit=members.hex("commit", 32),
        time=members.text("time"),
        host=members.text("host"),
        reason=members.text("reason"),
    )
    members.end()
    commits.check_time(record.time, where)
    return record
