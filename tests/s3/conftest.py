"""Real S3 servers, one of a kind for the whole run, and empty places in them."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests import needs
from tests.servers import rgw as rgw_module
from tests.servers import s3_places


def _folder(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The same for all processes of a run."""
    base = pathlib.Path(tmp_path_factory.getbasetemp())
    return base.parent if base.name.startswith("popen-") else base


@pytest.fixture(scope="session")
def rgw(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_places.Server]:
    """Ceph's gateway."""
    programs = [(name, rgw_module.PACKAGES) for name in rgw_module.PROGRAMS]
    with needs.require_server("rgw", _folder(tmp_path_factory), *programs) as facts:
        yield s3_places.Server.of(facts)


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_places.Server]:
    """OpenStack's object store."""
    with needs.require_server("swift", _folder(tmp_path_factory)) as facts:
        yield s3_places.Server.of(facts)


@pytest.fixture(scope="session")
def rclone(tmp_path_factory: pytest.TempPathFactory) -> Iterator[s3_places.Server]:
    """What overwrites objects although it is told not to."""
    with needs.require_server("rclone", _folder(tmp_path_factory)) as facts:
        yield s3_places.Server.of(facts)
