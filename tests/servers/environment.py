"""The virtual environment with the servers that come from PyPI; `tools/test` makes it."""

from __future__ import annotations

import pathlib

from tests.servers import processes

_FOLDER = pathlib.Path(__file__).parents[2] / ".venv-servers"


def programs() -> pathlib.Path:
    """The folder with its programs. Raises `processes.Failed`."""
    if not (_FOLDER / ".complete").exists():
        raise processes.Failed(f"{_FOLDER} is missing; tools/test makes it")
    return _FOLDER / "bin"
