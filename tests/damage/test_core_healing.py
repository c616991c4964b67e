"""Commits on top of a damaged repository: what they claim to hold is there, and they heal what they can."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests import repos
from tests.damage import damaged
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import aead
from vimgvc.repo import repository

MIB = 1 << 20


def _blobs(repo: repository.Repository) -> dict[str, bytes]:
    assert isinstance(repo.backend, memory.MemoryBackend)
    return repo.backend._blobs


def _packs(repo: repository.Repository, kind: int) -> list[str]:
    found = repo.objects(repos.Collector()).index.packs()
    return [f"packs/{item.name[:2]}/{item.name}" for item in found if item.kind == kind]


def _open(blobs: dict[str, bytes], repo: repository.Repository) -> repository.Repository:
    opened = repository.Repository.open(damaged.backend(blobs), unlocked=repo.unlocked, clock=repo.clock)
    assert isinstance(opened.backend, memory.MemoryBackend)
    return opened


def _without_index(repo: repository.Repository) -> dict[str, bytes]:
    return {name: blob for name, blob in _blobs(repo).items() if not name.startswith("index")}


@pytest.mark.parametrize("loss", ["missing", "empty", "no tail"])
def test_r5_lost_pack_of_a_lost_index_is_healed(loss: str, seed: int) -> None:
    """Also without its index object a lost pack is noticed: its chunks are stored again, every commit comes back."""
    repo = repos.create()
    data = repos.noise(seed, 5 * MIB)
    repos.commit(repo, ("vm", data))
    [name] = _packs(repo, 1)
    changed = {"missing": None, "empty": b"", "no tail": _blobs(repo)[name][:-9]}[loss]
    opened = _open(damaged.replace(_without_index(repo), name, changed), repo)
    facts = repos.commit(opened, ("vm", data), allow_empty=True).commit.disk()
    assert facts.new_bytes == 5 * MIB
    assert repos.restore(opened, "vm") == data
    assert repos.restore(opened, "vm~1") == data


def test_r5_healed_repository_compares_with_its_base_again(seed: int) -> None:
    """While a pack is missing, only what it held is stored again; afterwards nothing is."""
    repo = repos.create()
    data = repos.noise(seed, 9 * MIB)
    repos.commit(repo, ("vm", data[: 4 * MIB]))
    [name] = _packs(repo, 1)
    repos.commit(repo, ("vm", data))
    opened = _open(damaged.replace(_blobs(repo), name, None), repo)
    first = repos.commit(opened, ("vm", data), allow_empty=True).commit.disk()
    assert first.new_bytes == 4 * MIB
    second = repos.commit(_open(_blobs(opened), repo), ("vm", data), allow_empty=True).commit.disk()
    assert (second.new_bytes, second.changed_bytes) == (0, 0)
    assert repos.restore(opened, "vm") == data
    assert repos.restore(opened, "vm~2") == data[: 4 * MIB]


@pytest.mark.parametrize("kind", ["missing", "damaged"])
def test_r12_commit_on_top_of_a_lost_one(kind: str, seed: int) -> None:
    """When the newest commit cannot be read, the next one is made on top of it all the same, and says so."""
    repo = repos.create()
    data = repos.noise(seed, MIB)
    repos.commit(repo, ("vm", data))
    lost = repos.commit(repo, ("vm", data + b"x")).commit.id
    blob = _blobs(repo)[f"commits/{lost}"]
    changed = None if kind == "missing" else blob[:-1] + bytes([blob[-1] ^ 1])
    opened = _open(damaged.replace(_blobs(repo), f"commits/{lost}", changed), repo)
    seen = repos.Collector()
    made = repos.commit(opened, ("vm", data + b"x"), progress=seen)
    assert made.created
    assert made.commit.parents == (lost,)
    assert made.commit.disk().new_bytes == 0
    assert any(lost[:12] in problem for problem in seen.problems)
    assert repos.restore(opened, "vm") == data + b"x"
    assert [commit.id for commit in opened.history("vm")] == [made.commit.id]


def test_branch_whose_log_is_lost() -> None:
    """When nothing of a branch's log can be read, committing to it says so before any work; another branch works."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"one"))
    [name] = [name for name in _blobs(repo) if name.startswith("refs")]
    opened = _open(damaged.flip(_blobs(repo), name, 50), repo)
    before = dict(_blobs(opened))
    with pytest.raises(errors.IntegrityError, match="branch vm"):
        repos.commit(opened, ("vm", b"two"))
    assert _blobs(opened) == before
    assert repos.commit(opened, ("vm", b"two"), branch="other").created


def test_ref_entry_with_a_number_far_away() -> None:
    """P-8: a file that calls itself the last of 2^63 entries costs one problem, not counting down from there."""
    repo = repos.create()
    made = repos.commit(repo, ("vm", b"one")).commit.id
    [name] = [name for name in _blobs(repo) if name.startswith("refs")]
    opened = _open({**_blobs(repo), name[:-16] + f"{(1 << 63):016x}": b"junk"}, repo)
    seen = repos.Collector()
    assert [ref.entry.commit for ref in opened.last_refs(seen).values()] == [made]
    assert len(seen.problems) == 1
    assert {problem.kind for problem in opened.verify().problems} == {"ref"}
    assert opened.repair().actions == ()


