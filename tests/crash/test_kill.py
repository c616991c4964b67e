"""kill -9 at random moments of the real command."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from tests import depth, forks, repos
from vimgvc.backends import local
from vimgvc.codec import keys
from vimgvc.images import raw
from vimgvc.repo import repository

pytestmark = pytest.mark.long

MIB = 1 << 20
KILLS = 100 if depth.ALL else 20
SIZE = 8 * MIB
CHANGE = 2 * MIB
PASSPHRASE = "killed"


def _program(place: pathlib.Path) -> forks.Program:
    return forks.Program(place, {"VIMGVC_PASSWORD": PASSPHRASE, "VIMGVC_REPOSITORY": str(place / "repo")})


def _open(place: pathlib.Path) -> repository.Repository:
    backend = local.LocalBackend.open(place / "repo")
    return repository.Repository.open(backend, [keys.Secret(keys.PASSPHRASE, PASSPHRASE.encode())])


def _restored(repo: repository.Repository, revision: str) -> bytes:
    return repos.restore(repo, revision)


@pytest.mark.slow
def test_d1_killed_commits_lose_nothing(tmp_path: pathlib.Path, seed: int) -> None:
    """After each of many kills of `commit` the repository opens and what was acknowledged restores; the next works."""
    rng = np.random.default_rng(seed)
    image = tmp_path / "vm.img"
    data = bytearray(repos.text(seed, SIZE))
    secret = keys.Secret(keys.PASSPHRASE, PASSPHRASE.encode())
    repository.Repository.create(local.LocalBackend.create(tmp_path / "repo"), secret, profile=keys.CHEAPEST)
    image.write_bytes(data)
    patience = forks.Patience()
    with _program(tmp_path) as program:
        assert program.run("commit", "vm.img") == 0
        acknowledged = {_open(tmp_path).branches()["vm"]: bytes(data)}
        while patience.killed < KILLS:
            at = int(rng.integers(SIZE - CHANGE))
            data[at : at + CHANGE] = repos.text(seed + patience.killed + patience.ended, CHANGE)
            image.write_bytes(data)
            done = patience.run(program.start("commit", "vm.img"), rng.random())
            repo = _open(tmp_path)
            tip = repo.branches()["vm"]
            if done or _restored(repo, tip) == data:
                acknowledged[tip] = bytes(data)
            assert tip in acknowledged, "a branch shows either the state before or the whole new one"
            if patience.killed % 20 == 19:
                _assert_all_there(tmp_path, acknowledged)
        assert patience.ended, "no kill came late"
        assert program.run("commit", "vm.img") == 0
        _assert_all_there(tmp_path, acknowledged)
        assert program.run("verify", "--data") == 0


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
    target, patience = tmp_path / "out.img", forks.Patience()
    with _program(tmp_path) as program:
        while patience.killed < 10:
            done = patience.run(program.start("restore", "vm", "out.img"), rng.random())
            assert target.exists() or not done
            if target.exists():
                assert target.read_bytes() == data
                target.unlink()
        assert program.run("restore", "vm", "out.img") == 0
    assert target.read_bytes() == data
    assert [name for name in os.listdir(tmp_path) if name.endswith(".partial")] == []
    assert raw.RawReader(str(target)).size == len(data)
