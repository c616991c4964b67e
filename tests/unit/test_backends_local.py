"""The directory backend passes the suite of all backends."""

from __future__ import annotations

import pathlib

from tests.suites import backend
from vimgvc.backends import local


class TestLocalBackend(backend.BackendSuite):
    def create(self, folder: pathlib.Path) -> local.LocalBackend:
        return local.LocalBackend.create(folder / "repository")


class TestWithoutDurability(backend.BackendSuite):
    def create(self, folder: pathlib.Path) -> local.LocalBackend:
        return local.LocalBackend.create(folder, durable=False)
