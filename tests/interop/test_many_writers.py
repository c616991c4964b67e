"""Many processes that write to one repository at once."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from tests import repos
from vimgvc.backends import local
from vimgvc.codec import keys
from vimgvc.repo import repository

_WRITERS = 8
_ROUNDS = 2
_SIZE = 1 << 20
_PASSPHRASE = "many"
_LIMIT = 240


@pytest.mark.slow
def test_k1_eight_writers_on_different_branches(tmp_path: pathlib.Path, seed: int) -> None:
    """Row K1: eight commits at once, each to its branch, all succeed while another writer is still at work.

    That writer never ends before they do: if one waited for another they would not end. Half of what
    they record is the same, so they also store the same chunks at once. All of it restores.
    """
    place = local.LocalBackend.create(tmp_path / "repo")
    secret = keys.Secret(keys.PASSPHRASE, _PASSPHRASE.encode())
    repo = repository.Repository.create(place, secret, profile=keys.CHEAPEST)
    environment = {**os.environ, "VIMGVC_PASSWORD": _PASSPHRASE, "VIMGVC_REPOSITORY": str(tmp_path / "repo")}
    shared = repos.noise(seed, _SIZE // 2)
    states = {}
    with repo.writing():
        for turn in range(_ROUNDS):
            for number in range(_WRITERS):
                states[f"vm{number}", turn] = shared + repos.noise(seed + 1 + number + turn * _WRITERS, _SIZE // 2)
                (tmp_path / f"vm{number}.img").write_bytes(states[f"vm{number}", turn])
            running = [
                subprocess.Popen(
                    [sys.executable, "-m", "vimgvc", "commit", f"vm{number}.img", "-q", "--threads", "1"],
                    env=environment,
                    cwd=tmp_path,
                    stderr=subprocess.PIPE,
                    text=True,
                )
                for number in range(_WRITERS)
            ]
            told = [process.communicate(timeout=_LIMIT)[1] for process in running]
            assert [(process.returncode, said) for process, said in zip(running, told, strict=True)] == [
                (0, "")
            ] * _WRITERS
    again = repository.Repository.open(local.LocalBackend.open(tmp_path / "repo"), [secret])
    assert sorted(again.branches()) == [f"vm{number}" for number in range(_WRITERS)]
    for (branch, turn), content in states.items():
        assert repos.restore(again, f"{branch}~{_ROUNDS - 1 - turn}") == content
    assert not again.verify("data").problems
