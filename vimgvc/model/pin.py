"""The pin of a commit that is about to get a name (specs/formats.md §15)."""

from __future__ import annotations

from dataclasses import asdict, dataclass

from vimgvc.model import commit as commits
from vimgvc.model import encoding


@dataclass(frozen=True, slots=True)
class Pin:
    """`commit` is hexadecimal, `time` when it was put, `host` free text."""

    commit: str
    time: str
    host: str

    def encode(self) -> bytes:
        return encoding.dumps_canonical({**asdict(self), "v": 1})


def decode(body: bytes, where: str) -> Pin:
    """Raises `FormatError`, `Unsupported`."""
    members = encoding.Members(encoding.loads_canonical(body, where), where)
    members.version("pin")
    pin = Pin(commit=members.hex("commit", 32), time=members.text("time"), host=members.text("host"))
    members.end()
    commits.check_time(pin.time, where)
    return pin
