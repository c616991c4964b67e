"""Runs: sorted columns in memory and in files give the same answers as a dictionary."""

from __future__ import annotations

import itertools
import os
import pathlib
import tempfile
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import index_model
from vimgvc import errors
from vimgvc.store import run_file, runs

Entries = list[tuple[bytes, int]]

# Few different first bytes, so that identifiers share four, eight and all 32 bytes.
_IDS = st.builds(
    lambda head, middle, tail: head * 4 + middle * 4 + tail * 24,
    *(st.sampled_from([b"\x00", b"\x7f", b"\x80", b"\xff"]) for _ in range(3)),
)
_ENTRIES = st.lists(st.tuples(_IDS, st.integers(0, 3)), min_size=1, max_size=200)
_ALIVE = np.ones(8, np.bool_)


def _records(entries: Entries) -> runs.Words:
    places = np.array([pack << 32 | 5 << 16 | pack for _, pack in entries], runs.WORD)
    return runs.make_records(index_model.as_array(item for item, _ in entries).view(runs.WORD), places)


def _random_records(count: int, seed: int) -> runs.Words:
    return runs.make_records(
        index_model.random_ids(count, seed).view(runs.WORD), np.arange(count, dtype=runs.WORD) % 7 << np.uint64(32)
    )


def _memory_sink() -> runs.Sink:
    return runs.MemorySink()


def _file_sink() -> runs.Sink:
    with tempfile.TemporaryFile() as file:
        return run_file.FileSink(run_file.Descriptor(os.dup(file.fileno())))


def _content(run: runs.Run) -> bytes:
    return run.source.slice(0, run.count).tobytes()


def _find(run: runs.Run, ids: index_model.Ids, alive: runs.Flags = _ALIVE) -> runs.Words:
    words = ids.view(runs.WORD)
    return run.find(words, runs.keys_of(words), alive)


@pytest.mark.slow
@pytest.mark.parametrize("sink", [_memory_sink, _file_sink])
@given(entries=_ENTRIES, queries=st.lists(_IDS, max_size=50), dead=st.sets(st.integers(0, 3)))
def test_a_run_answers_as_a_dictionary(
    sink: Callable[[], runs.Sink], entries: Entries, queries: list[bytes], dead: set[int]
) -> None:
    """`find` gives a living place exactly of what is there; `find_all` gives all places, each once."""
    known: dict[bytes, set[int]] = {}
    for item, pack in entries:
        known.setdefault(item, set()).add(pack << 32 | 5 << 16 | pack)
    run = runs.merge([runs.from_records(_records(entries))], sink())
    alive = np.array([number not in dead for number in range(4)])
    wanted = queries + list(known)
    for item, place in zip(wanted, _find(run, index_model.as_array(wanted), alive).tolist(), strict=True):
        living = {one for one in known.get(item, set()) if one >> 32 not in dead}
        assert place in living if living else place == runs.ABSENT
        words = np.frombuffer(item, runs.WORD)
        every = run.find_all(words, int.from_bytes(item[:4], "big"))
        assert sorted(every) == sorted(known.get(item, set()))


@given(parts=st.lists(_ENTRIES, min_size=1, max_size=5), slice_records=st.integers(1, 50))
def test_merging_in_slices_is_merging_at_once(parts: list[Entries], slice_records: int) -> None:
    """Whatever the width of a slice: all records of all runs, in order, each once."""
    sources = [runs.from_records(_records(entries)) for entries in parts]
    merged = runs.merge(sources, runs.MemorySink(), slice_records=slice_records)
    expected = sorted({(item, pack) for entries in parts for item, pack in entries})
    assert _content(merged) == _records(expected).tobytes()


def test_a_merge_takes_no_more_than_a_slice(seed: int) -> None:
    """No piece that reaches the sink is far from the slice that was asked for."""

    class Measuring(runs.MemorySink):
        sizes: list[int] = []  # noqa: RUF012 one instance

        def append(self, records: runs.Words) -> None:
            self.sizes.append(len(records))
            super().append(records)

    sources = [runs.from_records(_random_records(count, seed + count)) for count in (40_000, 10_000, 300)]
    merged = runs.merge(sources, Measuring(), slice_records=2000)
    assert merged.count == 50_300
    assert max(Measuring.sizes) < 2 * 2000


@pytest.mark.parametrize("count", [1, 63, 64, 65, 2047, 2048, 2049, 5000])
def test_a_file_holds_what_was_written(count: int, seed: int) -> None:
    """A run in a file equals the run in memory, at every size around the edges of fences and blocks."""
    memory = runs.from_records(_random_records(count, seed))
    file = runs.merge([memory], _file_sink(), slice_records=777)
    assert file.count == count
    assert _content(file) == _content(memory)
    assert file.source.keys().tolist() == memory.source.keys().tolist()
    ids = memory.source.slice(0, count)[:, :4].copy().view(np.uint8)
    assert (_find(file, ids) == _find(memory, ids)).all()
    assert (_find(file, index_model.random_ids(100, seed + 1)) == runs.ABSENT).all()


