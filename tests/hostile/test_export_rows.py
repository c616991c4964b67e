"""Rows X9 to X14 at the level of the program: what is left when writing an image goes wrong, and what is said.

The parts are tested where they are: X9 and X14 in interop/test_foreign_target.py, X10 and X11 in unit/test_render_*.
"""

from __future__ import annotations

import contextlib
import itertools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator

import numpy as np
import pytest

from tests import depth, needs, programs
from tests.hostile import case, chains, qcow2, rig
from vimgvc.cli import main

pytestmark = pytest.mark.slow

_SIZE = 4 << 20


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Iterator[pathlib.Path]:
    """A repository with the branch `vm`: 4 MiB of noise; what it takes to open it lies beside it."""
    place = tmp_path_factory.mktemp("export")
    (place / "disk.img").write_bytes(np.random.default_rng(4).bytes(_SIZE))
    (place / "key").write_bytes(bytes(range(32)))
    (place / "key").chmod(0o600)
    for argv in (["init", "repo", "--key-file", "key"], ["commit", "disk.img", "-r", "repo", "--branch", "vm"]):
        more = ["--key-file", "key"] if argv[0] == "commit" else []
        subprocess.run([sys.executable, "-m", "vimgvc", *argv, *more], cwd=place, env=_environment(place), check=True)
    yield place
    shutil.rmtree(place)


def _environment(place: pathlib.Path) -> dict[str, str]:
    return {**os.environ, "PYTHONPATH": str(rig.ROOT), "HOME": str(place / "home")}


def _export(place: pathlib.Path, target: pathlib.Path, *options: str) -> list[str]:
    base = [sys.executable, "-m", "vimgvc", "export", "-r", str(place / "repo"), "--key-file", str(place / "key")]
    return [*base, "vm", str(target), *options]


#: What a qemu-img may do instead of its work; `$out` is the file that it should write.
_LIES = {
    "fails": "exit 1",
    "is killed": "kill -9 $$",
    "writes nothing": "exit 0",
    "stops short": '"$real" "$@" && truncate -s -1048576 "$out"',
    "writes another byte": '"$real" "$@" && printf x | dd of="$out" bs=1 seek=$((2 << 20)) conv=notrunc 2>/dev/null',
    "writes another format": ': > "$out"',
}


#: What QEMU writes for us: options, with a passphrase in `secret` if there is to be one.
_BY_QEMU = {
    "stream": ["--format", "vmdk", "-o", "subformat=streamOptimized"],
    "flat": ["--format", "vmdk", "-o", "subformat=monolithicFlat"],
    "luks": ["--format", "luks", "-o", "iter-time=10", "--new-secret-file", "secret"],
}


@pytest.mark.parametrize(("lie", "form"), depth.of_run(itertools.product(_LIES, _BY_QEMU), 10))
def test_x9_qemu_does_not_do_its_work(lie: str, form: str, repo: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Whatever becomes of the child, the target has no name unless it holds the commit; nothing is left beside it."""
    real = needs.require_tool("qemu-img", "qemu-utils")
    shim = tmp_path / "bin" / "qemu-img"
    shim.parent.mkdir()
    body = f'#!/bin/sh\nreal={real}\nfor out; do :; done\ncase "$1" in convert) ;; *) exec "$real" "$@";; esac\n'
    shim.write_text(f"{body}{_LIES[lie]}\n")
    shim.chmod(0o755)
    folder = tmp_path / "out"
    folder.mkdir()
    environment = _environment(repo) | {"PATH": f"{shim.parent}{os.pathsep}{os.environ['PATH']}"}
    (tmp_path / "secret").write_bytes(b"secret")
    argv = _export(repo, folder / "vm", *_BY_QEMU[form])
    done = subprocess.run(argv, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode in (1, 20), done.stderr
    assert "internal error" not in done.stderr
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("form", "options"), [("qcow2", []), ("raw", []), ("vdi", []), ("vmdk", ["-o", "subformat=streamOptimized"])]
)
def test_x9_we_are_killed(form: str, options: list[str], repo: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Killed while it writes, the program leaves no file with the target's name; the next run makes it."""
    needs.require_tool("qemu-img", "qemu-utils")
    target = tmp_path / f"vm.{form}"
    argv = _export(repo, target, "--format", form, *options)
    process = subprocess.Popen(argv, env=_environment(repo), stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    while process.poll() is None and not any(tmp_path.iterdir()):
        with contextlib.suppress(subprocess.TimeoutExpired):  # it gives way; what is waited for is a file
            process.wait(0.001)
    process.send_signal(signal.SIGKILL)
    assert process.wait() in (0, -signal.SIGKILL)
    if process.returncode:
        assert not target.exists()
        programs.run(*argv, env=_environment(repo))
    programs.qemu_img("compare", "-f", form, "-F", "raw", target, repo / "disk.img")


def test_x11_what_an_image_says_is_escaped(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Names in a header reach neither terminal nor JSON as anything but text."""
    evil = "\x1b[31mred\x07\u202ertl\n"
    data = qcow2.build(qcow2.Spec(snapshots=[(evil, "1")], clusters={0: case.noise(1, 65536)})).data
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(chains.overlay(evil.encode(), form=b"\x1b[2J").data)
    for name in ("a", "b"):
        for options in ([], ["--json"]):
            main.run(["info", str(tmp_path / name), *options])
            main.run(["commit", str(tmp_path / name), "--allow-chain", *options])
            shown = "".join(capsys.readouterr())
            assert not re.search("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e]", shown), shown


def test_x12_raw_that_looks_like_a_container(repo: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A raw disk with a container's header comes back byte for byte, as raw, and is only believed when declared."""
    data = bytes(qcow2.plain().data)
    (tmp_path / "odd.bin").write_bytes(data)
    key = ["-r", str(repo / "repo"), "--key-file", str(repo / "key")]
    for argv in (["commit", "odd.bin", "--format", "raw", "--branch", "odd"], ["export", "odd", "back.img"]):
        done = subprocess.run(
            [sys.executable, "-m", "vimgvc", *argv, *key],
            cwd=tmp_path,
            env=_environment(repo),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, done.stderr
    assert (tmp_path / "back.img").read_bytes() == data
    assert main.run(["commit", str(tmp_path / "back.img"), *key]) == 21


@pytest.mark.parametrize(("size", "form"), [(_SIZE + 1, "vpc"), (_SIZE + 511, "vhdx"), (_SIZE + 513, "vdi")])
def test_x14_odd_sizes_are_told(size: int, form: str, repo: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A size that the format cannot have is rounded up in words, never silently."""
    needs.require_tool("qemu-img", "qemu-utils")
    argv = _export(repo, tmp_path / "vm", "--format", form, "--size", str(size))
    done = subprocess.run(argv, env=_environment(repo), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert str(size) in done.stderr
    told = programs.qemu_img("info", "--output=json", "-f", form, tmp_path / "vm")
    assert json.loads(told)["virtual-size"] == -(-size // 512) * 512
