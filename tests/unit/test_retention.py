"""Retention policies: which commits of a history stay (specs/retention.md)."""

from __future__ import annotations

import dataclasses
import datetime as dt
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimgvc import errors
from vimgvc.model import retention

NOON = dt.datetime(2026, 6, 30, 12, 0, tzinfo=dt.UTC)
NOW = int(NOON.timestamp())
Policy = retention.Policy
Duration = retention.Duration


def items(*times: str, tags: dict[str, str] | None = None) -> list[retention.Item]:
    """A history, newest first; each commit is called by its time, the first is the tip."""
    return [
        retention.Item(time, time, ("vm",) if at == 0 else (), ((tags or {})[time],) if time in (tags or {}) else ())
        for at, time in enumerate(times)
    ]


def kept(policy: Policy, history: Sequence[retention.Item], now: int = NOW) -> list[str]:
    """What stays beside the tip, newest first."""
    chosen = retention.choose(policy, history, now)
    return [name for name, reasons in chosen.items() if reasons and name != history[0].id]


#: Two a day: at 1:00 and at 23:00 on the last ten days of 2025 and the first ten of 2026.
_DAYS = [dt.date(2026, 1, 10) - dt.timedelta(days=back) for back in range(20)]
TWICE = [f"{day}T{hour:02}:00:00Z" for day in _DAYS for hour in (23, 1)]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        pytest.param(Policy(last=3), TWICE[1:3], id="last"),
        pytest.param(Policy(last=1), [], id="the tip is the last one"),
        pytest.param(Policy(hourly=3), TWICE[1:3], id="hourly"),
        pytest.param(Policy(daily=3), [TWICE[2], TWICE[4]], id="daily: the newest of each day"),
        pytest.param(
            Policy(weekly=3), ["2026-01-04T23:00:00Z", "2025-12-28T23:00:00Z"], id="weekly: ISO weeks end on Sunday"
        ),
        pytest.param(Policy(monthly=5), ["2025-12-31T23:00:00Z"], id="monthly: more than there are"),
        pytest.param(Policy(yearly=2), ["2025-12-31T23:00:00Z"], id="yearly"),
        pytest.param(Policy(within=Duration(hours=24)), TWICE[1:3], id="within: from the newest on, its edge included"),
        pytest.param(Policy(within=Duration(months=1)), TWICE[1:], id="within a month"),
        pytest.param(Policy(last=2, yearly=2), [TWICE[1], "2025-12-31T23:00:00Z"], id="rules add up"),
        pytest.param(
            Policy(monthly=2, offset=2 * 3600),
            ["2025-12-31T01:00:00Z"],
            id="a zone: 23:00 UTC is the next day",
        ),
        pytest.param(Policy(daily=2, offset=-3 * 3600), [TWICE[1]], id="a zone: 1:00 UTC is the day before"),
    ],
)
def test_rules(policy: Policy, expected: list[str]) -> None:
    """Each rule keeps the newest commit in each of the newest so many periods."""
    assert kept(policy, items(*TWICE)) == expected


def test_tags_are_kept() -> None:
    """What a tag names is kept whatever the policy; a policy of a tag alone keeps nothing else."""
    history = items(*TWICE, tags={TWICE[7]: "release-1", TWICE[9]: "nightly"})
    assert kept(Policy(last=1), history) == [TWICE[7], TWICE[9]]
    chosen = retention.choose(Policy(tags=("release-*",)), history, NOW)
    assert chosen[TWICE[7]] == ("tag release-1", "tag release-*")
    assert chosen[TWICE[9]] == ("tag nightly",)
    assert sum(map(bool, chosen.values())) == 3


def test_k14_dated_in_the_future() -> None:
    """K14: commits dated later than in an hour are kept and shown as such, and count for no rule."""
    history = items("2026-06-30T13:00:01Z", "2099-01-01T00:00:00Z", *TWICE)
    chosen = retention.choose(Policy(last=2, yearly=1, within=Duration(hours=1)), history, NOW)
    assert chosen["2099-01-01T00:00:00Z"] == (retention.AHEAD,)
    assert chosen["2026-06-30T13:00:01Z"] == ("branch vm", retention.AHEAD)
    assert chosen[TWICE[0]] == ("last", "yearly", "within")
    assert chosen[TWICE[1]] == ("last",)
    assert not any(chosen[name] for name in TWICE[2:])
    assert retention.AHEAD not in chosen[TWICE[0]]
    just = items("2026-06-30T13:00:00Z", *TWICE)
    assert retention.choose(Policy(last=1), just, NOW)["2026-06-30T13:00:00Z"] == ("branch vm", "last")


def test_impossible_date() -> None:
    """A commit of a day that does not exist is kept."""
    history = items(TWICE[0], "2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z", TWICE[1])
    assert kept(Policy(last=1), history) == ["2026-02-30T00:00:00Z", "0000-01-01T00:00:00Z"]


def test_clock_that_went_back() -> None:
    """Time decides what is newest, and the order of history among equal times."""
    history = items("2026-01-01T00:00:00Z", "2026-01-03T00:00:00Z", "2026-01-02T00:00:00Z")
    assert kept(Policy(last=1), history) == ["2026-01-03T00:00:00Z"]
    same = [retention.Item(name, TWICE[0], ("vm",) if name == "a" else ()) for name in "abc"]
    assert kept(Policy(last=2, yearly=9), same) == ["b"]


