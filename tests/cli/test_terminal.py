"""Questions, progress, colours and interruptions on a real terminal."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys

import numpy as np
import pytest

from tests.cli import terminal
from vimgvc.cli import main

_PASSPHRASE = "correct horse"
_INIT = ("init", "--kdf-memory", "64MiB")
_SLOW = ("commit", "big.img", "--level", "19", "--threads", "1")

pytestmark = pytest.mark.slow


@pytest.fixture
def repository(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """A directory with a repository whose key is remembered, and an image that takes long at level 19."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "home").mkdir()
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    key = tmp_path / "disks.key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(range(64)))
    assert main.run(["init", "--key-file", str(key), "--remember", "-q"]) == 0
    words = np.random.default_rng(7).integers(0, 64, 16 << 20, dtype=np.uint8)
    (tmp_path / "big.img").write_bytes(words.tobytes())
    return tmp_path


def _init(directory: pathlib.Path) -> None:
    with terminal.Terminal(directory, *_INIT) as screen:
        screen.until("new passphrase: ")
        screen.type(f"{_PASSPHRASE}\n")
        screen.until("new passphrase (again): ")
        screen.type(f"{_PASSPHRASE}\n")
        assert screen.end() == 0
        assert _PASSPHRASE.encode() not in screen.shown
        assert b"made an empty repository" in screen.shown


def test_a_new_passphrase_is_asked_for_twice_and_never_shown(tmp_path: pathlib.Path) -> None:
    """`init` asks twice; what is typed is not echoed; the questions are wiped; then it opens."""
    _init(tmp_path)
    with terminal.Terminal(tmp_path, "log") as screen:
        screen.until("passphrase: ")
        assert not screen.echoes()
        screen.type(f"{_PASSPHRASE}\n")
        assert screen.end() == 0
        assert screen.echoes()
        assert screen.shown == b"passphrase: \r\x1b[K"


def test_c1_a_wrong_passphrase_is_asked_for_again(tmp_path: pathlib.Path) -> None:
    """After a wrong passphrase there are two more questions; then it is exit code 12."""
    _init(tmp_path)
    with terminal.Terminal(tmp_path, "log") as screen:
        screen.until("passphrase: ")
        screen.type("wrong\n")
        screen.until("wrong passphrase, try again: ")
        screen.type(f"{_PASSPHRASE}\n")
        assert screen.end() == 0
    with terminal.Terminal(tmp_path, "log") as screen:
        for question in ("passphrase: ", "try again: ", "try again: "):
            screen.until(question)
            screen.type("wrong\n")
        assert screen.end() == 12
        assert b"vimgvc: error: no key slot opens with this passphrase\r\nvimgvc: hint: " in screen.shown


@pytest.mark.parametrize(
    ("answers", "message"),
    [(["one", "other"], b"the two passphrases differ"), ([""], b"the passphrase is empty")],
    ids=["different", "empty"],
)
def test_a_new_passphrase_that_cannot_be(tmp_path: pathlib.Path, answers: list[str], message: bytes) -> None:
    """Two different passphrases, or an empty one, are a usage error, and nothing is made."""
    with terminal.Terminal(tmp_path, *_INIT) as screen:
        for answer in answers:
            screen.until(": ")
            screen.type(f"{answer}\n")
        assert screen.end() == 2
        assert b"vimgvc: error: " + message in screen.shown
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("typed", "message"), [("\x03", b"interrupted"), ("\x04", b"no answer")], ids=["ctrl-c", "ctrl-d"]
)
def test_no_answer(tmp_path: pathlib.Path, typed: str, message: bytes) -> None:
    """Ctrl-C and end of input at a question end with 130, and the terminal echoes again."""
    with terminal.Terminal(tmp_path, *_INIT) as screen:
        screen.until("new passphrase: ")
        assert not screen.echoes()
        screen.type(typed)
        assert screen.end() == 130
        assert screen.echoes()
        assert b"vimgvc: error: " + message + b"\r\nvimgvc: hint: run the same command again" in screen.shown
    assert list(tmp_path.iterdir()) == []


