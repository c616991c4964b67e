"""What a command imports before it does anything: imports are what start-up costs."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

from vimgvc.cli import main

_RUN = """
import json, sys
from vimgvc.cli import main
code = main.run(sys.argv[1:])
json.dump([code, sorted(sys.modules)], sys.stderr)
"""


def _imported(directory: pathlib.Path, *arguments: str) -> set[str]:
    """Names of the modules that `vimgvc ARGUMENTS` has loaded at its end."""
    command = [sys.executable, "-c", _RUN, *arguments]
    done = subprocess.run(command, cwd=directory, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    code, names = json.loads(done.stderr)
    assert code == 0, done.stdout
    return set(names)


def _commit(directory: pathlib.Path, content: bytes) -> pathlib.Path:
    """Commit an image to the repository in `directory`, which is made at first; its key is remembered."""
    image = directory / "vm.img"
    image.write_bytes(content)
    if not (directory / ".vimgvc").exists():
        key = directory / "key"
        key.touch(mode=0o600)
        key.write_bytes(bytes(range(32)))
        assert main.run(["-C", str(directory), "init", ".vimgvc", "--key-file", "key", "--remember", "-q"]) == 0
    assert main.run(["-C", str(directory), "commit", "vm.img", "-q"]) == 0
    return image


def test_version_imports_nothing_foreign(tmp_path: pathlib.Path) -> None:
    """`--version` loads the standard library and vimgvc only."""
    foreign = {"blake3", "cryptography", "numpy", "rich", "typer", "zstandard"}
    assert _imported(tmp_path, "--version") & foreign == set()


@pytest.mark.slow
def test_log_imports_neither_numpy_nor_rich(tmp_path: pathlib.Path) -> None:
    """`log`, `branch`, `reflog` and `--help` need no tables, no terminal drawing, no network and no key ring."""
    _commit(tmp_path, b"content" * 1000)
    assert main.run(["-C", str(tmp_path), "tag", "v1", "vm"]) == 0
    for arguments in (["log"], ["branch"], ["branch", "test", "vm~0"], ["reflog"], ["--help"]):
        unwanted = _imported(tmp_path, *arguments) & {"asyncio", "keyring", "numpy", "rich", "socket", "ssl"}
        assert unwanted == set(), arguments


@pytest.mark.slow
def test_restore_over_a_known_state_imports_what_it_uses(tmp_path: pathlib.Path) -> None:
    """`restore --in-place --base` loads neither numpy's masked arrays nor logging, which only look needed."""
    _commit(tmp_path, b"content" * 1000)
    image = _commit(tmp_path, b"changed" * 1000)
    found = _imported(tmp_path, "restore", "vm~1", "vm.img", "--in-place", "--base", "vm", "-q")
    assert found & {"numpy", "numpy.ma", "logging", "vimgvc.pipeline.compare"} == {"numpy"}
    assert image.read_bytes() == b"content" * 1000
