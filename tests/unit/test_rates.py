"""How many bytes a second may pass."""

from __future__ import annotations

import threading

import pytest

from vimgvc import errors
from vimgvc.backends import rates


class _Clock:
    """Goes on only when somebody waits."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_rate_is_kept_exactly() -> None:
    """Who waits as told passes the first piece at once, and each other one when those before it have had their time."""
    clock = _Clock()
    limit = rates.Limit(1000, clock)
    began, passed = clock.now, 0
    for count in (500, 1, 2000, 0, 999):
        clock.now += limit.charge(count)
        assert clock.now - began == pytest.approx(passed / 1000)
        passed += count
    assert limit.charged == passed == 3500


def test_idle_time_is_not_saved_up() -> None:
    """After a pause of any length one piece passes at once, not as many as the pause had room for."""
    clock = _Clock()
    limit = rates.Limit(1000, clock)
    assert limit.charge(1000) == 0
    clock.now += 3600
    assert limit.charge(1000) == 0
    assert limit.charge(1000) == 1


def test_all_threads_share_one_rate() -> None:
    """Many threads at once are told different times, one after the other, and no byte is forgotten."""
    limit = rates.Limit(1000, _Clock())
    told: list[float] = []
    start = threading.Barrier(8)

    def work() -> None:
        start.wait()
        told.extend([limit.charge(10) for _ in range(100)])

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(told) == pytest.approx([number / 100 for number in range(800)])
    assert limit.charged == 8000


def test_without_a_rate_nothing_waits() -> None:
    """What is not limited passes in the pieces that it comes in."""
    limit = rates.Limit()
    assert [limit.charge(1 << 40), limit.charge(1 << 40), limit.piece(1 << 30)] == [0, 0, 1 << 30]


@pytest.mark.parametrize(
    ("rate", "piece"), [(16 << 10, 4 << 10), (800_000, 100_000), (1 << 40, 1 << 20)], ids=["slow", "some", "fast"]
)
def test_pieces_are_an_eighth_of_a_second(rate: int, piece: int) -> None:
    """Pieces are small where the rate is, and never larger than asked for."""
    assert rates.Limit(rate).piece(1 << 20) == piece


@pytest.mark.parametrize(
    ("given", "seconds"),
    [("16K", 64), ("1M", 1), ("1MiB", 1), ("1mib/s", 1), ("4M", 0.25), ("1048576KB", 1 / 1000), ("1G", 1 / 1024)],
)
def test_units(given: str, seconds: float) -> None:
    """K, M, G and T are powers of 1024, with a B behind them powers of 1000."""
    limits = rates.Limits.of({rates.UPLOAD: given})
    limits.up.charge(1 << 20)
    assert limits.up.charge(0) == pytest.approx(seconds, rel=0.01)
    limits.down.charge(1 << 20)
    assert limits.down.charge(0) == 0


@pytest.mark.parametrize("given", ["1000", "10", "0", "-1M", "fast", "10MM", "1.5M", "15K", "1e9M", "10M/h"])
def test_what_is_no_rate_is_refused(given: str) -> None:
    """A number without a unit, which programs read differently, what is too slow and what is none name the option."""
    with pytest.raises(errors.UsageError, match="--limit-download"):
        rates.Limits.of({rates.DOWNLOAD: given})


def test_nothing_given() -> None:
    """An empty variable counts as unset."""
    limits = rates.Limits.of({rates.UPLOAD: ""})
    assert limits.up.charge(1 << 40) == limits.up.charge(1) == limits.down.charge(1) == 0
