"""Where disks are cut: formats.md §6."""

from __future__ import annotations

import itertools

import hypothesis
import numpy as np
import numpy.typing as npt
import pytest
from blake3 import blake3
from hypothesis import strategies as st

from vimgvc.chunking import cut
from vimgvc.model import geometry

_KEY = bytes(range(32))
_AVERAGES = pytest.mark.parametrize("average", geometry.AVERAGES)
Window = npt.NDArray[np.uint64]


def _slowly(key: bytes, average: int, window: bytes) -> list[tuple[int, bool]]:
    """The rules of §6 word by word, for one block after the other."""
    stream = blake3(b"cut 1", key=key).digest(34 * 8)
    words = [int.from_bytes(stream[at : at + 8], "little") for at in range(0, len(stream), 8)]
    c, m, o = words[0], [word | 1 for word in words[1:33]], words[33] % 16
    blocks = [window[at : at + 4096] for at in range(0, len(window), 4096)]
    runs: list[tuple[int, bool]] = []
    length = 0
    for number, block in enumerate(blocks):
        length += 1
        zero = not any(block)
        last = number == len(blocks) - 1
        if zero:
            if last or any(blocks[number + 1]):
                runs.append((length, True))
                length = 0
            continue
        w = [int.from_bytes(block[at : at + 8], "little") for at in range(0, 4096, 8)]
        f = (c + sum(m[j] * w[16 * j + o] for j in range(32))) % 2**64
        is_cut = f >= 2**64 - 2**64 // (average // 4096)
        if is_cut or last or not any(blocks[number + 1]) or length == average // 1024:
            runs.append((length, False))
            length = 0
    return runs


def _window(data: bytes) -> Window:
    return np.frombuffer(data, "<u8").reshape(-1, 512)


def _mixed(rng: np.random.Generator, blocks: int) -> bytes:
    """Noise, zeros, a single bit in a block of zeros, and repetitions."""
    pieces: list[bytes] = []
    while len(pieces) < blocks:
        count = min(int(rng.integers(1, 90)), blocks - len(pieces))
        match int(rng.integers(5)):
            case 0 | 1:
                pieces += [rng.bytes(4096) for _ in range(count)]
            case 2:
                pieces += [bytes(4096)] * count
            case 3:
                bit = bytearray(4096)
                bit[int(rng.integers(4096))] = 1 << int(rng.integers(8))
                pieces.append(bytes(bit))
            case _:
                pieces += [rng.bytes(4096)] * count
    return b"".join(pieces)


@pytest.mark.slow
@_AVERAGES
@pytest.mark.parametrize("blocks", [1, 2, 17, 400])
def test_is_the_specification(seed: int, average: int, blocks: int) -> None:
    """Runs are those of a slow reading of the specification, for every average and kind of data."""
    rng = np.random.default_rng(seed)
    for key in (_KEY, rng.bytes(32)):
        data = _mixed(rng, blocks)
        assert cut.Cutter(key, average).runs(_window(data)) == _slowly(key, average, data)


@_AVERAGES
def test_rules(seed: int, average: int) -> None:
    """Runs cover the window; zero runs hold zeros only and are maximal; chunks are never too long."""
    rng = np.random.default_rng(seed)
    cutter = cut.Cutter(_KEY, average)
    for _ in range(20):
        data = _mixed(rng, int(rng.integers(1, 1025)))
        runs = cutter.runs(_window(data))
        assert sum(length for length, _ in runs) == len(data) // 4096
        at = 0
        for length, zero in runs:
            blocks = [any(data[4096 * block : 4096 * block + 4096]) for block in range(at, at + length)]
            assert not any(blocks) if zero else all(blocks)
            assert zero or 1 <= length <= average // 1024
            at += length
        assert not any(one[1] and two[1] for one, two in itertools.pairwise(runs))


