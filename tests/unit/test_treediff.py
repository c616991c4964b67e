"""What of a disk changed since another commit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from tests import repos
from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.model import geometry
from vimgvc.pipeline import ingest, tree, treediff
from vimgvc.repo import disk, repository
from vimgvc.store import objects

BLOCK, WINDOW = geometry.BLOCK, geometry.WINDOW


class Sparse:
    """A Source of any size that holds a few blocks: number of the block to its bytes."""

    def __init__(self, size: int, blocks: dict[int, bytes]) -> None:
        self.size, self._blocks = size, blocks

    @property
    def allocated_bytes(self) -> int:
        return len(self._blocks) * BLOCK

    def check_unchanged(self) -> None:
        """Nobody else has it."""

    def close(self) -> None:
        """Nothing is held."""

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        for at in range(0, len(buffer), BLOCK):
            part = buffer[at : at + BLOCK]
            part[:] = self._blocks.get((offset + at) // BLOCK, bytes(BLOCK))[: len(part)]

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        data = (extents.Extent(at * BLOCK, BLOCK, extents.Kind.DATA) for at in sorted(self._blocks))
        return extents.cover(data, offset, length, extents.Kind.HOLE)


def _commit(repo: repository.Repository, source: Sparse) -> disk.StoredDisk:
    request = repository.CommitRequest("vm", "", "", "", allow_empty=True)
    found = repo.commit([ingest.Source("vm", source, {"format": "raw"})], request)
    return repo.open_disk(found.commit.disk())


def _blocks(rng: np.random.Generator, numbers: Sequence[int]) -> dict[int, bytes]:
    return {number: rng.bytes(BLOCK) for number in numbers}


def _check(changes: Iterator[extents.Extent], new: Sparse, old: Sparse) -> None:
    """They are ascending, merged and inside, name every block that differs, and say of each whether it is zeros."""
    last = None
    named: dict[int, extents.Kind] = {}
    for item in changes:
        assert item.length > 0
        assert last is None or item.start > last.end or (item.start == last.end and item.kind is not last.kind)
        assert item.start % BLOCK == 0
        assert item.end % BLOCK == 0 or item.end == new.size
        assert item.end <= new.size
        last = item
        named |= dict.fromkeys(range(item.start // BLOCK, -(-item.end // BLOCK)), item.kind)
    for number in range(-(-new.size // BLOCK)) if new.size < 64 * WINDOW else new._blocks.keys() | old._blocks.keys():
        if number * BLOCK >= new.size:
            continue
        mine, theirs = (item._blocks.get(number, b"") for item in (new, old))
        if number * BLOCK >= old.size:
            theirs = b""
        if mine and mine != theirs:
            assert named[number] is extents.Kind.DATA
        if not mine:
            assert named.get(number) is (extents.Kind.ZERO if theirs else None)


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (0, 0),
        (0, WINDOW),
        (WINDOW, 0),
        (WINDOW, WINDOW),
        (3 * BLOCK, 9 * WINDOW),
        (9 * WINDOW, 3 * BLOCK),
        (60 * WINDOW, 70 * WINDOW),
        (70 * WINDOW, 60 * WINDOW),
        (WINDOW, 5000 * WINDOW),
        (5000 * WINDOW, WINDOW),
        (5000 * WINDOW, 64 * WINDOW),
    ],
)
def test_every_difference_is_named(before: int, after: int, seed: int) -> None:
    """Random changes, growth and shrinking: exactly the blocks that differ are DATA or ZERO, but for whole chunks."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    most = max(before, after) // BLOCK
    numbers = sorted({*rng.integers(0, max(1, most), 300).tolist(), *range(min(40, most))})
    old = _blocks(rng, [number for number in numbers if number * BLOCK < before])
    new = {number: block for number, block in old.items() if rng.integers(5) and number * BLOCK < after}
    new |= _blocks(rng, [number for number in numbers if number * BLOCK < after and rng.integers(4) == 0])
    one, two = Sparse(before, old), Sparse(after, new)
    base, stored = _commit(repo, one), _commit(repo, two)
    _check(stored.changed_since(base), two, one)
    _check(base.changed_since(stored), one, two)
    assert list(stored.changed_since(stored)) == []


