"""Who needs how much of what is stored."""

from __future__ import annotations

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.commands import stats
from vimgvc.model import reflog
from vimgvc.repo import collect, repository

ONE, TWO, THREE = (repos.noise(seed, 300_000) for seed in (1, 2, 3))
#: Noise does not shrink; segments and manifests add a little.
SLACK = 8000


@pytest.fixture
def repo() -> repository.Repository:
    """`vm` has ONE, then ONE and TWO; `web` has TWO and THREE."""
    made = repos.create()
    repos.commit(made, ("vm", ONE))
    repos.commit(made, ("vm", ONE), ("data", TWO))
    repos.commit(made, ("web", TWO), ("more", THREE), branch="web")
    return made


def about(expected: int) -> object:
    return pytest.approx(expected, abs=SLACK)


def test_branches(repo: repository.Repository) -> None:
    """What only one branch needs is its own, what two need is shared by both; the sum is what it takes."""
    found = stats.of_branches(repo, repos.Collector())
    assert list(found) == ["vm", "web"]
    assert (found["vm"].commits, found["web"].commits) == (2, 1)
    assert found["vm"].logical_bytes == 900_000
    assert found["vm"].unique_bytes == about(300_000)
    assert found["web"].unique_bytes == about(300_000)
    assert found["vm"].shared_bytes == found["web"].shared_bytes == about(300_000)
    assert found["vm"].stored_bytes == found["vm"].unique_bytes + found["vm"].shared_bytes


def test_parts_are_the_whole(repo: repository.Repository) -> None:
    """What branches need alone and what they share is all that packs hold, but for their tables."""
    found = stats.of_branches(repo, repos.Collector())
    together = sum(share.unique_bytes for share in found.values()) + found["vm"].shared_bytes
    whole = repo.stats().pack_bytes
    assert whole - SLACK < together < whole


def test_compressed_bytes_count() -> None:
    """What is stored counts, as small as it is, each slot by its part of its segment."""
    made = repos.create()
    # Chunks have 256 KiB at most: of 600,000 bytes that both begin with, they have some in common.
    repos.commit(made, ("vm", repos.text(1, 800_000)))
    repos.commit(made, ("web", repos.text(1, 800_000)[:600_000] + repos.noise(1, 100_000)), branch="web")
    found = stats.of_branches(made, repos.Collector())
    whole = made.stats().pack_bytes
    together = found["vm"].stored_bytes + found["web"].unique_bytes
    assert whole - SLACK < together < whole
    assert 100_000 < found["web"].unique_bytes < 250_000
    assert found["vm"].stored_bytes < 500_000


def test_tags_are_others(repo: repository.Repository) -> None:
    """What a tag leads to is not needed by the branch alone."""
    repo.set_ref(reflog.TAG, "v1", repo.resolve("vm~1").id, expect=None)
    found = stats.of_branches(repo, repos.Collector())
    assert list(found) == ["vm", "web"]
    assert found["vm"].unique_bytes == about(0)
    assert found["vm"].shared_bytes == about(600_000)


def test_commits(repo: repository.Repository) -> None:
    """A commit by itself: what none of all others needs, whether they were asked for or not."""
    alone = stats.of_commits(repo, ["web"], repos.Collector())
    several = stats.of_commits(repo, ["web", "vm~1", "vm"], repos.Collector())
    assert alone[0] == several[0]
    web, first, second = (one.share for one in several)
    assert (web.unique_bytes, web.shared_bytes) == (about(300_000), about(300_000))
    assert (first.unique_bytes, first.shared_bytes) == (about(0), about(300_000))
    assert (second.unique_bytes, second.shared_bytes) == (about(0), about(600_000))
    ranged = stats.of_commits(repo, ["vm~1..vm"], repos.Collector())
    assert [one.share for one in ranged] == [second, first]


def test_unique_is_what_gc_frees(repo: repository.Repository) -> None:
    """Without its branch, gc frees about what was unique to it."""
    unique = stats.of_branches(repo, repos.Collector())["web"].unique_bytes
    repo.set_ref(reflog.BRANCH, "web", None, expect=repo.resolve("web").id)
    freed = repo.collect(collect.Options(dry_run=True, max_unused=0)).freed_bytes
    assert freed == pytest.approx(unique, abs=2 * SLACK)


def test_forgotten_commits_do_not_count(repo: repository.Repository) -> None:
    """A forgotten commit needs nothing; asked for by name it is told what it takes, until it is gone."""
    repos.commit(repo, ("vm", THREE))
    repo.forget([repo.resolve("vm~1").id, repo.resolve("vm~2").id])
    found = stats.of_branches(repo, repos.Collector())
    assert found["vm"].commits == 1
    assert found["vm"].stored_bytes == about(300_000)
    (share,) = stats.of_commits(repo, ["vm~2"], repos.Collector())
    assert share.share.unique_bytes == about(300_000)
    repo.collect(collect.Options(force=True))
    with pytest.raises(errors.NotFound):
        stats.of_commits(repos.reopen(repo), ["vm~2"], repos.Collector())


def test_lost_data(repo: repository.Repository) -> None:
    """Where a manifest is lost nobody can say who needs what."""
    for item in list(repo.backend.list("packs")):
        repo.backend.delete(item.name)
    with pytest.raises(errors.IntegrityError):
        stats.of_branches(repos.reopen(repo), repos.Collector())


def test_nothing_there() -> None:
    """An empty repository has no shares."""
    assert stats.of_branches(repos.create(), repos.Collector()) == {}
