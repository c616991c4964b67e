"""Every target on its seeds, on what fuzzing ever found, and on some inputs made by chance."""

from __future__ import annotations

import contextlib
import pathlib
import re
import signal
from collections.abc import Iterator
from types import FrameType

import numpy as np
import pytest

from tests.fuzz import mutate, targets
from vimgvc import errors

FOUND = pathlib.Path(__file__).parent / "found"

_CPU_SECONDS = 1.0
_MEMORY = 256 << 20
_PEAK = re.compile(r"VmHWM:\s+(\d+) kB")
_NOW = re.compile(r"VmRSS:\s+(\d+) kB")

_PATCHED = {"qcow2", "cow", "vmdk_sparse", "ova", "partitions"}


class TooSlowError(Exception):
    """An input needs more processor time than a second."""


@contextlib.contextmanager
def _bounded(most: int = _MEMORY) -> Iterator[None]:
    """Processor time, which the load of the machine hardly changes, and memory of one input are bounded."""

    def stop(_signal: int, _frame: FrameType | None) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGPROF, stop)
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    began = _memory(_NOW)
    signal.setitimer(signal.ITIMER_PROF, _CPU_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.signal(signal.SIGPROF, before)
    assert _memory(_PEAK) - began < most


def _memory(what: re.Pattern[str]) -> int:
    found = what.search(pathlib.Path("/proc/self/status").read_text())
    assert found
    return int(found[1]) << 10


def _is_patched(name: str) -> bool:
    return name in _PATCHED or name.startswith("gate_")


def _run(name: str, data: bytes) -> None:
    try:
        with _bounded():
            targets.TARGETS[name].run(data)
    except BaseException:
        print(f"target {name}, input {data.hex()}")  # noqa: T201 - shown with a failure
        raise


@pytest.mark.parametrize("name", targets.TARGETS)
def test_seeds(name: str) -> None:
    """What the fuzzer begins with passes within the bounds."""
    seeds = targets.TARGETS[name].seeds()
    assert seeds
    for seed in [b"", *seeds]:
        _run(name, seed)


def test_what_was_found() -> None:
    """An input that once broke a target breaks it no more."""
    for path in sorted(FOUND.glob("*/*")):
        _run(path.parent.name, path.read_bytes())


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_mutants(name: str, seed: int) -> None:
    """Changed by chance, inputs are parsed or refused with a typed error, in bounded time and memory."""
    seeds = targets.TARGETS[name].seeds()
    count = 40 if name == "gate_vhdx" else 120  # its checksums take a while
    for data in mutate.mutants(seeds, count, np.random.default_rng(seed), patches=_is_patched(name)):
        _run(name, data)


def _forever() -> None:
    while True:
        pass


def test_the_bounds_hold() -> None:
    """An input that takes too long or too much is noticed, and so is another error than a typed one."""
    with pytest.raises(TooSlowError), _bounded():
        _forever()
    with pytest.raises(AssertionError), _bounded(16 << 20):
        np.ones(40 << 20, np.uint8)  # malloc(3): from 32 MiB on never of what was freed before

    def broken(_data: bytes) -> None:
        raise KeyError

    def loud(_data: bytes) -> None:
        raise errors.UnsafeImage("two\nlines")

    with pytest.raises(KeyError):
        targets._swallow(broken)(b"")
    with pytest.raises(AssertionError):
        targets._swallow(loud)(b"")
