"""What a test needs from the machine it runs on.

Each function returns when the need is met. If not, the test is skipped with the command that would
meet it; on CI (`CI=true`) it fails instead, so that a green run there has tested everything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from typing import NoReturn

import pytest

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


def _unmet(reason: str, *, fail: bool) -> NoReturn:
    if fail:
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
