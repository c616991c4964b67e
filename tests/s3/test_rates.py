"""What is sent to a bucket and received from it, at a rate."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import urllib.parse

import numpy as np
import pytest

from tests.servers import proxy, s3_places
from tests.suites import rates as rate_suite
from vimgvc.backends import s3

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server


def test_every_byte_is_charged(rgw: s3_places.Server, seed: int) -> None:
    """Blobs that many threads put and get at a rate are what they were, and all of their bytes were charged, once."""
    limits = rate_suite.limits()
    place = s3.connect(rgw.place().url, environ=rgw.environ, memory=s3_places.Tried(), limits=limits)
    rate_suite.check_every_byte_is_charged(place, limits, seed)


def test_ctrl_c_at_a_rate(rgw: s3_places.Server, tmp_path: pathlib.Path, seed: int) -> None:
    """Ctrl-C ends a commit that would wait for its turn for ten minutes more."""
    parts = urllib.parse.urlsplit(rgw.client.endpoint)
    with proxy.Proxy(parts.hostname or "", parts.port or 80) as wire:
        place = rgw.place(f"http://127.0.0.1:{wire.port}")
        environ = os.environ | rgw.environ | {"VIMGVC_PASSWORD": "correct horse", "VIMGVC_REPOSITORY": place.url}
        (tmp_path / "vm.img").write_bytes(np.random.default_rng(seed).bytes(10 << 20))
        command = [sys.executable, "-m", "vimgvc"]
        subprocess.run([*command, "init", "--kdf-memory", "64MiB"], env=environ, check=True)
        before = sum(one["up"] for one in wire.carried)
        process = subprocess.Popen(
            [*command, "commit", "vm.img", "--limit-upload", "16K"],
            cwd=tmp_path,
            env=environ,
            stderr=subprocess.PIPE,
            text=True,
        )
        while sum(one["up"] for one in wire.carried) < before + 60_000:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, words = process.communicate()
    assert process.returncode == 130, words
    assert "Traceback" not in words
