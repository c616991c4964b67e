"""Real S3 servers pass the suite that every backend passes."""

from __future__ import annotations

import pathlib

import pytest

from tests.servers import s3_places
from tests.suites import backend
from vimgvc.backends import protocol

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server


class S3Suite(backend.BackendSuite):
    server: s3_places.Server
    place: s3_places.Place

    def create(self, folder: pathlib.Path) -> protocol.Backend:
        self.place = self.server.place()
        return self.place.backend()

    def aside(self, backend: protocol.Backend) -> dict[str, bytes]:
        return {key: self.place.content(f"quarantine/{key}") for key in self.place.keys("quarantine/")}


class TestRgw(S3Suite):
    @pytest.fixture(autouse=True)
    def _server(self, rgw: s3_places.Server) -> None:
        self.server = rgw
