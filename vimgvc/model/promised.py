"""The record that the data of a commit is in another place (specs/formats.md §16)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vimgvc.model import commit as commits
from vimgvc.model import encoding


@dataclass(frozen=True, slots=True)
class Promised:
    """`commit` is hexadecimal, `remote` the name of the place that has the data, `time` when it was put."""

    commit: str
    remote: str
    time: str

    def encode(self) -> bytes:
        return encoding.dumps_canonical({**asdict(self), "v": 1})


def decode(body: bytes, where: str) -> Promised:
    """Raises `FormatError`, `Unsupported`."""
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    members.version("promise")
    record = Promised(commit=members.hex("commit", 32), remote=members.text("remote"), time=members.text("time"))
    members.end()
    commits.check_time(record.time, where)
    return record