def test_sizes_inside_a_block(seed: int) -> None:
    """Disks that end inside a block: the last extent ends with the disk."""
    repo = repos.create()
    rng = np.random.default_rng(seed)
    blocks = _blocks(rng, range(3))
    tail = {**blocks, 2: blocks[2][:100].ljust(BLOCK, b"\0")}
    old, new = Sparse(2 * BLOCK + 100, tail), Sparse(2 * BLOCK + 200, blocks)
    base, stored = _commit(repo, old), _commit(repo, new)
    *_, last = stored.changed_since(base)
    assert (last.end, last.kind) == (new.size, extents.Kind.DATA)
    grown = _commit(repo, Sparse(2 * BLOCK + 300, tail))
    assert list(grown.changed_since(base)) == []


class Counting:
    """Objects that count the nodes that are asked for."""

    def __init__(self, inner: objects.Objects) -> None:
        self._inner = inner
        self.index = inner.index
        self.asked: list[bytes] = []

    def nodes(self, ids: Sequence[bytes]) -> list[bytes]:
        self.asked += ids
        return self._inner.nodes(ids)


def _counted(repo: repository.Repository, *revisions: str) -> tuple[list[tree.Tree], list[bytes]]:
    store = Counting(repo.objects(repos.Collector()))
    roots = [bytes.fromhex(repo.resolve(revision).disk().manifest) for revision in revisions]
    trees = [tree.Tree(store, root) for root in roots]  # type: ignore[arg-type]
    store.asked.clear()
    return trees, store.asked


def test_equal_subtrees_are_not_read(seed: int) -> None:
    """Of a disk of 1 TiB with one changed block only the path to it is read, in both manifests."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    size = 1 << 40
    blocks = _blocks(rng, rng.choice(size // BLOCK, 400, replace=False).tolist())
    changed = int(rng.choice(sorted(blocks)))
    _commit(repo, Sparse(size, blocks))
    _commit(repo, Sparse(size, {**blocks, changed: rng.bytes(BLOCK)}))
    (new, old), asked = _counted(repo, "vm", "vm~1")
    assert list(treediff.changed(new, old)) == [extents.Extent(changed * BLOCK, BLOCK, extents.Kind.DATA)]
    assert new.root.level == 3
    assert len(asked) == 2 * (3 + 1)


def test_growth_reads_little(seed: int) -> None:
    """A disk that grew from 4 MiB to 1 TiB without new data has no change, and is known by its upper nodes."""
    repo = repos.create()
    blocks = _blocks(np.random.default_rng(seed), range(0, 1024, 7))
    _commit(repo, Sparse(WINDOW, blocks))
    _commit(repo, Sparse(1 << 40, blocks))
    for revisions in itertools.permutations(["vm", "vm~1"]):
        (new, old), asked = _counted(repo, *revisions)
        assert list(treediff.changed(new, old)) == []
        assert len(asked) == 3


def test_damage_is_told(seed: int) -> None:
    """A node that differs and cannot be read raises; nothing is said to be equal because of it."""
    repo = repos.create()
    rng = np.random.default_rng(seed)
    blocks = _blocks(rng, range(0, 70 * 1024, 512))
    _commit(repo, Sparse(70 * WINDOW, blocks))
    _commit(repo, Sparse(70 * WINDOW, {**blocks, 0: rng.bytes(BLOCK)}))
    (new, old), _ = _counted(repo, "vm", "vm~1")

    def nodes(ids: Sequence[bytes]) -> list[bytes]:
        raise errors.IntegrityError("manifest node", "is damaged")

    old._store.nodes = nodes  # type: ignore[method-assign]
    with pytest.raises(errors.IntegrityError):
        list(treediff.changed(new, old))
