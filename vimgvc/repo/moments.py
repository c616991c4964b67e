"""Moments as people write them, and which times of a log are to be believed."""

from __future__ import annotations

import bisect
import datetime as dt
import re
from collections.abc import Sequence

from vimgvc import errors

_ISO = re.compile(
    r"(\d{4}-\d\d-\d\d)(?:[T ](\d\d:\d\d(?::\d\d)?)(Z|[+-]\d\d:?\d\d)?)?",
    re.ASCII,
)
_AGO = re.compile(r"(\d{1,6}|an?)[ ._-]?(second|minute|hour|day|week|month|year)s?[ ._-]ago", re.ASCII)
_SECONDS = {"second": 1, "minute": 60, "hour": 3600, "day": 86400, "week": 7 * 86400}
_HINT = "write it like 2026-05-01, '2026-05-01 14:30', yesterday or '2 days ago'"


def parse(typed: str, now: float) -> float:
    """The moment that `typed` means at `now`, both in seconds since 1970; without a zone it is local.

    A day alone is its first moment. Raises `UsageError`.
    """
    text = " ".join(typed.lower().split())
    try:
        return _parse(text, dt.datetime.fromtimestamp(now).astimezone())
    except (ValueError, OverflowError, OSError):
        raise errors.UsageError(f"not a date: {typed!r}", hint=_HINT) from None


def _parse(text: str, now: dt.datetime) -> float:
    if text in ("now", "yesterday"):
        return now.timestamp() - (86400 if text == "yesterday" else 0)
    if text == "today":
        return dt.datetime(now.year, now.month, now.day).timestamp()  # noqa: DTZ001 - local on purpose
    if match := _AGO.fullmatch(text):
        count = 1 if match[1].startswith("a") else int(match[1])
        return _before(now, count, match[2])
    match = _ISO.fullmatch(text.upper())
    if match is None:
        raise ValueError(text)
    return dt.datetime.fromisoformat(match[0].replace(" ", "T")).timestamp()


def _before(now: dt.datetime, count: int, unit: str) -> float:
    """As the calendar counts: a month before 31 May is 30 April."""
    if unit in _SECONDS:
        return now.timestamp() - count * _SECONDS[unit]
    months = now.year * 12 + now.month - 1 - count * (12 if unit == "year" else 1)
    year, month = divmod(months, 12)
    following = dt.date(year + month // 11, (month + 1) % 12 + 1, 1)
    day = min(now.day, (following - dt.timedelta(days=1)).day)
    return now.replace(year=year, month=month + 1, day=day, tzinfo=None).timestamp()


def believed(times: Sequence[str], now: str) -> list[str]:
    """When each entry of a log was there at the latest, going by the times that its writers' clocks gave.

    Entries are in the order in which they were made, whatever their clocks said. As many times as
    possible that agree with it, and are not in the future, are believed; an entry with another one
    counts as made with the next one that is believed, or now.
    """
    kept = _longest_in_order([(time, at) for at, time in enumerate(times) if time <= now])
    found = [times[at] if at in kept else "" for at in range(len(times))]
    after = now
    for at in range(len(times) - 1, -1, -1):
        found[at] = after = found[at] or after
    return found


def _longest_in_order(items: Sequence[tuple[str, int]]) -> set[int]:
    """Which entries make the longest sequence of times that never go back."""
    ends: list[str] = []
    last: list[int] = []
    before: dict[int, int | None] = {}
    for time, at in items:
        length = bisect.bisect_right(ends, time)
        ends[length : length + 1] = [time]
        last[length : length + 1] = [at]
        before[at] = last[length - 1] if length else None
    found = set()
    step: int | None = last[-1] if last else None
    while step is not None:
        found.add(step)
        step = before[step]
    return found
