"""Restoring a disk of which parts are lost."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from tests import repos
from tests.damage import damaged
from vimgvc import errors, monitor
from vimgvc.backends import local, memory
from vimgvc.disk import memory as disk_memory
from vimgvc.model import geometry
from vimgvc.pipeline import ingest, salvage, tree
from vimgvc.repo import repository

MIB = 1 << 20
WINDOW = geometry.WINDOW


def _salvaged(repo: repository.Repository, revision: str) -> tuple[bytes, tuple[tuple[int, int], ...]]:
    facts = repo.resolve(revision).disk()
    target = disk_memory.MemoryDisk(facts.size)
    result = repo.open_disk(facts, survive=True).restore(target, monitor.NullMonitor())
    return target.content(), result.lost


def _expected(data: bytes, lost: tuple[tuple[int, int], ...]) -> bytes:
    changed = bytearray(data)
    filler = salvage.PATTERN * (len(data) // len(salvage.PATTERN) + 1)
    for offset, length in lost:
        changed[offset : offset + length] = filler[offset : offset + length]
    return bytes(changed)


def _damage_largest(repo: repository.Repository) -> repository.Repository:
    place = repo.backend
    assert isinstance(place, memory.MemoryBackend)
    name = max(place.list("packs"), key=lambda item: item.size).name
    return damaged.open_repository(damaged.flip(place._blobs, name, 5000), repo.unlocked)


def test_x6_damaged_chunk_in_the_middle(seed: int) -> None:
    """By default nothing gets the target's name; salvaged, the rest is right and exactly the lost ranges show."""
    repo = repos.create()
    data = repos.text(seed, 8 * MIB) + bytes(MIB) + repos.text(seed + 1, 3 * MIB + 99)
    repos.commit(repo, ("vm", data))
    broken = _damage_largest(repo)
    target = disk_memory.MemoryDisk(len(data))
    with pytest.raises(errors.IntegrityError):
        broken.open_disk(broken.resolve("vm").disk()).restore(target, monitor.NullMonitor())
    assert not target.finished
    content, lost = _salvaged(broken, "vm")
    assert 0 < sum(length for _, length in lost) <= 2 * MIB
    assert content == _expected(data, lost)
    told = [text for problem in broken.verify("data").problems for text in problem.affected]
    assert {tuple(map(int, text.rpartition(" ")[2].split("+"))) for text in told} == set(lost)


def test_x6_missing_pack(seed: int) -> None:
    """With the pack of the data gone everything is lost but the zeros, and the disk has its size."""
    repo = repos.create()
    data = repos.noise(seed, MIB) + bytes(5 * MIB) + repos.noise(seed + 1, 5000)
    repos.commit(repo, ("vm", data))
    place = repo.backend
    assert isinstance(place, memory.MemoryBackend)
    name = max(place.list("packs"), key=lambda item: item.size).name
    broken = damaged.open_repository(damaged.replace(place._blobs, name, None), repo.unlocked)
    content, lost = _salvaged(broken, "vm")
    assert lost == ((0, MIB), (6 * MIB, 5000))
    assert content == _expected(data, lost)


def test_x6_lost_manifest_nodes(monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """With a leaf or an inner node unreadable exactly its windows are lost, where nodes are sealed one by one."""
    monkeypatch.setattr(ingest, "TREE_SEGMENT_SIZE", 1)
    repo = repos.create()
    data = bytearray(70 * WINDOW)
    for number in (0, 3, 63, 64, 69):
        data[number * WINDOW : number * WINDOW + 9000] = repos.noise(seed + number, 9000)
    commit = repos.commit(repo, ("vm", bytes(data))).commit
    store = repo.objects(repos.Collector())
    source = tree.Tree(store, bytes.fromhex(commit.disk().manifest))
    leaves = {window.number: window.leaf_id for window in source.windows()}
    inner = source.inner(source.root.level, 0, source.root.top).children[1]
    for node_id, lost in ((leaves[3], (3 * WINDOW, WINDOW)), (inner, (64 * WINDOW, 6 * WINDOW))):
        [place] = store.index.lookup_all(node_id)
        offset, _ = store.table(place.pack).shape(place.segment)
        name = store.index.pack(place.pack).name
        assert isinstance(repo.backend, memory.MemoryBackend)
        blobs = damaged.flip(repo.backend._blobs, f"packs/{name[:2]}/{name}", offset + 20)
        broken = damaged.open_repository(blobs, repo.unlocked)
        with pytest.raises(errors.IntegrityError):
            repos.restore(broken, "vm")
        assert _salvaged(broken, "vm") == (_expected(bytes(data), (lost,)), (lost,))


def test_sound_disk_loses_nothing(seed: int) -> None:
    """Asked to survive losses, a restore of a sound disk is the same as any other."""
    repo = repos.create()
    data = repos.noise(seed, 2 * MIB + 5)
    repos.commit(repo, ("vm", data))
    assert _salvaged(repo, "vm") == (data, ())


def test_ranges_are_merged() -> None:
    """Lost ranges are told ascending, merged and within the disk."""
    lost = salvage.Lost(100)
    for offset, length in [(90, 50), (0, 10), (10, 5), (12, 30), (60, 1)]:
        lost.add(offset, length)
    assert lost.ranges() == [(0, 42), (60, 1), (90, 10)]


def test_memory_is_that_of_the_merged_ranges(seed: int) -> None:
    """Many neighbouring chunks, told several times in any order, are kept as the few ranges that they make."""
    lost = salvage.Lost(1 << 40)
    numbers = [number for number in range(50_000) if number % 10_000]
    for number in [*numbers, *np.random.default_rng(seed).permutation(numbers).tolist()]:
        lost.add(number * 4096, 4096)
        assert len(lost._ends) <= 1024 + 5
    assert lost.ranges() == [((number + 1) * 4096, 9999 * 4096) for number in range(0, 50_000, 10_000)]


def test_x6_command(tmp_path: pathlib.Path, seed: int) -> None:
    """`restore` refuses with exit 20 and no target; `--salvage` writes it, lists the ranges and ends with exit 3."""
    repo = repos.create(local.LocalBackend.create(tmp_path / "repo"))
    data = repos.text(seed, 4 * MIB)
    repos.commit(repo, ("vm", data))
    pack = max((tmp_path / "repo" / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
    blob = bytearray(pack.read_bytes())
    blob[3000] ^= 1
    pack.write_bytes(blob)

    def run(*options: str) -> subprocess.CompletedProcess[str]:
        secret = repos.SECRET.value.decode()
        environment = {**os.environ, "VIMGVC_PASSWORD": secret, "PYTHONPATH": os.getcwd()}
        command = [sys.executable, "-m", "vimgvc", "--repo", "repo", "restore", "vm", "out.img", *options]
        return subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)

    refused = run()
    assert (refused.returncode, (tmp_path / "out.img").exists()) == (20, False)
    salvaged = run("--salvage", "--json")
    assert salvaged.returncode == 3
    lost = json.loads(salvaged.stdout)["lost"]
    assert lost
    assert (tmp_path / "out.img").read_bytes() == _expected(data, tuple(map(tuple, lost)))
