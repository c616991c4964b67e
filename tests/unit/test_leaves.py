"""Many leaves decoded at once: nothing is accepted that the decoder of one leaf refuses."""

from __future__ import annotations

import numpy as np
import pytest

from vimgvc import errors
from vimgvc.model import geometry, manifest
from vimgvc.pipeline import leaves, window

_BLOCKS = geometry.BLOCKS_PER_WINDOW


def _leaf(rng: np.random.Generator, blocks: int) -> manifest.Leaf:
    """Runs of any lengths, with zero runs among them."""
    count = int(rng.integers(0, min(blocks, 40)))
    cuts = np.sort(rng.choice(np.arange(1, blocks), count, replace=False)) if count else np.zeros(0, np.int64)
    lengths = np.diff(np.concatenate([[0], cuts, [blocks]])).tolist()
    runs: list[tuple[int, bool]] = []
    for length in lengths:
        zero = bool(rng.integers(2)) and not (runs and runs[-1][1])
        runs.append((length, zero))
    if all(zero for _, zero in runs):
        runs = [(blocks, False)]
    return manifest.Leaf(tuple(runs), rng.bytes(32 * sum(not zero for _, zero in runs)))


def _same(found: leaves.Chunks, wanted: list[tuple[int, manifest.Leaf]]) -> bool:
    """Whether `found` are the chunks of the leaves at those positions."""
    listed = [
        (position * geometry.WINDOW + offset, length, chunk_id)
        for position, leaf in wanted
        for offset, length, chunk_id in window.chunks(leaf)
    ]
    columns = zip(found.starts.tolist(), found.blocks.tolist(), found.ids, strict=True)
    return [(start * geometry.BLOCK, blocks * geometry.BLOCK, words.tobytes()) for start, blocks, words in columns] == (
        listed
    )


def _alone(node: bytes) -> manifest.Leaf | str:
    """The leaf, or what is wrong with it."""
    try:
        return manifest.decode_leaf(node, _BLOCKS)
    except errors.FormatError as error:
        return str(error)


def test_the_same_as_one_by_one(seed: int) -> None:
    """Random leaves in random windows have the same chunks in the same places as decoded one by one."""
    rng = np.random.default_rng(seed)
    for _ in range(30):
        positions = np.sort(rng.choice(200, int(rng.integers(1, 60)), replace=False)).tolist()
        blocks = [_BLOCKS] * (len(positions) - 1) + [int(rng.integers(1, _BLOCKS + 1))]
        made = [_leaf(rng, count) for count in blocks]
        found = leaves.decode([leaf.encode() for leaf in made], positions, blocks)
        assert _same(found, list(zip(positions, made, strict=True)))


def test_damage_is_refused_as_one_by_one(seed: int) -> None:
    """A node with some bytes changed, cut off or added is taken or refused exactly as by itself."""
    rng = np.random.default_rng(seed)
    refused = 0
    for _ in range(1500):
        sound = [_leaf(rng, _BLOCKS) for _ in range(3)]
        damaged = bytearray(sound[1].encode())
        kind = int(rng.integers(3))
        if kind == 0:
            damaged[int(rng.integers(min(len(damaged), 24)))] = int(rng.choice([0, 1, 2, 4, 128, 255]))
        elif kind == 1:
            del damaged[int(rng.integers(len(damaged))) :]
        else:
            damaged += rng.bytes(int(rng.choice([1, 2, 32])))
        nodes = [sound[0].encode(), bytes(damaged), sound[2].encode()]
        alone = _alone(bytes(damaged))
        if isinstance(alone, str):
            refused += 1
            with pytest.raises(errors.FormatError) as told:
                leaves.decode(nodes, [0, 1, 2], [_BLOCKS] * 3)
            assert str(told.value) == alone
        else:
            assert _same(leaves.decode(nodes, [0, 1, 2], [_BLOCKS] * 3), list(enumerate([sound[0], alone, sound[2]])))
    assert refused > 500


@pytest.mark.parametrize(
    "runs",
    [
        ((_BLOCKS, True),),
        ((0, False), (_BLOCKS, False)),
        ((_BLOCKS - 1, False),),
        ((_BLOCKS, False), (1, False)),
        ((1, True), (1, True), (_BLOCKS - 2, False)),
        (),
        ((32767, False), (1, False)),
    ],
)
def test_rules_of_runs(runs: tuple[tuple[int, bool], ...]) -> None:
    """Each rule of a leaf's runs is checked when there are others around it that keep them."""
    sound = manifest.Leaf(((1, True), (_BLOCKS - 2, False), (1, True)), bytes(32)).encode()
    wrong = manifest.Leaf(runs, bytes(32 * sum(not zero for _, zero in runs))).encode()
    with pytest.raises(errors.FormatError):
        leaves.decode([sound, wrong, sound], [0, 1, 2], [_BLOCKS] * 3)
    assert len(leaves.decode([sound, sound], [0, 1], [_BLOCKS] * 2).starts) == 2