def test_the_question_does_not_go_to_a_redirected_output(tmp_path: pathlib.Path) -> None:
    """With output in a pipe the question is still on the terminal, and the pipe has the result only."""
    _init(tmp_path)
    with terminal.Terminal(tmp_path, "log", "--json", piped=True) as screen:
        screen.until("passphrase: ")
        screen.type(f"{_PASSPHRASE}\n")
        assert screen.process.stdout
        assert json.loads(screen.process.stdout.read())["commits"] == []
        assert screen.end() == 0


def test_progress_on_a_terminal(repository: pathlib.Path) -> None:
    """A bar with rate, time left and savings is shown, and is gone at the end."""
    with terminal.Terminal(repository, *_SLOW, piped=True) as screen:
        screen.until("compression ")
        screen.send(signal.SIGINT)
        assert screen.end() == 130
        shown = screen.shown.decode()
    assert "committing big" in shown
    assert re.search(r"[\d.]+ MiB, [\d.]+ [KM]iB/s, \d+:\d\d left, dedup 1\.0:1, compression 1\.\d:1", shown)
    assert shown.count("\x1b[?25h") >= 1


def test_no_progress_in_a_pipe(repository: pathlib.Path) -> None:
    """Without a terminal there is not a byte on standard error."""
    command = [sys.executable, "-m", "vimgvc", "commit", "big.img", "--level", "4"]
    environment = {**os.environ, "PYTHONPATH": str(terminal.ROOT)}
    result = subprocess.run(
        command, cwd=repository, env=environment, capture_output=True, check=False, start_new_session=True
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert result.stdout.startswith(b"[big ")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_d14_the_first_signal_stops_in_order(repository: pathlib.Path, number: signal.Signals) -> None:
    """Ctrl-C, SIGTERM and SIGHUP end a commit with 130 and a hint; the same command then succeeds."""
    with terminal.Terminal(repository, *_SLOW) as screen:
        screen.until("committing big")
        screen.send(number)
        screen.until("once more to stop at once")
        assert screen.end() == 130
        shown = screen.shown.decode()
    assert "vimgvc: error: interrupted\r\nvimgvc: hint: run the same command again to continue\r\n" in shown
    assert "Traceback" not in shown
    assert main.run(["commit", "big.img", "--level", "1", "-q"]) == 0
    assert main.run(["verify", "--data", "-q"]) == 0


def test_d14_the_second_signal_ends_at_once(repository: pathlib.Path) -> None:
    """A second signal ends the program without the end of what is under way; nothing is lost by that."""
    with terminal.Terminal(repository, *_SLOW) as screen:
        screen.until("committing big")
        screen.send(signal.SIGINT)
        screen.until("once more to stop at once")
        screen.send(signal.SIGINT)
        assert screen.end() == 130
        assert b"interrupted" not in screen.shown
    assert main.run(["commit", "big.img", "--level", "1", "-q"]) == 0
    assert main.run(["verify", "--data", "-q"]) == 0


def test_d14_an_ignored_signal_stays_ignored(tmp_path: pathlib.Path) -> None:
    """What `nohup` makes ignored is not caught: the command ends as if there had been no SIGHUP."""
    hang_up = "sh -c 'kill -HUP $PPID; echo secret'"
    script = 'trap "" HUP; exec "$0" -m vimgvc init --kdf-memory 64MiB --password-command "$1"'
    command = ["sh", "-c", script, sys.executable, hang_up]
    environment = {**os.environ, "PYTHONPATH": str(terminal.ROOT)}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=False)
    assert (result.returncode, result.stderr) == (0, b"")


def test_colours_on_a_terminal_only(repository: pathlib.Path) -> None:
    """`log` is coloured on a terminal, but not with NO_COLOR, on a dumb terminal or in a pipe."""
    (repository / "vm.img").write_bytes(b"x")
    assert main.run(["commit", "vm.img", "-q"]) == 0
    with terminal.Terminal(repository, "log", "--oneline") as screen:
        assert screen.end() == 0
        assert re.fullmatch(
            rb"\x1b\[33m[0-9a-f]{12}\x1b\[0m \(\x1b\[1;32mvm\x1b\[0m\) snapshot of vm\r\n", screen.shown
        )
    for plain in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        with terminal.Terminal(repository, "log", "--oneline", environment=plain) as screen:
            assert screen.end() == 0
            assert b"\x1b" not in screen.shown
