"""kill -9 at random moments of the real command."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from tests import repos
from vimgvc.backends import local
from vimgvc.codec import keys
from vimgvc.images import raw
from vimgvc.repo import repository

MIB = 1 << 20
KILLS = 100
SIZE = 12 * MIB
CHANGE = 4 * MIB
PASSPHRASE = "killed"


def _command(place: pathlib.Path, *arguments: str) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "VIMGVC_PASSWORD": PASSPHRASE, "VIMGVC_REPOSITORY": str(place / "repo")}
    return subprocess.Popen(
        [sys.executable, "-m", "vimgvc", *arguments],
        env=environment,
        cwd=place,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def _open(place: pathlib.Path) -> repository.Repository:
    backend = local.LocalBackend.open(place / "repo")
    return repository.Repository.open(backend, [keys.Secret(keys.PASSPHRASE, PASSPHRASE.encode())])


def _restored(repo: repository.Repository, revision: str) -> bytes:
    return repos.restore(repo, revision)


def _run_and_kill(running: subprocess.Popen[bytes], delay: float) -> bool:
    """Kill after `delay` seconds; True when the command had already ended well."""
    try:
        running.wait(timeout=delay)
    except subprocess.TimeoutExpired:
        running.send_signal(signal.SIGKILL)
        running.wait()
    return running.returncode == 0


@pytest.mark.slow
@pytest.mark.timeout(420)
def test_d1_killed_commits_lose_nothing(tmp_path: pathlib.Path, seed: int) -> None:
    """After each of 100 kills of `commit` the repository opens and what was acknowledged restores; the next works."""
    rng = np.random.default_rng(seed)
    image = tmp_path / "vm.img"
    data = bytearray(repos.text(seed, SIZE))
    secret = keys.Secret(keys.PASSPHRASE, PASSPHRASE.encode())
    repository.Repository.create(local.LocalBackend.create(tmp_path / "repo"), secret, profile=keys.CHEAPEST)
    image.write_bytes(data)
    started = time.monotonic()
    assert _command(tmp_path, "commit", "vm.img").wait() == 0
    duration = time.monotonic() - started
    acknowledged = {_open(tmp_path).branches()["vm"]: bytes(data)}
    ended = 0
    for kill in range(KILLS):
        at = int(rng.integers(SIZE - CHANGE))
        data[at : at + CHANGE] = repos.text(seed + kill, CHANGE)
        image.write_bytes(data)
        done = _run_and_kill(_command(tmp_path, "commit", "vm.img"), float(rng.uniform(0.2, 1.1)) * duration)
        ended += done
        repo = _open(tmp_path)
        tip = repo.branches()["vm"]
        if done or _restored(repo, tip) == data:
            acknowledged[tip] = bytes(data)
        assert tip in acknowledged, "a branch shows either the state before or the whole new one"
        if kill % 20 == 19:
            _assert_all_there(tmp_path, acknowledged)
    assert 0 < ended < KILLS, f"kills fell at every stage: {ended} of {KILLS} had ended"
    assert _command(tmp_path, "commit", "vm.img").wait() == 0
    _assert_all_there(tmp_path, acknowledged)
    assert _command(tmp_path, "verify", "--data").wait() == 0


def _assert_all_there(place: pathlib.Path, acknowledged: dict[str, bytes]) -> None:
    repo = _open(place)
    for commit_id, content in list(acknowledged.items())[-6:]:
        assert _restored(repo, commit_id) == content


@pytest.mark.slow
def test_d1_killed_restores_leave_no_target(tmp_path: pathlib.Path, seed: int) -> None:
    """A killed restore leaves no file of the target's name; run again it resumes and is byte for byte right."""
    rng = np.random.default_rng(seed)
    secret = keys.Secret(keys.PASSPHRASE, PASSPHRASE.encode())
    backend = local.LocalBackend.create(tmp_path / "repo")
    repo = repository.Repository.create(backend, secret, profile=keys.CHEAPEST)
    data = repos.text(seed, 96 * MIB)
    repos.commit(repo, ("vm", data))
    started = time.monotonic()
    assert _command(tmp_path, "restore", "vm", "first.img").wait() == 0
    duration = time.monotonic() - started
    target = tmp_path / "out.img"
    for _ in range(10):
        done = _run_and_kill(_command(tmp_path, "restore", "vm", "out.img"), float(rng.uniform(0.3, 0.95)) * duration)
        assert target.exists() or not done
        if target.exists():
            assert target.read_bytes() == data
            target.unlink()
    assert _command(tmp_path, "restore", "vm", "out.img").wait() == 0
    assert target.read_bytes() == data
    assert [name for name in os.listdir(tmp_path) if name.endswith(".partial")] == []
    assert raw.RawReader(str(target)).size == len(data)