@pytest.mark.slow
def test_few_and_many_records_are_read_alike(seed: int) -> None:
    """Reading records one by one and through windows gives the same, in the order asked for."""
    count = 600_000
    file = runs.merge([runs.from_records(_random_records(count, seed))], _file_sink())
    assert isinstance(file.source, run_file.FileSource)
    generator = np.random.default_rng(seed)
    for asked in (1, 100, 5000, 100_000):
        positions = generator.integers(0, count, asked)
        positions[-1] = count - 1
        single = b"".join(file.source.slice(at, at + 1).tobytes() for at in positions[-200:].tolist())
        assert file.source.take(positions)[-200:].tobytes() == single


def _open_copy(folder: pathlib.Path, original: run_file.FileSource, data: bytes) -> runs.Run:
    path = folder / "copy"
    path.write_bytes(data)
    descriptor = run_file.Descriptor(os.open(path, os.O_RDONLY))
    return runs.Run(run_file.FileSource(descriptor, original.count, original.name))


@pytest.mark.slow
def test_d17_a_damaged_file_never_answers_wrongly(tmp_path: pathlib.Path, seed: int) -> None:
    """One changed byte in records, keys or hashes: the answer is right, or the damage is reported."""
    count = 3000
    path = tmp_path / "run"
    sink = run_file.FileSink(run_file.Descriptor(os.open(path, os.O_RDWR | os.O_CREAT)))
    original = runs.merge([runs.from_records(_random_records(count, seed))], sink)
    assert isinstance(original.source, run_file.FileSource)
    good = path.read_bytes()
    assert len(good) == run_file.file_size(count)
    ids = original.source.slice(0, count)[:, :4].copy().view(np.uint8)
    right = _find(original, ids)
    generator = np.random.default_rng(seed)
    keys, hashes = runs.RECORD_SIZE * count, len(good) - 2 * run_file.HASH_SIZE
    spots = np.concatenate(
        [generator.integers(0, keys, 60), generator.integers(keys, hashes, 60), np.arange(hashes, len(good))]
    )
    noticed = 0
    for spot in spots.tolist():
        bad = bytearray(good)
        bad[spot] ^= 1 << int(generator.integers(8))
        damaged = _open_copy(tmp_path, original.source, bytes(bad))
        if spot < keys:
            # The other block is as it was: it is used, and makes the damaged one no more trusted.
            block = 1 - spot // runs.RECORD_SIZE // run_file.BLOCK
            there = slice(block * run_file.BLOCK, (block + 1) * run_file.BLOCK)
            assert (_find(damaged, ids[there]) == right[there]).all()
        with pytest.raises(errors.IntegrityError):
            _find(damaged, ids)
        noticed += 1
    assert noticed == len(spots)


@pytest.mark.parametrize("change", [-1, 1, -4000])
def test_d17_a_file_of_another_length_is_refused(tmp_path: pathlib.Path, seed: int, change: int) -> None:
    """A run that was cut or extended is refused when it is opened."""
    path = tmp_path / "run"
    sink = run_file.FileSink(run_file.Descriptor(os.open(path, os.O_RDWR | os.O_CREAT)))
    original = runs.merge([runs.from_records(_random_records(500, seed))], sink)
    assert isinstance(original.source, run_file.FileSource)
    data = path.read_bytes() + bytes(max(change, 0))
    with pytest.raises(errors.IntegrityError):
        _open_copy(tmp_path, original.source, data[: len(data) + min(change, 0)])


def test_descriptors_are_closed_with_their_run(tmp_path: pathlib.Path) -> None:
    """A run that nobody holds keeps no file open."""
    before = len(os.listdir("/proc/self/fd"))
    run = runs.merge([runs.from_records(_random_records(500, 1))], _file_sink())
    _find(run, index_model.random_ids(3, 1))
    assert len(os.listdir("/proc/self/fd")) > before
    del run
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.slow
@given(st.lists(st.integers(1, 10**6), min_size=1, max_size=30), st.integers(0, 1000))
def test_few_runs_remain(counts: list[int], minimum: int) -> None:
    """However runs come, merging the tail leaves each four times the next or more, and no two small ones."""
    layers: list[int] = []
    for count in counts:
        layers.append(count)
        start = runs.first_to_merge(layers, minimum)
        layers[start:] = [sum(layers[start:])]
        for big, small in itertools.pairwise(layers):
            assert big >= 4 * small
            assert big + small > minimum
    assert sum(layers) == sum(counts)
