"""Plays every transcript in this directory."""

from __future__ import annotations

import json
import os
import pathlib
from collections.abc import Callable

import pytest

from tests.cli import transcript

pytestmark = pytest.mark.long

_HERE = pathlib.Path(__file__).parent
#: Programs that transcripts make images with, and Debian's packages of them.
_NEEDS = dict.fromkeys(("images", "export", "convert", "machine"), ("qemu-img", "qemu-utils"))
_TRANSCRIPTS = sorted(path.stem for path in _HERE.glob("*.txt"))


@pytest.mark.slow
@pytest.mark.parametrize("name", _TRANSCRIPTS)
def test_transcript(
    name: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, require_tool: Callable[[str, str], str]
) -> None:
    """Every command prints what the transcript says, and nothing that is secret (C20)."""
    if name in _NEEDS:
        require_tool(*_NEEDS[name])
    directory = tmp_path / "work"
    directory.mkdir()
    monkeypatch.chdir(directory)
    for variable, value in {"HOME": str(tmp_path / "home"), "TZ": "UTC0", "LC_ALL": "C.UTF-8", "COLUMNS": "80"}.items():
        monkeypatch.setenv(variable, value)
    (tmp_path / "home").mkdir()
    player = transcript.Player(directory, monkeypatch.setenv)
    steps = transcript.parse((_HERE / f"{name}.txt").read_text())
    assert steps
    for step in steps:
        player.play(step)
    player.secrets |= _secrets(tmp_path)
    assert player.secrets
    assert transcript.leaks(player.printed, player.secrets) == []


def _secrets(tmp_path: pathlib.Path) -> set[str]:
    """Passphrases in files called *pass*, and the root keys that were remembered."""
    found = {path.read_text().strip() for path in tmp_path.rglob("*pass*") if path.is_file()}
    for path in (tmp_path / "home" / ".config" / "vimgvc" / "keys").glob("*.json"):
        found.add(json.loads(path.read_text())["root"])
    return found - {""}


def test_c20_leaks_are_found() -> None:
    """The search that every transcript ends with finds what it is for."""
    assert transcript.leaks(["", "key 0ABCDEF1\n"], {"0abcdef1", "other"}) == ["0abcdef1"]


def test_transcripts_are_there() -> None:
    """Every verb has a transcript, and so have mistakes, hostile names and pipes."""
    assert {"init", "commit", "log", "restore", "verify", "key", "stats", "mistakes", "hostile", "pipes"} <= set(
        _TRANSCRIPTS
    )


def test_differences_are_noticed(tmp_path: pathlib.Path) -> None:
    """Wrong output, error output, exit code and files each fail a step."""
    player = transcript.Player(tmp_path, os.environ.__setitem__)
    player.play(transcript.parse("% echo a; echo b >&2; exit 3\na\n! b\n? 3\n=")[0])
    for wrong in ("", "b", "a\n! b\n? 3\n= file", "a\n! c\n? 3", "a\n! b\n? 1", "a\na\n! b\n? 3"):
        with pytest.raises(AssertionError):
            player.play(transcript.parse(f"% echo a; echo b >&2; exit 3\n{wrong}")[0])
