"""Small pieces of text: escaped names, sizes, times, colour.

Everything that came from a user, an image or a repository passes `escape` before it reaches a
terminal, so that no name can move the cursor, start a new line or reverse what follows.
"""

from __future__ import annotations

import calendar
import re
import time
from dataclasses import dataclass

from vimgvc import errors

_UNITS = ("B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB")
_SIZE = re.compile(r"(?P<number>[0-9]{1,18}) ?(?P<unit>[KMGTPEkmgtpe]?)(?:iB|(?P<si>B))?")
# isprintable() is False for these, but they are ordinary spaces of French and East Asian text
_SPACES = "\u00a0\u3000"


def escape(text: str) -> str:
    """`text` on one line without control, format, bidirectional or unassigned characters."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _SPACES else _escaped(char) for char in text)


def _escaped(char: str) -> str:
    named = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}
    if char in named:
        return named[char]
    code = ord(char)
    if 0xDC80 <= code <= 0xDCFF:  # a byte of a file name that is not UTF-8 (PEP 383)
        return f"\\x{code - 0xDC00:02x}"
    return f"\\x{code:02x}" if code < 0x100 else f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def lines(text: str) -> list[str]:
    """The lines of a message, each escaped; only line feeds part lines."""
    return [escape(line) for line in text.rstrip("\n").split("\n")]


def subject(text: str) -> str:
    """The first line of a message, with a mark when there is more."""
    first, *rest = lines(text.lstrip("\n"))
    return f"{first} [...]" if rest else first


def size(count: int) -> str:
    """`count` bytes in binary units, about three digits: 511 B, 1.5 KiB, 8.0 GiB, 128 MiB."""
    if count < 1024:
        return f"{count} B"
    value, unit = float(count), 0
    while value >= 1023.5 and unit < len(_UNITS) - 1:
        value /= 1024
        unit += 1
    return f"{value:.1f} {_UNITS[unit]}" if value < 99.95 else f"{value:.0f} {_UNITS[unit]}"


def exact_size(count: int) -> str:
    """A size with its bytes: 8.0 GiB (8,589,934,592 bytes)."""
    return f"{count} B" if count < 1024 else f"{size(count)} ({count:,} bytes)"


def parse_size(typed: str) -> int | None:
    """A number of bytes as people write it: 64K and 64KiB are 65536, 64KB is 64000; None if it is none."""
    match = _SIZE.fullmatch(typed)
    if not match:
        return None
    base = 1000 if match["si"] else 1024
    return int(match["number"]) * int(base ** " KMGTPE".index(match["unit"].upper() or " "))


def parse_option(option: str, typed: str) -> int:
    """The size given to `option`, in bytes; raises `UsageError`."""
    found = parse_size(typed)
    if found is None:
        raise errors.UsageError(f"not a size for {option}: {typed}", hint="write it like 64K, 64KiB or 1G")
    return found


def seconds(value: float) -> str:
    if value < 60:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02} h" if hours else f"{minutes}:{rest:02} min"


def count(number: int, one: str, many: str = "") -> str:
    """A number with its noun: 1 commit, 1,000 commits."""
    return f"{number:,} {one if number == 1 else many or one + 's'}"


def date(stamp: str) -> str:
    """`YYYY-MM-DDTHH:MM:SSZ` in the local time zone; unchanged where it cannot be shown."""
    # sliced by hand: time.strptime costs 5 ms of imports at the first call and 10 µs at each
    try:
        year, month, day = int(stamp[0:4]), int(stamp[5:7]), int(stamp[8:10])
        moment = calendar.timegm((year, month, day, int(stamp[11:13]), int(stamp[14:16]), int(stamp[17:19]), 0, 0, 0))
        return time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(moment))
    except (ValueError, OverflowError, OSError):
        return escape(stamp)


@dataclass(frozen=True, slots=True)
class Style:
    """Colours, or none."""

    colour: bool = False

    def _wrap(self, code: str, text: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self.colour and text else text

    def id(self, text: str) -> str:
        return self._wrap("33", text)

    def branch(self, text: str) -> str:
        return self._wrap("1;32", text)

    def graph(self, text: str) -> str:
        return self._wrap("36", text)

    def bad(self, text: str) -> str:
        return self._wrap("1;31", text)

    def faint(self, text: str) -> str:
        return self._wrap("2", text)