@_AVERAGES
def test_equal_windows_are_cut_equally(seed: int, average: int) -> None:
    """A window is cut the same whatever was cut before, wherever its bytes lie, and by every Cutter of the key."""
    rng = np.random.default_rng(seed)
    data = _mixed(rng, 300)
    cutter = cut.Cutter(_KEY, average)
    first = cutter.runs(_window(data))
    cutter.runs(_window(_mixed(rng, 1024)))
    memory = np.frombuffer(bytes(4096 * 7) + data + rng.bytes(4096), "<u8").reshape(-1, 512)
    assert cutter.runs(memory[7:-1]) == first
    assert cut.Cutter(_KEY, average).runs(_window(data)) == first


@_AVERAGES
def test_a_change_stays_local(seed: int, average: int) -> None:
    """After a change of one block the cuts are the same again after few chunks."""
    rng = np.random.default_rng(seed)
    data = bytearray(rng.bytes(4096 * 1024))
    cutter = cut.Cutter(_KEY, average)
    before = _ends(cutter.runs(_window(bytes(data))))
    changed = int(rng.integers(1024))
    data[4096 * changed : 4096 * changed + 4096] = rng.bytes(4096)
    after = _ends(cutter.runs(_window(bytes(data))))
    different = before ^ after
    assert all(block >= changed for block in different)
    assert all(block < changed + 40 * average // 4096 for block in different)


def _ends(runs: list[tuple[int, bool]]) -> set[int]:
    return set(np.cumsum([length for length, _ in runs]).tolist())


@pytest.mark.slow
@_AVERAGES
def test_average(seed: int, average: int) -> None:
    """On noise chunks have the average that was asked for, within 12 %, less what their maximum takes off."""
    rng = np.random.default_rng(seed)
    cutter = cut.Cutter(_KEY, average)
    lengths = [
        length for _ in range(40 * average // 65536 + 10) for length, _ in cutter.runs(_window(rng.bytes(4 << 20)))
    ]
    p, longest = 4096 / average, average // 1024
    expected = (1 - (1 - p) ** longest) / p
    assert np.mean(lengths) == pytest.approx(expected, rel=0.12)
    assert max(lengths) == longest


def test_keys_cut_differently(seed: int) -> None:
    """Two keys agree on where to cut no more than chance makes them."""
    rng = np.random.default_rng(seed)
    data = _window(rng.bytes(4 << 20))
    ends = [_ends(cut.Cutter(bytes([number]) * 32, 16384).runs(data)) for number in range(4)]
    for one, other in ((0, 1), (0, 2), (1, 3)):
        shared = len(ends[one] & ends[other]) / len(ends[one])
        assert 0.1 < shared < 0.45


@hypothesis.given(st.integers(0, 511), st.integers(0, 63))
def test_a_single_bit_is_not_zero(word: int, bit: int) -> None:
    """A block with one bit set is no zero block, whether or not the bit is in a word that is looked at."""
    window = np.zeros((3, 512), np.uint64)
    window[1, word] = 1 << bit
    assert cut.Cutter(_KEY, 65536).runs(window) == [(1, True), (1, False), (1, True)]


@pytest.mark.parametrize("blocks", [1, 2, 1023, 1024])
def test_zeros(blocks: int) -> None:
    """A window of zeros is one zero run."""
    assert cut.Cutter(_KEY, 65536).runs(np.zeros((blocks, 512), np.uint64)) == [(blocks, True)]


@_AVERAGES
def test_equal_blocks_have_chunks_of_one_length(average: int) -> None:
    """A window that repeats one block is cut after every block or every longest chunk, so that it is stored once."""
    runs = cut.Cutter(_KEY, average).runs(_window(b"U" * 4096 * 1024))
    assert set(runs) in ({(1, False)}, {(average // 1024, False)})


@_AVERAGES
def test_threshold(average: int) -> None:
    """A block whose sum is the threshold itself is cut, one whose sum is one less is not."""
    words = np.frombuffer(blake3(b"cut 1", key=_KEY).digest(34 * 8), "<u8").tolist()
    threshold = 2**64 - 2**64 // (average // 4096)
    for wanted, runs in ((threshold, [(1, False), (1, False)]), (threshold - 1, [(2, False)])):
        window = np.zeros((2, 512), np.uint64)
        window[:, words[33] % 16] = (wanted - words[0]) * pow(words[1] | 1, -1, 2**64) % 2**64
        assert cut.Cutter(_KEY, average).runs(window) == runs
