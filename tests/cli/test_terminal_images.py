"""Images that are written while somebody watches: progress, interruptions, bytes that are no text."""

from __future__ import annotations

import json
import pathlib
import signal

import numpy as np
import pytest

from tests.cli import terminal
from vimgvc.cli import main

_SLOW = ("convert", "big.img", "big.qcow2", "--format", "qcow2", "-c", "--threads", "1")

pytestmark = pytest.mark.slow


@pytest.fixture
def folder(tmp_path: pathlib.Path) -> pathlib.Path:
    """A directory with an image that takes seconds to be compressed."""
    words = np.random.default_rng(7).integers(0, 64, 48 << 20, dtype=np.uint8)
    (tmp_path / "big.img").write_bytes(words.tobytes())
    return tmp_path


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_d14_an_interrupted_conversion_leaves_no_result(folder: pathlib.Path, number: signal.Signals) -> None:
    """The bar shows what is done; a signal ends it with 130, and nothing has the final name."""
    with terminal.Terminal(folder, *_SLOW) as screen:
        screen.until("copying")
        screen.send(number)
        assert screen.end() == 130
        assert b"interrupted" in screen.shown
    assert sorted(path.name for path in folder.iterdir()) == ["big.img"]


def test_an_image_is_not_sent_to_a_terminal(folder: pathlib.Path) -> None:
    """`-` on a terminal is a usage error before anything is read."""
    with terminal.Terminal(folder, "convert", "big.img", "-", "--format", "raw") as screen:
        assert screen.end() == 2
        assert b"standard output is a terminal" in screen.shown


def test_an_interrupted_export_goes_on(
    folder: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is there of an export that lost its process is compared and used; the result says so."""
    monkeypatch.chdir(folder)
    (folder / "home").mkdir()
    monkeypatch.setenv("HOME", str(folder / "home"))
    (folder / "key").touch(mode=0o600)
    (folder / "key").write_bytes(bytes(range(64)))
    assert main.run(["init", "--key-file", "key", "--remember", "-q"]) == 0
    assert main.run(["commit", "big.img", "--level", "1", "-q"]) == 0
    assert main.run(["export", "big", "new.img", "-q", "--no-compare"]) == 0
    # what a process leaves that was killed: the partial file, under the name that the next run will look for
    tag = _tag(folder)
    (folder / "new.img").rename(folder / f".new.img.{tag}.partial")
    with (folder / f".new.img.{tag}.partial").open("r+b") as file:
        file.seek(30 << 20)
        file.write(b"damaged")
    capsys.readouterr()
    assert main.run(["export", "big", "new.img", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["resumed"]
    assert 0 < told["bytes_written"] <= 4 << 20
    assert (folder / "new.img").read_bytes() == (folder / "big.img").read_bytes()


def _tag(folder: pathlib.Path) -> str:
    """The tag that the partial file of `big` as a raw image has."""
    from vimgvc.commands import access, export, kinds
    from vimgvc.monitor import NullMonitor

    repository = access.open_repository(
        str(folder / ".vimgvc"), {"HOME": str(folder / "home")}, None, lambda _: pytest.fail("asked"), NullMonitor()
    )
    disk = repository.resolve("big").disks[0]
    return export.tag(disk.manifest, kinds.Kind("raw"), disk.size)
