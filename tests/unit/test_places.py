"""What was found of a place is remembered, and only that."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import pytest

from vimgvc import errors
from vimgvc.backends import probe
from vimgvc.repo import places

_URL = "s3://disks/a?endpoint=https://store.example"
_ANSWER = probe.Answer(exclusive_create=True, ranges=True, removes=False, durable=True)
_NOW = 1_800_000_000.0


def _at(folder: pathlib.Path, now: float = _NOW) -> places.Places:
    return places.Places(folder, clock=lambda: now)


def test_remembered(tmp_path: pathlib.Path) -> None:
    """What was noted is recalled, for that place only, for thirty days."""
    _at(tmp_path).note(_URL, _ANSWER)
    assert _at(tmp_path).recall(_URL) == _ANSWER
    assert _at(tmp_path, _NOW + places.BELIEVED).recall(_URL) == _ANSWER
    for now in (_NOW + places.BELIEVED + 1, _NOW - 1):
        assert _at(tmp_path, now).recall(_URL) is None
    assert _at(tmp_path).recall(_URL + "x") is None
    _at(tmp_path).forget(_URL)
    _at(tmp_path).forget(_URL)
    assert _at(tmp_path).recall(_URL) is None


def test_private(tmp_path: pathlib.Path) -> None:
    """The file is the user's own; one that others can write is not believed."""
    _at(tmp_path).note(_URL, _ANSWER)
    (file,) = (tmp_path / "probes").iterdir()
    assert file.stat().st_mode & 0o777 == 0o600
    file.chmod(0o622)
    assert _at(tmp_path).recall(_URL) is None


def _shorter(data: bytes) -> bytes:
    return data[:-1]


def _other_type(data: bytes) -> bytes:
    return data.replace(b"true", b"1")


@pytest.mark.parametrize("edit", [_shorter, _other_type])
def test_damaged(tmp_path: pathlib.Path, edit: Callable[[bytes], bytes]) -> None:
    """What is damaged, or about another place, counts as nothing; noting it again repairs it."""
    _at(tmp_path).note(_URL, _ANSWER)
    (file,) = (tmp_path / "probes").iterdir()
    file.write_bytes(edit(file.read_bytes()))
    assert _at(tmp_path).recall(_URL) is None
    _at(tmp_path).note(_URL + "2", _ANSWER)
    (other,) = set((tmp_path / "probes").iterdir()) - {file}
    file.write_bytes(other.read_bytes())
    assert _at(tmp_path).recall(_URL) is None
    _at(tmp_path).note(_URL, _ANSWER)
    assert _at(tmp_path).recall(_URL) == _ANSWER


def test_nowhere_to_remember(tmp_path: pathlib.Path) -> None:
    """Without a home, or where nothing can be written, everything works and nothing is remembered."""
    for memory in (places.Places(None), places.Places(tmp_path / "file" / "below")):
        (tmp_path / "file").touch()
        memory.note(_URL, _ANSWER)
        assert memory.recall(_URL) is None


class _Asked:
    """Counts how often a place is tried."""

    def __init__(self, answer: probe.Answer) -> None:
        self.answer, self.times = answer, 0

    def __call__(self) -> probe.Answer:
        self.times += 1
        return self.answer


def _unsafe(answer: probe.Answer) -> str:
    return "" if answer.exclusive_create else "gives a name twice"


def test_asked_once(tmp_path: pathlib.Path) -> None:
    """A place is tried once by one process, and not by the next one that remembers."""
    memory = _at(tmp_path)
    first = _Asked(_ANSWER)
    probing = probe.Probing(_URL, first, _unsafe, memory)
    assert probing.known() is None
    assert [probing.settle(), probing.settle(), probing.known()] == [_ANSWER] * 3
    assert first.times == 1
    second = _Asked(_ANSWER)
    assert probe.Probing(_URL, second, _unsafe, memory).settle() == _ANSWER
    assert second.times == 0
    assert probe.Probing(_URL, second, _unsafe, memory).settle(anew=True) == _ANSWER
    assert second.times == 1


def test_d19_unsafe_is_refused_and_not_remembered(tmp_path: pathlib.Path) -> None:
    """D19: a place that fails the trial is refused with the reason each time, also where it was safe before."""
    memory = _at(tmp_path)
    bad = probe.Answer(exclusive_create=False, ranges=True, removes=True, durable=True)
    asked = _Asked(bad)
    for _ in range(2):
        with pytest.raises(errors.RemoteError, match="gives a name twice") as raised:
            probe.Probing(_URL, asked, _unsafe, memory).settle()
        assert raised.value.kind == "unsafe"
    assert asked.times == 2
    memory.note(_URL, bad)
    with pytest.raises(errors.RemoteError):
        probe.Probing(_URL, asked, _unsafe, memory).settle()
    assert asked.times == 3
