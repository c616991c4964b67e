"""Revisions and the order of history."""

from __future__ import annotations

import dataclasses

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.repo import repository


@pytest.fixture(scope="module")
def repo() -> repository.Repository:
    made = repos.create()
    for branch, count in (("vm", 4), ("web/1", 2)):
        for step in range(count):
            repos.commit(made, (branch.replace("/", "-"), f"{branch} {step}".encode()), branch=branch)
    return made


def test_branch_and_relations(repo: repository.Repository) -> None:
    """A branch is its newest commit; ~N and ^ walk to first parents; they combine."""
    tip = repo.resolve("vm")
    assert repo.branches()["vm"] == tip.id
    assert repo.resolve("vm~1").id == tip.parents[0]
    assert repo.resolve("vm^") == repo.resolve("vm~") == repo.resolve("vm~1")
    assert repo.resolve("vm^^^") == repo.resolve("vm~3") == repo.resolve("vm~2^") == repo.resolve("vm^0~3")


def test_prefix(repo: repository.Repository) -> None:
    """A commit is named by any unique prefix of at least four digits."""
    tip = repo.resolve("vm")
    assert repo.resolve(tip.id) == repo.resolve(tip.id[:16] + "~0") == tip
    with pytest.raises(errors.NotFound):
        repo.resolve(tip.id[:3])


@pytest.mark.parametrize("revision", ["nothing", "vm~4", "vm^2", "web/1~2", "0" * 64, "deadbeef"])
def test_absent(repo: repository.Repository, revision: str) -> None:
    """What does not exist is NotFound, with a hint."""
    with pytest.raises(errors.NotFound) as caught:
        repo.resolve(revision)
    assert caught.value.hint


@pytest.mark.parametrize("revision", ["", "~1", "^", "vm~x", "vm^~^y"])
def test_malformed(repo: repository.Repository, revision: str) -> None:
    """What is no revision is a usage error."""
    with pytest.raises((errors.UsageError, errors.NotFound)):
        repo.resolve(revision)


def test_ambiguous_prefix_names_candidates() -> None:
    """A prefix of several commits is refused and the hint lists them."""
    repo = repos.create()
    template = repos.commit(repo, ("vm", b"x")).commit
    ids = [repo.graph.store(dataclasses.replace(template, message=str(number)).encode()) for number in range(2000)]
    prefixes = [item[:4] for item in ids]
    shared = next(prefix for prefix in prefixes if prefixes.count(prefix) > 1)
    with pytest.raises(errors.UsageError, match="ambiguous") as caught:
        repo.resolve(shared)
    for item in [item for item in ids if item.startswith(shared)][:5]:
        assert item[:12] in caught.value.hint


def test_order(repo: repository.Repository) -> None:
    """History lists every reachable commit once, newest first, children before parents."""
    listed = list(repo.history())
    assert len(listed) == len({commit.id for commit in listed}) == 6
    assert [commit.time for commit in listed] == sorted((commit.time for commit in listed), reverse=True)
    seen: set[str] = set()
    for commit in listed:
        assert not seen & set(commit.parents)
        seen.add(commit.id)
    assert [commit.branch for commit in repo.history("vm")] == ["vm"] * 4


def test_merge_is_listed_before_both_parents() -> None:
    """A commit with two parents, one of them with a clock from the future, keeps the order of descent."""
    repo = repos.create()
    base = repos.commit(repo, ("vm", b"base")).commit
    future = dataclasses.replace(base, parents=(base.id,), message="future", time="2099-01-01T00:00:00Z")
    left = repo.graph.store(future.encode())
    right = repo.graph.store(dataclasses.replace(future, message="right", time=base.time).encode())
    merge = repo.graph.store(dataclasses.replace(base, parents=(left, right), message="merge").encode())
    order = [commit.id for commit in repo.graph.walk([merge])]
    assert order[0] == merge
    assert set(order[1:3]) == {left, right}
    assert order[3] == base.id
    assert repo.resolve(f"{merge[:20]}^2").id == right


def test_gap_in_history_is_survived() -> None:
    """r12: with a commit object gone its children still restore and the log shows the rest."""
    repo = repos.create()
    for step in range(3):
        repos.commit(repo, ("vm", f"state {step}".encode()))
    middle = repo.resolve("vm~1").id
    repo.backend.delete(f"commits/{middle}")
    opened = repos.reopen(repo)
    assert repos.restore(opened, "vm") == b"state 2"
    assert [commit.message for commit in opened.history("vm")] == ["state of vm"]
    assert {problem.object for problem in opened.verify().problems} == {middle}
