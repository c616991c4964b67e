"""What tests with qemu's tools share."""

from __future__ import annotations

import pathlib
import tempfile
from collections.abc import Iterator

import pytest

from tests import children, needs


@pytest.fixture
def own_temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A folder of temporary files of its own for every test, in which none may leave anything."""
    folder = tmp_path_factory.mktemp("temporary")
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    assert children.left_in(folder) == []


@pytest.fixture
def out(tmp_path: pathlib.Path) -> pathlib.Path:
    needs.require_tool("qemu-img", "qemu-utils")
    needs.require_tool("qemu-nbd", "qemu-utils")
    path = tmp_path / "out"
    path.mkdir()
    return path
