"""Ref entries that were kept on this machine, and the place that holds others by now."""

from __future__ import annotations

import pathlib

import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import cached
from vimgvc.commands import access
from vimgvc.model import reflog
from vimgvc.repo import repository


def _look(repo: repository.Repository, place: places.Far, folder: pathlib.Path) -> access.Look:
    """As a new process of one user looks at a place."""
    kept = cached.Cached(place, folder / "blobs")
    opened = repository.Repository.open(kept, [repos.SECRET], clock=repo.clock)
    return access.check_history(opened, {"HOME": str(folder)}, repos.Collector(), access.Wish(), slots=False)


def _grown(repo: repository.Repository, content: dict[str, bytes], first: bytes, more: int) -> dict[str, bytes]:
    """What the place holds after a commit of `first` and `more` others on top of it."""
    place = places.Far(content)
    there = places.far(repo, place)
    for number in range(1 + more):
        repos.commit(there, ("vm", first + b"%d" % number))
    return place.content


@pytest.mark.parametrize("more", [1, 2, 5])
def test_n15_a_replaced_entry_is_noticed_by_the_next(tmp_path: pathlib.Path, more: int) -> None:
    """N15, N16: an authentic entry in the place of one that was seen, and kept, is told when others follow it."""
    repo = repos.create(places.Far())
    empty = places.backend_of(repo).content
    seen = _grown(repo, empty, b"seen", 0)
    other = _grown(repo, empty, b"other", more)
    _look(repo, places.Far(seen), tmp_path)
    with pytest.raises(errors.Rollback):
        _look(repo, places.Far(other), tmp_path)
    with pytest.raises(errors.Rollback):  # also when everything is kept
        _look(repo, places.Far(other), tmp_path)


@pytest.mark.parametrize("more", [1, 2, 5])
def test_a_log_that_grew_is_fine(tmp_path: pathlib.Path, more: int) -> None:
    """What follows the entry that was seen is fine, and the entry that was kept is not read again."""
    repo = repos.create(places.Far())
    seen = _grown(repo, places.backend_of(repo).content, b"seen", 0)
    _look(repo, places.Far(seen), tmp_path)
    place = places.Far(_grown(repo, seen, b"more", more - 1))
    look = _look(repo, place, tmp_path)
    assert [seq for seq, _ in look.ends.values()] == [1 + more]
    read = [name for operation, name in place.calls if operation == "get" and name.startswith("refs/")]
    assert [int(name[-16:], 16) for name in sorted(read)] == sorted({2, 1 + more})


@pytest.mark.parametrize("mended", [True, False])
def test_an_entry_that_was_damaged_when_another_followed_it(tmp_path: pathlib.Path, mended: bool) -> None:
    """Damage at the place is no rollback, nor is its mending: the next entry followed what was there then."""
    repo = repos.create(places.Far())
    seen = _grown(repo, places.backend_of(repo).content, b"seen", 1)
    _look(repo, places.Far(seen), tmp_path)
    *_, entry = sorted(name for name in seen if name.startswith("refs/"))
    place = places.Far({**seen, entry: seen[entry][:-1]})
    logs = places.far(repo, place).logs
    known = logs.last(repos.Collector())
    [commit] = {ref.entry.commit for ref in known.values()}
    logs.publish(reflog.BRANCH, "vm", commit, known, time="2026-01-01T00:00:00Z", host="host")
    if mended:
        place.replace(entry, seen[entry])
    assert [seq for seq, _ in _look(repo, place, tmp_path).ends.values()] == [3]
