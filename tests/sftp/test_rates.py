"""What is sent to an SFTP server and received from it, at a rate."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from tests.servers import sshd
from tests.sftp import conftest
from tests.sftp.test_end_to_end import User
from tests.suites import rates as rate_suite
from vimgvc.backends import sftp, sftp_url


def test_every_byte_is_charged(server: sshd.Sshd, root: pathlib.Path, seed: int) -> None:
    """Blobs that many threads put and get at a rate are what they were, and all of their bytes were charged, once."""
    limits = rate_suite.limits()
    address = sftp_url.parse(server.url(root))
    place = sftp.SftpBackend(address, os.environ, conftest.TRIED, conftest.QUICK, limits)
    rate_suite.check_every_byte_is_charged(place, limits, seed)


@pytest.mark.timeout(300)
def test_options(server: sshd.Sshd, tmp_path: pathlib.Path, seed: int) -> None:
    """commit, restore, push, fetch, pull and clone work at a rate; what is no rate is refused by all, with code 2."""
    url, away = server.url(tmp_path / "repository"), server.url(tmp_path / "away")
    image = np.random.default_rng(seed).bytes(1 << 20)
    (tmp_path / "vm.img").write_bytes(image)
    user = User(tmp_path, url)
    limits = ("--limit-upload", "8M", "--limit-download", "8MB")
    user.run("init", url)
    user.run("commit", "vm.img", *limits)
    user.run("restore", "vm", "back.img", *limits)
    assert (tmp_path / "back.img").read_bytes() == image
    user.run("remote", "add", "away", away)
    for verb in ("push", "fetch", "pull"):
        user.run(verb, "away", *limits)
        assert "--limit-upload" in user.run(verb, "away", "--limit-upload", "1000", expect=2).stderr
    user.environ["VIMGVC_LIMIT_DOWNLOAD"] = "8M"
    user.run("clone", away, str(tmp_path / "there"))
    User(tmp_path, str(tmp_path / "there")).run("restore", "vm", "again.img")
    assert (tmp_path / "again.img").read_bytes() == image
    user.environ["VIMGVC_LIMIT_DOWNLOAD"] = "fast"
    assert "--limit-download" in user.run("log", expect=2).stderr
