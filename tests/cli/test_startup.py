"""What a command imports before it does anything: imports are what start-up costs."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

_RUN = """
import json, sys
from vimgvc.cli import main
code = main.run(sys.argv[1:])
json.dump([code, sorted(sys.modules)], sys.stderr)
"""


def _imported(directory: pathlib.Path, *arguments: str) -> set[str]:
    """Names of the modules that `vimgvc ARGUMENTS` has loaded at its end."""
    environment = {**os.environ, "VIMGVC_PASSWORD": "a passphrase for tests"}
    done = subprocess.run(
        [sys.executable, "-c", _RUN, *arguments],
        cwd=directory,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    code, names = json.loads(done.stderr)
    assert code == 0, done.stdout
    return set(names)


def test_version_imports_nothing_foreign(tmp_path: pathlib.Path) -> None:
    """`--version` loads the standard library and vimgvc only."""
    foreign = {"blake3", "cryptography", "numpy", "rich", "typer", "zstandard"}
    assert _imported(tmp_path, "--version") & foreign == set()


@pytest.mark.slow
def test_log_imports_neither_numpy_nor_rich(tmp_path: pathlib.Path) -> None:
    """`log`, `branch`, `reflog` and `--help` need no tables, no terminal drawing, no network and no key ring."""
    _imported(tmp_path, "init", ".vimgvc", "-q")
    image = tmp_path / "vm.img"
    image.write_bytes(b"content" * 1000)
    _imported(tmp_path, "commit", "vm.img", "-q", "-m", "first")
    _imported(tmp_path, "key", "remember", "-q")
    _imported(tmp_path, "tag", "v1", "vm")
    for arguments in (["log"], ["branch"], ["branch", "test", "vm~0"], ["reflog"], ["--help"]):
        unwanted = _imported(tmp_path, *arguments) & {"asyncio", "keyring", "numpy", "rich", "socket", "ssl"}
        assert unwanted == set(), arguments


@pytest.mark.slow
def test_restore_over_a_known_state_imports_what_it_uses(tmp_path: pathlib.Path) -> None:
    """`restore --in-place --base` loads neither numpy's masked arrays nor logging, which only look needed."""
    _imported(tmp_path, "init", ".vimgvc", "-q")
    image = tmp_path / "vm.img"
    image.write_bytes(b"content" * 1000)
    _imported(tmp_path, "commit", "vm.img", "-q", "-m", "first")
    image.write_bytes(b"changed" * 1000)
    _imported(tmp_path, "commit", "vm.img", "-q", "-m", "second")
    found = _imported(tmp_path, "restore", "vm~1", "vm.img", "--in-place", "--base", "vm", "-q")
    assert found & {"numpy", "numpy.ma", "logging", "vimgvc.pipeline.compare"} == {"numpy"}
    assert image.read_bytes() == b"content" * 1000
