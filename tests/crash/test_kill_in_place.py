"""kill -9 at random moments of restoring in place, of the real command."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from tests import forks, repos
from vimgvc.backends import local
from vimgvc.codec import keys
from vimgvc.images import in_place_target
from vimgvc.repo import repository

SIZE = 16 << 20
KILLS = 5
PASSPHRASE = "killed"


@pytest.mark.slow
def test_x5_killed_restores_in_place_are_made_whole(tmp_path: pathlib.Path, seed: int) -> None:
    """Row X5: killed, a target without a marker is whole; with one --base is refused, and comparing makes it right."""
    rng = np.random.default_rng(seed)
    secret = keys.Secret(keys.PASSPHRASE, PASSPHRASE.encode())
    repo = repository.Repository.create(local.LocalBackend.create(tmp_path / "repo"), secret, profile=keys.CHEAPEST)
    states = [repos.text(seed, SIZE), repos.text(seed + 1, SIZE)]
    for state in states:
        repos.commit(repo, ("vm", state))
    target = tmp_path / "vm.img"
    target.write_bytes(states[0])
    environment = {"VIMGVC_PASSWORD": PASSPHRASE, "VIMGVC_REPOSITORY": str(tmp_path / "repo")}
    at, marked, patience = 0, 0, forks.Patience()
    with forks.Program(tmp_path, environment) as program:
        while marked < KILLS:
            to = 1 - at
            base = ("--base", f"vm~{1 - at}") if patience.killed % 2 else ()
            patience.run(program.start("restore", f"vm~{1 - to}", "vm.img", "--in-place", *base), rng.random())
            if in_place_target.is_marked(target):
                marked += 1
                assert program.run("restore", "vm", "vm.img", "--in-place", "--base", "vm~1") == 1
                assert program.run("restore", f"vm~{1 - to}", "vm.img", "--in-place") == 0
            content = target.read_bytes()
            assert content in states
            at = states.index(content)
    assert not in_place_target.is_marked(target)
