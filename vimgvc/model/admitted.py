"""The record that a delivery was admitted, or discarded (specs/formats.md §18)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vimgvc.model import commit as commits
from vimgvc.model import encoding


@dataclass(frozen=True, slots=True)
class Admitted:
    """`commit` is hexadecimal, None for a delivery that was discarded; `time` when that was, `host` where."""

    commit: str | None
    time: str
    host: str

    def encode(self) -> bytes:
        return encoding.dumps_canonical({**asdict(self), "v": 1})


def decode(body: bytes, where: str) -> Admitted:
    """Raises `FormatError`, `Unsupported`."""
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    members.version("record of a delivery")
    record = Admitted(commit=members.hex_or_none("commit", 32), time=members.text("time"), host=members.text("host"))
    members.end()
    commits.check_time(record.time, where)
    return record
