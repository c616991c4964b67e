"""Places that hold something else than this repository are refused, before anything of them is used."""

from __future__ import annotations

import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.commands import connect
from vimgvc.remote import seeding
from vimgvc.repo import remotes, repository


def _here(repo: repository.Repository) -> connect.Here:
    return connect.Here(repo, {}, "host", repos.Collector())


def _look(repo: repository.Repository, backend: places.Far) -> None:
    here = _here(repo)
    connect.look(here, connect.open_there(here, remotes.Remote("", "far"), backend).repo)


def _of(repo: repository.Repository, *areas: str) -> dict[str, bytes]:
    return {item.name: repo.backend.get(item.name) for area in areas for item in repo.backend.list(area)}


def test_n20_a_place_of_another_repository_is_refused() -> None:
    """Another identifier is told from the public configuration, with exit code 22, and says what to do."""
    other = places.Far()
    seeding.seed(repos.create(), other)
    with pytest.raises(errors.Rollback) as raised:
        _look(repos.create(), other)
    assert "--rekey" in raised.value.hint


@pytest.mark.parametrize("with_commits", [False, True])
def test_c7_the_same_identifier_with_another_key_is_refused(*, with_commits: bool) -> None:
    """A place that says it is this repository, and whose key slots and ref logs are of another key, is refused."""
    mine, stranger = repos.create(), repos.create()
    repos.commit(stranger, ("vm", b"x" * 5000))
    content = _of(stranger, "keys", *(("packs", "index", "commits", "refs") if with_commits else ()))
    far = places.Far({**content, "config": mine.unlocked.config})
    with pytest.raises(errors.Rollback):
        _look(mine, far)


def test_a_place_of_this_repository_is_taken(seed: int) -> None:
    """Also when it is empty, and when its key slots were all changed since."""
    mine = repos.create()
    repos.commit(mine, ("vm", bytes(places.disk(seed, 20_000))))
    far = places.Far()
    seeding.seed(mine, far)
    _look(mine, far)
    places.push_all(mine, places.far(mine, far))
    for name in _of(mine, "keys"):
        far.replace(name, None)
    _look(mine, far)
