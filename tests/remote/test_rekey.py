"""A copy under other keys: the same history and the same bytes, and nothing in common otherwise."""

from __future__ import annotations

import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.model import reflog
from vimgvc.remote import rekey
from vimgvc.repo import repository


def _history(seed: int) -> tuple[repository.Repository, list[bytes]]:
    """Three commits on `vm`, with sizes that change; another branch, a tag."""
    repo, data = repos.create(), places.disk(seed)
    states = [bytes(data)]
    repos.commit(repo, ("vm", states[0]))
    for number in range(2):
        data = places.changed(data, seed + number) + bytes(5000 * number) + b"end"
        states.append(bytes(data))
        repos.commit(repo, ("vm", states[-1]))
    repos.commit(repo, ("vm", states[0]), ("data", states[1]), branch="other")
    repo.set_ref(reflog.TAG, "v1", repo.resolve("vm~1").id, expect=None)
    return repo, states


def _copy(source: repository.Repository, target: repository.Repository) -> rekey.Rekeyed:
    return rekey.rekey(source, target, source.branches(), source.tags(), host="host", monitor=repos.Collector())


def _told(repo: repository.Repository, revision: str) -> list[object]:
    """All that a copy takes over."""
    return [
        (
            item.message,
            item.author,
            item.host,
            item.time,
            item.branch,
            [(d.name, d.size, d.new_bytes) for d in item.disks],
        )
        for item in repo.history(revision)
    ]


def test_c18_every_commit_is_there_under_another_key(seed: int) -> None:
    """Commits, times, authors and relations are as they were, every disk restores, and identifiers differ."""
    source, states = _history(seed)
    target = repos.create()
    done = _copy(source, target)
    assert done.commits == 4
    assert target.id != source.id
    assert target.fingerprint != source.fingerprint
    for name in ("vm", "other", "v1"):
        assert _told(target, name) == _told(source, name)
    for back, state in enumerate(reversed(states)):
        assert places.restored(target, f"vm~{back}") == state
    assert set(done.ids).isdisjoint(done.ids.values())
    assert target.verify("data").problems == []
    packs = [{item.name for item in repo.backend.list("packs")} for repo in (source, target)]
    assert packs[0].isdisjoint(packs[1])


def test_c18_interrupted_anywhere_it_goes_on(seed: int) -> None:
    """After a failure of any call at the new place the same copy completes, and records nothing twice."""
    source, states = _history(seed)
    made = repos.create()
    assert isinstance(made.backend, memory.MemoryBackend)
    areas = ("keys",)
    content = {item.name: made.backend.get(item.name) for area in areas for item in made.backend.list(area)}
    content["config"] = made.backend.get("config")
    at, ids = 0, None
    while True:
        backend = places.Far(content)
        backend.fail_at = at
        target = repository.Repository(backend, made.config, made.unlocked, clock=made.clock)
        try:
            done = _copy(source, target)
        except errors.RemoteError:
            backend.fail_at = None
            target = repository.Repository(backend, made.config, made.unlocked, clock=made.clock)
            kept = len(list(backend.list("commits")))
            if target.branches():
                with pytest.raises(errors.UsageError):
                    _copy(source, target)
                at += 7
                continue
            done = _copy(source, target)
            assert done.commits == 4 - kept
        else:
            assert at > 20
            return
        assert ids in (None, done.ids)
        ids = done.ids
        assert len(list(backend.list("commits"))) == 4
        assert places.restored(target, "vm") == states[-1], f"after call {at}"
        assert target.verify("data").problems == [], f"after call {at}"
        at += 7


def test_forgotten_commits_keep_their_place(seed: int) -> None:
    """The copy of a forgotten commit is forgotten, too, and its data is not missed."""
    source, states = _history(seed)
    source.set_ref(reflog.TAG, "v1", None, expect=source.tags()["v1"])
    source.forget([source.resolve("vm~1").id], "too old")
    source.collect(None, repos.Collector())
    target = repos.create()
    _copy(source, target)
    assert [record.reason for record in target.forgotten().values()] == ["too old"]
    assert _told(target, "vm") == _told(source, "vm")
    assert places.restored(target, "vm") == states[-1]
    assert target.verify("data").problems == []


def test_nothing_is_mixed(seed: int) -> None:
    """A place that has branches is refused, and stays as it is."""
    source, _ = _history(seed)
    target = repos.create()
    repos.commit(target, ("own", b"x" * 5000), branch="own")
    before = target.branches()
    with pytest.raises(errors.UsageError):
        _copy(source, target)
    assert target.branches() == before
