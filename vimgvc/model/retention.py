"""Which commits of a history a policy keeps (specs/retention.md). Nothing here reads or changes a repository."""

from __future__ import annotations

import calendar
import fnmatch
import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vimgvc import errors

#: A commit dated further ahead than this, in seconds, is no evidence of what is newest: some clock is wrong.
FUTURE = 3600
_TIME = re.compile(r"(\d{4})-(\d\d)-(\d\d)T(\d\d):(\d\d):(\d\d)Z", re.ASCII)
_DURATION = re.compile(r"(?:(\d{1,4})y)?(?:(\d{1,5})m)?(?:(\d{1,5})w)?(?:(\d{1,6})d)?(?:(\d{1,7})h)?", re.ASCII)
_OFFSET = re.compile(r"([+-])(\d\d):?([0-5]\d)", re.ASCII)
_HOUR, _DAY = 3600, 86400
#: Before every time that can be written.
_EVER = -(10**12)

#: By rule: the number of the period that seconds since 1970 are in. The first of January 1970 was a Thursday.
_PERIODS: dict[str, Callable[[int], int]] = {
    "hourly": lambda seconds: seconds // _HOUR,
    "daily": lambda seconds: seconds // _DAY,
    "weekly": lambda seconds: (seconds // _DAY + 3) // 7,
    "monthly": lambda seconds: _month(seconds // _DAY)[0],
    "yearly": lambda seconds: _month(seconds // _DAY)[0] // 12,
}
#: Reasons to keep a commit that no policy overrules.
UNDATED, AHEAD = "no date", "dated in the future"


@dataclass(frozen=True, slots=True)
class Duration:
    """Months are those of the calendar."""

    months: int = 0
    hours: int = 0

    def before(self, time: int) -> int:
        """`time` less this; the last day of a month that is shorter; at most until the first year."""
        month, day = _month(time // _DAY)
        year, number = divmod(month - self.months, 12)
        if year < 1:
            return _EVER
        day = min(day, calendar.monthrange(year, number + 1)[1])
        return calendar.timegm((year, number + 1, day, 0, 0, 0)) + time % _DAY - self.hours * _HOUR


def _month(days: int) -> tuple[int, int]:
    """(months since January of the year 0, day of the month) of a day since 1970.

    Years are counted from March here, so that a leap day is the last of its year.
    """
    era, day = divmod(days + 719468, 146097)
    year = (day - day // 1460 + day // 36524 - day // 146096) // 365
    day -= 365 * year + year // 4 - year // 100
    month = (5 * day + 2) // 153
    return 12 * (year + 400 * era) + month + 2, day - (153 * month + 2) // 5 + 1


@dataclass(frozen=True, slots=True)
class Policy:
    """How many to keep of each kind (0: there is no such rule); `tags`: patterns; `offset`: of the zone, in seconds."""

    last: int = 0
    hourly: int = 0
    daily: int = 0
    weekly: int = 0
    monthly: int = 0
    yearly: int = 0
    within: Duration | None = None
    tags: tuple[str, ...] = ()
    offset: int = 0

    def __bool__(self) -> bool:
        """Whether there is any rule."""
        counts = (self.last, self.hourly, self.daily, self.weekly, self.monthly, self.yearly)
        return any(counts) or self.within is not None or bool(self.tags)


@dataclass(frozen=True, slots=True)
class Item:
    """A commit: `time` as commits spell it; `branches` and `tags` that name it."""

    id: str
    time: str
    branches: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def choose(policy: Policy, items: Sequence[Item], now: int) -> dict[str, tuple[str, ...]]:
    """Identifier → why it is kept, empty when it is not; newest first.

    `items` are in the order of history, children before parents, which decides among equal times; `now` is in
    seconds since 1970. What a branch or tag names is always kept, so is what is dated more than an hour after `now`,
    or on no day at all; the latter two count for no rule.
    """
    kept: dict[str, list[str]] = {}
    dated: list[tuple[int, Item]] = []
    odd: list[tuple[str, Item]] = []
    for item in items:
        time = parse_time(item.time)
        if time is None or time > now + FUTURE:
            odd.append((UNDATED if time is None else AHEAD, item))
        else:
            dated.append((time, item))
    dated.sort(key=lambda pair: pair[0], reverse=True)
    for reason, item in odd:
        kept[item.id] = [*_names(item), reason]
    for _, item in dated:
        kept[item.id] = _names(item)
    for rule, chosen in _rules(policy, dated):
        for item in chosen:
            kept[item.id].append(rule)
    return {commit_id: tuple(dict.fromkeys(reasons)) for commit_id, reasons in kept.items()}


def _names(item: Item) -> list[str]:
    return [*(f"branch {name}" for name in item.branches), *(f"tag {name}" for name in item.tags)]


def _rules(policy: Policy, dated: Sequence[tuple[int, Item]]) -> list[tuple[str, list[Item]]]:
    """What each rule keeps of `dated`, newest first."""
    found = [("last", [item for _, item in dated[: policy.last]])]
    for rule, period in _PERIODS.items():
        newest: dict[int, Item] = {}
        for time, item in dated:
            newest.setdefault(period(time + policy.offset), item)
        found.append((rule, list(newest.values())[: getattr(policy, rule)]))
    if policy.within is not None and dated:
        since = policy.within.before(dated[0][0])
        found.append(("within", [item for time, item in dated if time >= since]))
    for pattern in policy.tags:
        named = [item for _, item in dated if any(fnmatch.fnmatchcase(tag, pattern) for tag in item.tags)]
        found.append((f"tag {pattern}", named))
    return found


@functools.lru_cache(maxsize=1 << 14)
def parse_time(text: str) -> int | None:
    """A commit's time in seconds since 1970; None for one that does not exist. Asked once for each branch."""
    match = _TIME.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(part) for part in match.groups())
    if not (year and 1 <= month <= 12 and hour < 24 and minute < 60 and second < 60):
        return None
    if not 1 <= day <= calendar.monthrange(year, month)[1]:
        return None
    return calendar.timegm((year, month, day, hour, minute, second))


def parse_duration(text: str) -> Duration:
    """`1y6m2w3d12h`, any of the parts in this order; raises `UsageError`."""
    match = _DURATION.fullmatch(text)
    if not text or match is None:
        raise errors.UsageError(f"not a length of time: {text}", hint="write it like 14d, 2w, 6m or 1y6m")
    years, months, weeks, days, hours = (int(part or 0) for part in match.groups())
    return Duration(12 * years + months, 24 * (7 * weeks + days) + hours)


def parse_offset(text: str) -> int:
    """Seconds of `+02:00` or `-0330`; raises `UsageError`."""
    match = _OFFSET.fullmatch(text)
    seconds = int(match[2]) * _HOUR + int(match[3]) * 60 if match else 0
    if match is None or seconds > 14 * _HOUR:
        raise errors.UsageError(f"not an offset from UTC: {text}", hint="write it like +02:00")
    return -seconds if match[1] == "-" else seconds