class _Late(memory.MemoryBackend):
    """Loses commits that are put."""

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        blob = super().get(name, offset, length)
        return blob[:-1] if name.startswith("commits") else blob


def test_unreadable_commit_is_not_published() -> None:
    """A commit is read back before a branch leads to it."""
    repo = repos.create(_Late())
    with pytest.raises(errors.IntegrityError):
        repos.commit(repo, ("vm", b"data"))
    assert repo.branches() == {}


class _BadSectors(memory.MemoryBackend):
    """Cannot read some packs beyond their first bytes: the disk below says EIO."""

    def __init__(self, blobs: dict[str, bytes], bad: Callable[[str], bool]) -> None:
        super().__init__()
        self._blobs = dict(blobs)
        self._bad = bad

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if self._bad(name) and offset < self.size(name) // 2:
            raise errors.BackendError(name, "EIO", "input/output error")
        return super().get(name, offset, length)


def _two_copies(data: bytes) -> tuple[repository.Repository, list[str]]:
    """A repository with two copies of everything that `data` needs, and the packs of the first."""
    repo = repos.create()
    repos.commit(repo, ("vm", data))
    hidden = {name: _blobs(repo).pop(name) for name in list(_blobs(repo)) if name.startswith("packs")}
    repos.commit(repo, ("vm", data), branch="copy")
    second = [name for name in _blobs(repo) if name.startswith("packs")]
    _blobs(repo).update(hidden)
    assert len(hidden) == len(second) == 2
    return repo, list(hidden)


@pytest.mark.parametrize("which", [0, 1])
def test_r17_bad_sector_of_one_copy(which: int, seed: int) -> None:
    """What a bad sector keeps from being read is taken from the other copy, chunks and manifest nodes alike."""
    data = repos.noise(seed, 300_000)
    repo, first = _two_copies(data)

    def bad(name: str) -> bool:
        return name.startswith("packs") and (name in first) == (which == 0)

    place = _BadSectors(_blobs(repo), bad)
    opened = repository.Repository.open(place, unlocked=repo.unlocked)
    assert repos.restore(opened, "vm") == data


def test_r21_unreadable_pack_is_named(seed: int) -> None:
    """Without another copy the reason why a pack cannot be read is what the user is told, not that it is damaged."""
    repo = repos.create()
    repos.commit(repo, ("vm", repos.noise(seed, 300_000)))
    place = _BadSectors(_blobs(repo), lambda name: name in _packs(repo, 1))
    opened = repository.Repository.open(place, unlocked=repo.unlocked)
    with pytest.raises(errors.BackendError, match="input/output"):
        repos.restore(opened, "vm")


def test_bad_sector_in_the_base(seed: int) -> None:
    """A parent's manifest that cannot be read costs reading and storing it again, not the commit."""
    repo = repos.create()
    data = repos.noise(seed, 5 * MIB)
    repos.commit(repo, ("vm", data))
    trees = set(_packs(repo, 2))
    place = _BadSectors(_blobs(repo), trees.__contains__)
    opened = repository.Repository.open(place, unlocked=repo.unlocked, clock=repo.clock)
    repos.commit(opened, ("vm", data), allow_empty=True)
    assert repos.restore(opened, "vm") == data
    assert repos.restore(opened, "vm~1") == data


def _later_version(blob: bytes) -> bytes:
    """A sealed object as a later version would write it, with a checksum that fits."""
    from blake3 import blake3

    body = blob[:7] + b"\x02" + blob[8:-32]
    return body + blake3(body).digest()


def test_r8_index_from_the_future() -> None:
    """An index object of a later version is passed over; the packs tell the same."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"data" * 9999))
    [name] = [name for name in _blobs(repo) if name.startswith("index")]
    opened = _open(damaged.replace(_blobs(repo), name, _later_version(_blobs(repo)[name])), repo)
    assert repos.restore(opened, "vm") == b"data" * 9999
    assert [problem.kind for problem in opened.verify().problems] == ["index"]


def test_pack_from_the_future_costs_only_itself() -> None:
    """A pack whose table a later version wrote is named; what is elsewhere restores."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"data" * 9999))
    table = repo.seals.seal(aead.TABLE, b"?")
    later = _later_version(table)
    pack = bytes(24) + later * 2 + len(later).to_bytes(4, "little")
    pack += (len(later) ^ 0xFFFFFFFF).to_bytes(4, "little") + b"vimgvcE\x01"
    opened = _open({**_blobs(repo), f"packs/ab/{'ab' * 32}": pack}, repo)
    assert repos.restore(opened, "vm") == b"data" * 9999
    [problem] = opened.verify().problems
    assert (problem.kind, problem.object) == ("pack", "ab" * 32)
    assert "version 2" in problem.detail


def test_stats_of_a_damaged_repository() -> None:
    """A commit that cannot be read is reported and left out of the numbers."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"one"))
    lost = repos.commit(repo, ("vm", b"two")).commit.id
    opened = _open(damaged.replace(_blobs(repo), f"commits/{lost}", b""), repo)
    seen = repos.Collector()
    assert opened.stats(seen).commits == 1
    assert len(seen.problems) == 1
