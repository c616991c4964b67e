"""Forgetting most of a branch on a real terminal."""

from __future__ import annotations

import json
import pathlib

import pytest

from tests.cli import terminal
from vimgvc.cli import main

pytestmark = pytest.mark.slow
_FORGET = ("forget", "--keep-last", "1")
_QUESTION = "forget 3 of the 4 commits of 'vm'? [y/N] "


@pytest.fixture
def folder(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> pathlib.Path:
    """A directory with a repository of four commits, whose key is remembered."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(bytes(range(64)))
    assert main.run(["init", "--key-file", "key", "--remember", "-q"]) == 0
    for number in range(4):
        (tmp_path / "vm.img").write_bytes(bytes([number]))
        assert main.run(["commit", "vm.img", "-q"]) == 0
    capsys.readouterr()
    return tmp_path


def _left(capsys: pytest.CaptureFixture[str]) -> int:
    assert main.run(["log", "--json"]) == 0
    return len(json.loads(capsys.readouterr().out)["commits"])


def test_n25_a_yes_forgets(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N25: more than half of a branch is asked about; a yes forgets it."""
    with terminal.Terminal(folder, *_FORGET) as screen:
        screen.until(_QUESTION)
        screen.type("y\n")
        assert screen.end() == 0
        assert b"forgot 3 commits" in screen.shown
    assert _left(capsys) == 1


@pytest.mark.parametrize("answer", ["\n", "n\n", "yess\n"])
def test_n25_anything_else_forgets_nothing(
    folder: pathlib.Path, capsys: pytest.CaptureFixture[str], answer: str
) -> None:
    """N25: any other answer forgets nothing, and fails."""
    with terminal.Terminal(folder, *_FORGET) as screen:
        screen.until(_QUESTION)
        screen.type(answer)
        assert screen.end() == 1
        assert b"nothing was forgotten" in screen.shown
    assert _left(capsys) == 4


def test_n25_a_program_is_not_asked(folder: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """N25: with --json nobody is asked, also on a terminal: it is an error that names --force."""
    with terminal.Terminal(folder, *_FORGET, "--json") as screen:
        assert screen.end() == 2
        assert b"--force" in screen.shown
    assert _left(capsys) == 4
