"""Many hosts and a collector on one repository in a bucket, each the program itself."""

from __future__ import annotations

import pathlib
import sys

import pytest
from benchlib import fleet

from tests import depth
from tests.servers import s3_places


@pytest.mark.slow
def test_k1_writers_and_a_collector(rgw: s3_places.Server, tmp_path: pathlib.Path) -> None:
    """K1, K4: of eight writers beside a collector, what is owed restores, and nothing dangles."""
    place = fleet.Place(rgw.place().url, rgw.environ)
    program = pathlib.Path(sys.executable).with_name("vimgvc")
    found = fleet.run(tmp_path / "fleet", str(program), place, 10 if depth.ALL else 3, kdf="64MiB")
    assert (found["lost"], found["problems"], found["failures"]) == (0, 0, 0)
    assert found["commits"] >= fleet.WRITERS
    assert found["collections"] >= 1
