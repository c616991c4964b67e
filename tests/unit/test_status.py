"""Which recorded disk an image stands for, and whether it is that still."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.commands import images, stamps, status
from vimgvc.repo import collect, repository

_SIZE = 300_000


def _status(
    repo: repository.Repository,
    paths: Sequence[pathlib.Path | str],
    *,
    home: pathlib.Path | None = None,
    branch: str | None = None,
    fast: bool = False,
) -> list[status.Status]:
    environment = {"HOME": str(home)} if home else {}
    wanted = status.Wanted(branch, fast, 2)
    arguments = [str(path) for path in paths]
    return list(status.run(repo, environment, arguments, images.Access(), wanted, monitor=repos.Collector()))


def _machine(seed: int, folder: pathlib.Path) -> tuple[repository.Repository, list[pathlib.Path]]:
    """A repository with a machine of two disks as branch root, and images of them."""
    repo = repos.create()
    content = [repos.noise(seed, _SIZE), repos.noise(seed + 1, _SIZE)]
    repos.commit(repo, ("root", content[0]), ("data", content[1]), branch="root")
    paths = [folder / "root.img", folder / "data.img"]
    for path, data in zip(paths, content, strict=True):
        path.write_bytes(data)
    return repo, paths


def test_images_are_named_as_commit_names_them(seed: int, tmp_path: pathlib.Path) -> None:
    """Without a stamp an image is the disk of its name on the branch of its name, or on the first image's."""
    repo, paths = _machine(seed, tmp_path)
    assert [(one.state, one.told_by, one.disk) for one in _status(repo, paths)] == [
        ("clean", "name", "root"),
        ("clean", "name", "data"),
    ]
    (alone,) = _status(repo, paths[1:])
    assert (alone.state, alone.commit, alone.reason) == ("unknown", None, "there is no branch 'data'")
    (named,) = _status(repo, paths[1:], branch="root")
    assert (named.state, named.told_by, named.tip) == ("clean", "branch", repo.resolve("root").id)
    with pytest.raises(errors.NotFound):
        _status(repo, paths, branch="nothing")


def test_changes_are_told_to_the_place(seed: int, tmp_path: pathlib.Path) -> None:
    """A byte that is another, an end that is missing and one that is new are changes of that very disk."""
    repo, paths = _machine(seed, tmp_path)
    content = paths[1].read_bytes()
    for now, place in ((content[:200_000] + b"?" + content[200_001:], 200_000), (content[:-1], None)):
        paths[1].write_bytes(now)
        clean, changed = _status(repo, paths)
        assert (clean.state, changed.state) == ("clean", "changed")
        (disk,) = changed.disks
        assert (disk.size, disk.size_before) == (len(now), _SIZE)
        assert place is None or any(at <= place < at + length for at, length in disk.changed.pairs())
    paths[1].write_bytes(content + b"more")
    assert _status(repo, paths)[1].state == "changed"


def test_a_stamp_of_what_is_gone_leads_nowhere(seed: int, tmp_path: pathlib.Path) -> None:
    """A stamp whose commit is forgotten is not used, and one of another repository is not seen: the name decides."""
    repo, paths = _machine(seed, tmp_path)
    old = repo.resolve("root")
    repos.commit(repo, ("root", repos.noise(seed + 2, _SIZE)), branch="root")
    seen = stamps.Stamps.of_user({"HOME": str(tmp_path)}, repo, repos.Collector())
    seen.remember_file(str(paths[0]), old, old.disks[0])
    (found,) = _status(repo, paths[:1], home=tmp_path, fast=True)
    assert (found.state, found.told_by, found.commit, found.compared) == ("clean", "stamp", old, False)
    assert found.tip == repo.resolve("root").id != old.id
    other, _ = _machine(seed, tmp_path)
    (found,) = _status(other, paths[:1], home=tmp_path, fast=True)
    assert (found.state, found.told_by, found.compared) == ("clean", "name", True)
    repo.forget([old.id])
    repo.collect(collect.Options(force=True))
    (found,) = _status(repo, paths[:1], home=tmp_path, fast=True)
    assert (found.state, found.told_by) == ("changed", "name")


def test_what_is_clean_is_remembered(seed: int, tmp_path: pathlib.Path) -> None:
    """After a compare that found nothing --fast need not read; after one that found something it must."""
    repo, paths = _machine(seed, tmp_path)
    assert [one.compared for one in _status(repo, paths, home=tmp_path, fast=True)] == [True, True]
    paths[1].write_bytes(bytes(_SIZE))
    for _ in range(2):
        found = _status(repo, paths, home=tmp_path, fast=True)
        assert [(one.state, one.compared) for one in found] == [("clean", False), ("changed", True)]


def test_images_that_are_not_there(seed: int, tmp_path: pathlib.Path) -> None:
    """An image that cannot be opened is an error, also where nobody knows what it would be."""
    repo, _ = _machine(seed, tmp_path)
    for name in ("root.raw", "other.img"):
        with pytest.raises(errors.NotFound):
            _status(repo, [tmp_path / name])
