"""What a test needs from the machine it runs on.

Each function returns when the need is met. If not, the test is skipped with the command that would
meet it; on CI (`CI=true`) it fails instead, so that a green run there has tested everything.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import NoReturn

import pytest

from tests.servers import processes, shared

# Debian keeps mke2fs, debugfs and losetup outside the PATH of ordinary users.
_SEARCH_PATH = os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/local/sbin", "/usr/sbin", "/sbin"])


def on_ci() -> bool:
    return os.environ.get("CI") == "true"


def require_tool(name: str, package: str) -> str:
    """The path of the program `name`, which Debian has in `package`."""
    path = shutil.which(name, path=_SEARCH_PATH)
    if path is None:
        _unmet(f"{name} is missing; install it with: apt-get install {package}", fail=on_ci())
    return path


def require_root() -> None:
    """Return when this process may do what only root may; being an ordinary user is no failure, even on CI."""
    if os.geteuid() != 0:
        _unmet("needs root", fail=False)


def require_loop() -> str:
    """The path of `losetup`, when this process may attach loop devices; root on CI is expected to be able to."""
    losetup = require_tool("losetup", "mount")
    require_root()
    found = subprocess.run([losetup, "--find"], capture_output=True, text=True, check=False)
    if found.returncode != 0:
        _unmet(f"needs a free loop device: {found.stderr.strip()}", fail=on_ci())
    return losetup


def require_server(
    kind: str, folder: pathlib.Path, *programs: tuple[str, str]
) -> AbstractContextManager[dict[str, str]]:
    """What the server `tests.servers.KIND` can be reached by, while it is used; `programs` as of `require_tool`."""
    for name, package in programs:
        require_tool(name, package)
    return _served(kind, folder)


@contextlib.contextmanager
def _served(kind: str, folder: pathlib.Path) -> Iterator[dict[str, str]]:
    with contextlib.ExitStack() as stack:
        try:
            facts = stack.enter_context(shared.server(kind, folder))
        except processes.Failed as failed:
            _unmet(f"the server {kind} cannot be had: {failed}", fail=on_ci())
        yield facts


def _unmet(reason: str, *, fail: bool) -> NoReturn:
    if fail:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
