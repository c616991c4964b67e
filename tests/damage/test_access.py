"""Repositories that can only be read, or not everywhere; and how damage is told."""

from __future__ import annotations

import os
import pathlib
import subprocess

import pytest

from tests import needs, repos
from tests.damage import damaged
from vimgvc import errors
from vimgvc.backends import files, local
from vimgvc.repo import repository

DATA = repos.text(3, 3 << 20) + repos.noise(4, 1 << 20)


class Unreadable(files.RealFiles):
    """Files of which those with `part` in their path may not be read."""

    def __init__(self, part: str) -> None:
        super().__init__()
        self._part = part

    def open(self, path: str) -> tuple[int, int]:
        if self._part in path:
            raise PermissionError(13, "Permission denied", path)
        return super().open(path)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    path = tmp_path / "repo"
    repo = repos.create(local.LocalBackend.create(path))
    repos.commit(repo, ("other", b"small"), branch="other")
    repos.commit(repo, ("vm", DATA))
    return path


def _open(place: pathlib.Path, opened: files.Files | None = None) -> repository.Repository:
    return repository.Repository.open(local.LocalBackend.open(place, opened), [repos.SECRET])


def test_r1_one_bit_in_a_pack_is_told_with_what_it_costs(seed: int) -> None:
    """One flipped bit: never wrong bytes; verify names pack, segment, commits, disk and range; the rest restores."""
    healthy = damaged.build()
    for name in healthy.of_kind("data"):
        at = 24 + seed % (len(healthy.blobs[name]) // 3)
        repo = damaged.open_repository(damaged.flip(healthy.blobs, name, at), healthy.unlocked)
        problems = repo.verify("data").problems
        assert any(problem.kind == "pack" and problem.object == name[-64:] for problem in problems)
        assert any("segment" in problem.detail for problem in problems)
        told = {text.partition(":")[0] for problem in problems for text in problem.affected}
        lost = set()
        for commit_id, content in healthy.contents.items():
            try:
                assert repos.restore(repo, commit_id) == content
            except errors.IntegrityError:
                lost.add(commit_id[:12])
        assert told == lost
        for problem in problems:
            for text in problem.affected:
                start, length = map(int, text.rpartition(" ")[2].split("+"))
                assert 0 <= start < start + length <= 1_100_000


def test_r20_read_only_mount(place: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """On a read-only mount everything that reads works, nothing is written, and a commit says why it cannot."""
    needs.require_root()
    mounted = tmp_path / "mounted"
    mounted.mkdir()
    subprocess.run(["mount", "--bind", place, mounted], check=True)
    try:
        subprocess.run(["mount", "-o", "remount,ro,bind", mounted], check=True)
        repo = _open(mounted)
        assert repos.restore(repo, "vm") == DATA
        assert repo.verify("data").problems == []
        assert len(list(repo.history())) == 2
        assert repo.stats().commits == 2
        with pytest.raises(errors.BackendError) as caught:
            repos.commit(repo, ("vm", b"new"))
        assert caught.value.kind == "EROFS"
    finally:
        subprocess.run(["umount", mounted], check=True)


def test_r20_read_only_directory(place: pathlib.Path) -> None:
    """Reading changes no file and makes none: not even the time of the directory."""
    before = _listing(place)
    repo = _open(place)
    assert repos.restore(repo, "vm") == DATA
    assert repo.verify("data").problems == []
    assert _listing(place) == before


def _listing(place: pathlib.Path) -> list[tuple[str, int, int]]:
    found = []
    for folder, _, names in os.walk(place):
        for name in [".", *names]:
            facts = os.stat(pathlib.Path(folder, name))
            found.append((f"{folder}/{name}", facts.st_size, facts.st_mtime_ns))
    return sorted(found)


def test_r21_unreadable_pack_is_not_damage(place: pathlib.Path) -> None:
    """A pack without permission is named with the reason by restore and verify, apart from damage; others restore."""
    repo = _open(place)
    disk = repo.resolve("vm").disk()
    largest = max(repo.backend.list("packs"), key=lambda item: item.size)
    opened = _open(place, Unreadable(largest.name))
    with pytest.raises(errors.BackendError) as caught:
        repos.restore(opened, "vm")
    assert (caught.value.kind, largest.name in caught.value.where) == ("EACCES", True)
    assert repos.restore(opened, "other") == b"small"
    problems = opened.verify().problems
    pack = next(problem for problem in problems if problem.kind == "pack")
    assert pack.object == largest.name[-64:]
    assert "cannot be read" in pack.detail
    assert "damaged" not in pack.detail
    assert disk.size == len(DATA)
