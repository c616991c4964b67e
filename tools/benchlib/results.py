"""What was measured, and the numbers that follow from it."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

MIB = 1 << 20


@dataclass(frozen=True)
class Record:
    """One run of one tool."""

    measure: str
    tool: str
    repetition: int
    seconds: float
    cpu_seconds: float
    peak_bytes: int
    facts: dict[str, Any] = field(default_factory=dict)


@dataclass
class Results:
    records: list[Record] = field(default_factory=list)
    stored: dict[str, dict[str, int]] = field(default_factory=dict)  # measure -> tool -> bytes
    numbers: dict[str, float] = field(default_factory=dict)  # what other scripts reported

    def seconds(self, measure: str, tool: str) -> list[float]:
        return [record.seconds for record in self.records if (record.measure, record.tool) == (measure, tool)]

    def median(self, measure: str, tool: str) -> float | None:
        values = self.seconds(measure, tool)
        return statistics.median(values) if values else None

    def peak(self, tool: str) -> int | None:
        """Of all its runs."""
        return max((record.peak_bytes for record in self.records if record.tool == tool), default=None)

    def measures(self) -> list[str]:
        return list(dict.fromkeys(record.measure for record in self.records))

    def tools(self) -> list[str]:
        return list(dict.fromkeys(record.tool for record in self.records))

    def document(self) -> dict[str, Any]:
        return {
            "medians": {
                measure: {tool: value for tool in self.tools() if (value := self.median(measure, tool)) is not None}
                for measure in self.measures()
            },
            "peak_bytes": {tool: self.peak(tool) for tool in self.tools()},
            "stored_bytes": self.stored,
            "numbers": self.numbers,
            "targets": [
                {"target": target.text, "value": value, "met": None if value is None else target.met(value)}
                for target in TARGETS
                for value in [target.value(self)]
            ],
            "records": [asdict(record) for record in self.records],
        }


@dataclass(frozen=True)
class Target:
    """A promise about a number: at least, or at most, `bound`."""

    text: str
    value: Callable[[Results], float | None]
    bound: float
    at_least: bool
    unit: str

    def met(self, value: float) -> bool:
        return value >= self.bound if self.at_least else value <= self.bound


def _ratio(above: float | None, below: float | None) -> float | None:
    return above / below if above is not None and below else None


def _faster(measure: str, peer: str, bound: float, text: str) -> Target:
    def value(results: Results) -> float | None:
        return _ratio(results.median(measure, peer), results.median(measure, "vimgvc"))

    return Target(f"{text}: faster than {peer}", value, bound, at_least=True, unit="x")


def _near_limit(measure: str, text: str) -> Target:
    def value(results: Results) -> float | None:
        return _ratio(results.median(measure, "vimgvc"), results.median(measure, "limit"))

    return Target(f"{text}: time by the limit", value, 1.25, at_least=False, unit="x")


def _smaller(measure: str, peer: str, bound: float, text: str) -> Target:
    def value(results: Results) -> float | None:
        stored = results.stored.get(measure, {})
        return _ratio(stored.get("vimgvc"), stored.get(peer))

    return Target(f"{text}: stored by {peer}", value, bound, at_least=False, unit="x")


def _number(key: str, bound: float, unit: str, text: str, *, at_least: bool = False) -> Target:
    return Target(text, lambda results: results.numbers.get(key), bound, at_least=at_least, unit=unit)


def _peak(results: Results) -> float | None:
    peak = results.peak("vimgvc")
    return peak / MIB if peak is not None else None


def _difference(results: Results) -> float | None:
    whole, alone = results.median("1 TiB sparse", "vimgvc"), results.median("its 1 GiB alone", "vimgvc")
    return whole - alone if whole is not None and alone is not None else None


def _durability(results: Results) -> float | None:
    """How much longer a commit takes with fsync and read-back than without, in percent."""
    safe, unsafe = results.seconds("durable", "vimgvc"), results.seconds("not durable", "vimgvc")
    return 100 * (statistics.median(safe) / statistics.median(unsafe) - 1) if safe and unsafe else None


def _median_of(measure: str) -> Callable[[Results], float | None]:
    return lambda results: results.median(measure, "vimgvc")


TARGETS = (
    _faster("first commit", "restic", 6, "first commit"),
    _faster("first commit", "borg", 6, "first commit"),
    _faster("first commit", "qemu-img", 1, "first commit"),
    _faster("package upgrade", "restic", 12, "package upgrade"),
    _faster("package upgrade", "borg", 12, "package upgrade"),
    _faster("unchanged, read again", "restic", 20, "unchanged, read again"),
    _faster("unchanged, read again", "borg", 20, "unchanged, read again"),
    _near_limit("first commit", "first commit"),
    _near_limit("packages installed", "packages installed"),
    _near_limit("package upgrade", "package upgrade"),
    _near_limit("unchanged, read again", "unchanged, read again"),
    _faster("restore", "restic", 2, "restore"),
    _faster("restore", "borg", 5, "restore"),
    _faster("restore and sync", "restic", 2, "restore and sync"),
    _faster("restore and sync", "borg", 5, "restore and sync"),
    _smaller("three versions", "restic", 0.92, "three versions"),
    _smaller("three versions", "borg", 0.90, "three versions"),
    _smaller("a second machine adds", "restic", 0.65, "a second machine adds"),
    Target("peak memory", _peak, 300, at_least=False, unit="MiB"),
    Target("1 TiB sparse: longer than its 1 GiB", _difference, 1, at_least=False, unit="s"),
    _number("index resident MiB", 200, "MiB", "index of 16 M chunks: resident"),
    _number("index lookups per second", 1e6, "/s", "index of 16 M chunks: lookups", at_least=True),
    Target("--version", _median_of("--version"), 0.2, at_least=False, unit="s"),
    Target("log of 1,000 commits", _median_of("log of 1,000 commits"), 0.4, at_least=False, unit="s"),
    Target("durability costs", _durability, 10, at_least=False, unit="%"),
)
