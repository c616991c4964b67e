"""Manifest nodes and the geometry of disks: formats.md §6, §7."""

from __future__ import annotations

import struct

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies as st

from tests import mutate
from vimgvc import errors
from vimgvc.model import geometry, manifest

_IDS = st.binary(min_size=32, max_size=32)
_LARGEST = 2**63 - 1


def _random_leaf(rng: np.random.Generator, blocks: int) -> manifest.Leaf:
    runs: list[tuple[int, bool]] = []
    left = blocks
    while left:
        length = int(rng.integers(1, min(left, 64) + 1))
        zero = bool(rng.random() < 0.3) and not (runs and runs[-1][1])
        runs.append((length, zero))
        left -= length
    if all(zero for _, zero in runs):
        runs = [(blocks, False)]
    return manifest.Leaf(tuple(runs), rng.bytes(32 * sum(not zero for _, zero in runs)))


@pytest.mark.parametrize("blocks", [1, 2, 64, 1023, 1024])
def test_leaves_come_back(seed: int, blocks: int) -> None:
    """A leaf of a window of any size encodes to bytes that decode to it."""
    rng = np.random.default_rng(seed)
    for _ in range(50):
        leaf = _random_leaf(rng, blocks)
        assert manifest.decode_leaf(leaf.encode(), blocks) == leaf
        assert b"".join(leaf.chunk_ids()) == leaf.ids


@hypothesis.given(st.integers(1, 10), st.dictionaries(st.integers(0, 63), _IDS, min_size=1))
def test_inner_nodes_come_back(level: int, children: dict[int, bytes]) -> None:
    """An inner node with any children encodes to bytes that decode to it."""
    node = manifest.Inner(level, children)
    assert manifest.decode_inner(node.encode(), level, geometry.span(level)) == node


@hypothesis.given(st.integers(0, _LARGEST), _IDS)
def test_roots_come_back(size: int, top: bytes) -> None:
    """A root of any size encodes to 48 bytes that decode to it, but for one of size 0 that holds something."""
    root = manifest.Root(size, top)
    assert len(root.encode()) == 48
    if not size and top != geometry.ZERO_ID:
        with pytest.raises(errors.FormatError, match="for a disk of size 0"):
            manifest.decode_root(root.encode())
        return
    assert manifest.decode_root(root.encode()) == root


def _leaf_of_16(data: bytes) -> bytes:
    return manifest.decode_leaf(data, 16).encode()


def _inner_of_3000(data: bytes) -> bytes:
    return manifest.decode_inner(data, 2, 3000).encode()


def _root(data: bytes) -> bytes:
    return manifest.decode_root(data).encode()


def test_mutants_of_leaves(seed: int) -> None:
    """Ten thousand variations of leaves are refused or encode to themselves."""
    rng = np.random.default_rng(seed)
    samples = [_random_leaf(rng, 16).encode() for _ in range(20)]
    decoded, refused = mutate.survey(_leaf_of_16, mutate.mutants(seed, samples, 10_000))
    assert min(decoded, refused) > 100


def test_mutants_of_inner_nodes(seed: int) -> None:
    """Ten thousand variations of inner nodes are refused or encode to themselves."""
    rng = np.random.default_rng(seed)
    samples = [
        manifest.Inner(2, {int(child): rng.bytes(32) for child in rng.choice(46, size, replace=False)}).encode()
        for size in (1, 2, 5, 46)
    ]
    decoded, refused = mutate.survey(_inner_of_3000, mutate.mutants(seed, samples, 10_000))
    assert min(decoded, refused) > 100


def test_mutants_of_roots(seed: int) -> None:
    """Ten thousand variations of roots are refused or encode to themselves."""
    samples = [manifest.Root(size, bytes(range(32))).encode() for size in (0, 1, 1 << 22, 1 << 40, _LARGEST)]
    decoded, refused = mutate.survey(_root, mutate.mutants(seed, samples, 10_000))
    assert min(decoded, refused) > 100


@pytest.mark.parametrize("size", [4, 5, 35, 131071])
def test_counts_of_leaves_are_checked_before_use(size: int) -> None:
    """A leaf that claims 65535 runs takes no more memory than it has bytes, several times."""
    data = struct.pack("<BBH", 1, 0, 65535) + bytes([1, 0]) * (size // 2)
    assert mutate.peak(lambda: manifest.decode_leaf(data, 1024)) < 65536 + 200 * size


@pytest.mark.parametrize(
    ("size", "windows", "level"),
    [
        (0, 0, 0),
        (1, 1, 0),
        (4 << 20, 1, 0),
        ((4 << 20) + 1, 2, 1),
        (64 * (4 << 20), 64, 1),
        (64 * (4 << 20) + 1, 65, 2),
        (1 << 40, 1 << 18, 3),
        (_LARGEST, 1 << 41, 7),
    ],
)
def test_levels(size: int, windows: int, level: int) -> None:
    """Windows and the level of the top node are those of the specification at every edge."""
    assert (geometry.windows(size), geometry.top_level(size)) == (windows, level)


@hypothesis.given(st.integers(1, _LARGEST))
def test_top_node_spans_the_disk_and_no_level_less_does(size: int) -> None:
    """The top level is the least that spans all windows."""
    level = geometry.top_level(size)
    assert geometry.span(level) >= geometry.windows(size)
    assert level == 0 or geometry.span(level - 1) < geometry.windows(size)


@hypothesis.given(st.integers(0, 20 * geometry.WINDOW))
def test_blocks_of_all_windows_cover_the_disk(size: int) -> None:
    """Windows have 1024 blocks but for the last, and together as many as cover the disk."""
    blocks = [geometry.window_blocks(size, window) for window in range(geometry.windows(size))]
    assert sum(blocks) == -(-size // geometry.BLOCK)
    assert all(count == geometry.BLOCKS_PER_WINDOW for count in blocks[:-1])
    assert all(0 < count <= geometry.BLOCKS_PER_WINDOW for count in blocks)


@pytest.mark.parametrize("windows", [1, 2, 63, 64])
def test_children_end_with_the_disk(windows: int) -> None:
    """The child that begins with the last window is taken, the next is refused."""
    last = manifest.Inner(1, {windows - 1: bytes(32)}).encode()
    assert manifest.decode_inner(last, 1, windows).children == {windows - 1: bytes(32)}
    if windows < geometry.FANOUT:
        with pytest.raises(errors.FormatError, match="beyond"):
            manifest.decode_inner(manifest.Inner(1, {windows: bytes(32)}).encode(), 1, windows)
