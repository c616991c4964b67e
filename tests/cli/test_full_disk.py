"""D9: the place written to is full."""

from __future__ import annotations

import json
import pathlib
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests import needs
from vimgvc.cli import main

pytestmark = pytest.mark.slow


@pytest.fixture
def small_disk(
    tmp_path: pathlib.Path, require_root: Callable[[], None], monkeypatch: pytest.MonkeyPatch
) -> Iterator[pathlib.Path]:
    """A file system of 12 MiB."""
    require_root()
    place = tmp_path / "small"
    place.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=12m", "none", place], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip(f"cannot mount: {mounted.stderr.decode().strip()}")
    monkeypatch.chdir(tmp_path)
    try:
        yield place
    finally:
        monkeypatch.undo()
        subprocess.run(["umount", place], check=True)


def _make(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    key = tmp_path / "key"
    key.touch(mode=0o600)
    key.write_bytes(bytes(64))
    assert main.run(["init", str(place), "--key-file", "key", "--remember", "-q"]) == 0
    noise = np.random.default_rng(3).bytes(20 << 20)
    (tmp_path / "large.img").write_bytes(noise)
    (tmp_path / "small.img").write_bytes(noise[: 1 << 20])


def test_d9_a_repository_without_room(
    small_disk: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A commit that does not fit ends with 24 and two lines; what was there stays good, and there is room again."""
    _make(small_disk, tmp_path)
    assert main.run(["--repo", str(small_disk), "commit", "small.img", "-q"]) == 0
    assert main.run(["--repo", str(small_disk), "commit", "large.img", "-q"]) == 24
    told = capsys.readouterr()
    assert told.out == ""
    error, hint = told.err.splitlines()
    assert error.startswith("vimgvc: error: ")
    assert error.endswith(": No space left on device")
    assert hint == "vimgvc: hint: free some space and run the same command again"
    assert main.run(["--repo", str(small_disk), "verify", "--data", "-q"]) == 0
    assert main.run(["--repo", str(small_disk), "log", "--json"]) == 0
    assert [item["branch"] for item in json.loads(capsys.readouterr().out)["commits"]] == ["small"]
    assert main.run(["--repo", str(small_disk), "commit", "small.img", "--allow-empty", "-q"]) == 0


def test_d9_a_target_without_room(
    small_disk: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A restore to a place that is too small ends with 24, and nothing is left there."""
    _make(tmp_path / "repository", tmp_path)
    assert main.run(["--repo", "repository", "commit", "large.img", "-q"]) == 0
    assert main.run(["--repo", "repository", "restore", "large", str(small_disk / "out.img"), "--json"]) == 24
    told = json.loads(capsys.readouterr().err)["error"]
    assert (told["kind"], told["exit_code"]) == ("no_space", 24)
    assert not (small_disk / "out.img").exists()
    assert list(small_disk.iterdir()) == []


def test_what_is_compressed_needs_less_room_than_its_disk(small_disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """20 MiB of text fit into 12 MiB of a compressed format: that is not refused for the size of the disk."""
    needs.require_tool("qemu-img", "qemu-utils")
    (tmp_path / "text.img").write_bytes(b"text that is like any other\n" * ((20 << 20) // 28))
    target, options = str(small_disk / "text.vmdk"), ["--format", "vmdk", "-o", "subformat=streamOptimized"]
    assert main.run(["convert", "text.img", target, *options, "-q"]) == 0
    assert main.run(["convert", "text.img", str(small_disk / "text.qcow2"), "--format", "qcow2", "-c", "-q"]) == 0
    assert main.run(["convert", "text.img", str(small_disk / "text.vdi"), "--format", "vdi", "-q"]) == 24
    assert sorted(path.name for path in small_disk.iterdir()) == ["text.qcow2", "text.vmdk"]