_TIMES = (
    st.integers(-3000, 100).map(lambda hours: NOON.replace(tzinfo=None) + dt.timedelta(hours=hours)) | st.datetimes()
)
_TAGS = st.sampled_from([(), (), (), ("v1",), ("v2", "x")])
_HISTORIES = st.lists(st.tuples(_TIMES, _TAGS), min_size=1, max_size=25).map(
    lambda drawn: [
        retention.Item(str(at), _text(time), ("vm",) if at == 0 else (), tags) for at, (time, tags) in enumerate(drawn)
    ]
)
_COUNTS = st.integers(0, 6)
_DURATIONS = st.none() | st.builds(Duration, st.integers(0, 30), st.integers(0, 2000))
_OFFSETS = st.integers(-14 * 60, 14 * 60).map(lambda minutes: 60 * minutes)
_POLICIES = st.builds(
    Policy, _COUNTS, _COUNTS, _COUNTS, _COUNTS, _COUNTS, _COUNTS, _DURATIONS, st.sampled_from([(), ("v*",)]), _OFFSETS
)


def _names(policy: Policy, history: Sequence[retention.Item]) -> set[str]:
    return {name for name, reasons in retention.choose(policy, history, NOW).items() if reasons}


def _with(policy: Policy, rule: str, value: object) -> Policy:
    changes: dict[str, Any] = {rule: value}
    return dataclasses.replace(policy, **changes)


@given(_POLICIES, _HISTORIES)
def test_never_a_tip(policy: Policy, history: list[retention.Item]) -> None:
    """Whatever the policy: every commit has a verdict, and what a branch or tag names, or is dated ahead, stays."""
    chosen = retention.choose(policy, history, NOW)
    assert chosen.keys() == {item.id for item in history}
    for item in history:
        time = retention.parse_time(item.time)
        if item.branches or item.tags or time is None or time > NOW + retention.FUTURE:
            assert chosen[item.id]


@given(_POLICIES, _HISTORIES, st.sampled_from(["last", "hourly", "daily", "weekly", "monthly", "yearly", "within"]))
def test_monotone(policy: Policy, history: list[retention.Item], rule: str) -> None:
    """A policy that keeps more of something keeps all that it kept before."""
    if rule == "within":
        before = policy.within or Duration()
        more = dataclasses.replace(policy, within=Duration(before.months + 1, before.hours + 5))
    else:
        more = _with(policy, rule, getattr(policy, rule) + 1)
    assert _names(policy, history) <= _names(more, history)


@given(_POLICIES, _HISTORIES)
def test_again_forgets_nothing(policy: Policy, history: list[retention.Item]) -> None:
    """What a policy kept it keeps when it is applied again."""
    left = [item for item in history if item.id in _names(policy, history)]
    assert _names(policy, left) == {item.id for item in left}


@pytest.mark.parametrize(
    ("text", "expected"),
    [("14d", Duration(0, 336)), ("1y6m", Duration(18)), ("2w3d12h", Duration(0, 420)), ("0h", Duration())],
)
def test_durations(text: str, expected: Duration) -> None:
    """Years, months, weeks, days and hours, in this order."""
    assert retention.parse_duration(text) == expected


def _seconds(*when: int) -> int:
    return int(dt.datetime(*when, tzinfo=dt.UTC).timestamp())  # type: ignore[arg-type,misc]


def test_months_of_the_calendar() -> None:
    """A month before the 31st is the last day of a shorter month; nothing is before the first year."""
    assert Duration(1).before(_seconds(2024, 3, 31, 5)) == _seconds(2024, 2, 29, 5)
    assert Duration(14).before(_seconds(2026, 1, 31)) == _seconds(2024, 11, 30)
    assert Duration(1, 25).before(_seconds(2026, 1, 1)) == _seconds(2025, 11, 29, 23)
    assert Duration(99999).before(NOW) < _seconds(1, 1, 1)


@given(st.integers(3 * 86400, 9999 * 31556952 - 5 * 86400), _OFFSETS)
def test_periods_are_those_of_the_calendar(seconds_since: int, offset: int) -> None:
    """Two commits share an hour, day, ISO week, month or year exactly when the calendar says so."""
    time = dt.datetime(1, 1, 1, tzinfo=dt.UTC) + dt.timedelta(seconds=seconds_since)
    local = time + dt.timedelta(seconds=offset)
    for days in (0, 1, 6, 7, 27, 366):
        for seconds in (0, 1800, 80000):
            before = time - dt.timedelta(days=days, seconds=seconds) if time.year > 3 else time
            there = before + dt.timedelta(seconds=offset)
            history = [retention.Item(str(at), _text(one)) for at, one in enumerate((time, before))]
            same = {
                "hourly": (local.date(), local.hour) == (there.date(), there.hour),
                "daily": local.date() == there.date(),
                "weekly": local.isocalendar()[:2] == there.isocalendar()[:2],
                "monthly": (local.year, local.month) == (there.year, there.month),
                "yearly": local.year == there.year,
            }
            for rule, expected in same.items():
                policy = _with(Policy(offset=offset), rule, 2)
                chosen = retention.choose(policy, history, _seconds(9999, 12, 31))
                assert (not chosen["1"]) is expected, rule


def _text(time: dt.datetime) -> str:
    return time.isoformat()[:19] + "Z"


@pytest.mark.parametrize("text", ["", "d", "5", "5x", "1h1d", "-1d", "1.5d", "٣d", "99999999h"])
def test_malformed_durations(text: str) -> None:
    """Anything else is a usage error."""
    with pytest.raises(errors.UsageError):
        retention.parse_duration(text)


def test_offsets() -> None:
    """Offsets of zones are hours and minutes, at most 14 hours either way."""
    assert retention.parse_offset("+05:30") == 330 * 60
    assert retention.parse_offset("-0300") == -3 * 3600
    for text in ("", "2", "+2", "+15:00", "02:00", "Europe/Berlin"):
        with pytest.raises(errors.UsageError):
            retention.parse_offset(text)
