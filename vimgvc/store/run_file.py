"""Runs in files: what does not fit in memory, and the local cache (specs/index-cache.md §2).

A file holds records, keys and one BLAKE3 per block of records. Its name is the hash of its keys and
block hashes, which are checked by plain reads before the keys are first used; a block is checked
before the first record in it is used. Nothing is trusted that was not checked.

Records are read one by one, or, when many are wanted, through a map of a part of the file that is
given up at once: a map that stays would count every page it ever touched as resident memory.
"""

from __future__ import annotations

import mmap
import os
import struct
import weakref
from itertools import repeat

import numpy as np
from blake3 import blake3

from vimgvc import errors
from vimgvc.store import runs

BLOCK = 2048
HASH_SIZE = 32
_BLOCK_BYTES = BLOCK * runs.RECORD_SIZE
_PIECE = 16 * BLOCK
_CONTEXT = b"vimgvc index run 1"

# 10 MiB: windows begin at multiples of 2 MiB, which suits every page size.
_WINDOW = 1 << 18
# From here on a map of everything costs less than one read for each record (measured on ext4).
_DENSE_PER_MIB = 32


def key_bytes(count: int) -> int:
    return 4 * (count + -count % runs.FENCE)


def block_count(count: int) -> int:
    return -(-count // BLOCK)


def file_size(count: int) -> int:
    """Bytes of the file of a run with `count` entries."""
    return runs.RECORD_SIZE * count + key_bytes(count) + HASH_SIZE * block_count(count)


class Descriptor:
    """An open file that is closed when nobody refers to this object any more."""

    def __init__(self, number: int) -> None:
        self.number = number
        weakref.finalize(self, os.close, number)


class FileSource:
    """The columns of the run in an open file."""

    def __init__(self, descriptor: Descriptor, count: int, name: bytes) -> None:
        self.count = count
        self.name = name
        self._file = descriptor
        self._hashes = b""
        self._checked = np.zeros(block_count(count), np.bool_)
        if os.fstat(descriptor.number).st_size != file_size(count):
            raise self._damaged("has the wrong size")

    def keys(self) -> runs.Keys:
        start, length = runs.RECORD_SIZE * self.count, key_bytes(self.count)
        hasher = _hasher(self.count)
        for at in range(start, start + length, 1 << 20):
            hasher.update(self._read(at, min(1 << 20, start + length - at)))
        hashes = self._read(start + length, HASH_SIZE * block_count(self.count))
        hasher.update(hashes)
        if hasher.digest() != self.name:
            raise self._damaged("has damaged keys")
        self._hashes = hashes
        skip = start % mmap.ALLOCATIONGRANULARITY
        return np.frombuffer(self._map(start - skip, skip + length), "<u4", offset=skip)

    def take(self, positions: runs.Positions) -> runs.Words:
        self._check(positions // BLOCK)
        if len(positions) < _DENSE_PER_MIB * runs.RECORD_SIZE * self.count >> 20:
            return self._take_each(positions)
        return self._take_windows(positions)

    def slice(self, start: int, stop: int) -> runs.Words:
        self._check(np.arange(start // BLOCK, block_count(stop)))
        data = self._read(runs.RECORD_SIZE * start, runs.RECORD_SIZE * (stop - start))
        return _as_records(data)

    def _take_each(self, positions: runs.Positions) -> runs.Words:
        offsets = (positions * runs.RECORD_SIZE).tolist()
        try:
            data = b"".join(map(os.pread, repeat(self._file.number), repeat(runs.RECORD_SIZE), offsets))
        except OSError as error:
            raise self._damaged("cannot be read") from error
        if len(data) != runs.RECORD_SIZE * len(offsets):
            raise self._damaged("ends too early")
        return _as_records(data)

    def _take_windows(self, positions: runs.Positions) -> runs.Words:
        result = np.empty((len(positions), runs.RECORD_WORDS), runs.WORD)
        order = np.argsort(positions)
        ordered = positions[order]
        starts = np.arange(0, self.count, _WINDOW)
        cuts = [*ordered.searchsorted(starts).tolist(), len(ordered)]
        for number, start in enumerate(starts.tolist()):
            low, high = cuts[number], cuts[number + 1]
            if low < high:
                length = runs.RECORD_SIZE * min(_WINDOW, self.count - start)
                with self._map(runs.RECORD_SIZE * start, length) as view:
                    result[order[low:high]] = _as_records(view).take(ordered[low:high] - start, axis=0)
        return result

    def _check(self, blocks: runs.Positions) -> None:
        if not self._hashes:
            self.keys()
        checked = self._checked[blocks]
        if checked.all():
            return
        for block in runs.distinct(blocks[~checked]).tolist():
            start = block * _BLOCK_BYTES
            length = min(_BLOCK_BYTES, runs.RECORD_SIZE * self.count - start)
            if blake3(self._read(start, length)).digest() != self._hashes[HASH_SIZE * block :][:HASH_SIZE]:
                raise self._damaged("has damaged records")
            self._checked[block] = True

    def _map(self, offset: int, length: int) -> mmap.mmap:
        try:
            return mmap.mmap(self._file.number, length, prot=mmap.PROT_READ, offset=offset)
        except OSError as error:
            raise self._damaged("cannot be mapped") from error

    def _read(self, offset: int, length: int) -> bytes:
        try:
            data = os.pread(self._file.number, length, offset)
        except OSError as error:
            raise self._damaged("cannot be read") from error
        if len(data) != length:
            raise self._damaged("ends too early")
        return data

    def _damaged(self, reason: str) -> errors.IntegrityError:
        return errors.IntegrityError(f"index cache {self.name.hex()[:12]}", reason)


class FileSink:
    """Writes a run into an empty file open for reading and writing. Raises `OSError`."""

    def __init__(self, descriptor: Descriptor) -> None:
        self._file = descriptor
        self._count = 0

    def append(self, records: runs.Words) -> None:
        _write(self._file.number, np.ascontiguousarray(records).tobytes(), runs.RECORD_SIZE * self._count)
        self._count += len(records)

    def finish(self) -> FileSource:
        count, hashes, hasher = self._count, [], _hasher(self._count)
        keys_at = runs.RECORD_SIZE * count
        for start in range(0, count, _PIECE):
            length = min(_PIECE, count - start)
            data = os.pread(self._file.number, runs.RECORD_SIZE * length, runs.RECORD_SIZE * start)
            hashes += [blake3(data[at : at + _BLOCK_BYTES]).digest() for at in range(0, len(data), _BLOCK_BYTES)]
            keys = runs.fill_keys(runs.keys_of(_as_records(data))).astype("<u4").tobytes()
            hasher.update(keys)
            _write(self._file.number, keys, keys_at + 4 * start)
        tail = b"".join(hashes)
        hasher.update(tail)
        _write(self._file.number, tail, keys_at + key_bytes(count))
        return FileSource(self._file, count, hasher.digest())


def _hasher(count: int) -> blake3:
    return blake3(_CONTEXT + struct.pack("<Q", count))


def _as_records(data: bytes | mmap.mmap) -> runs.Words:
    return np.frombuffer(data, runs.WORD).reshape(-1, runs.RECORD_WORDS)


def _write(descriptor: int, data: bytes, offset: int) -> None:
    rest = memoryview(data)
    while rest:
        written = os.pwrite(descriptor, rest, offset)
        rest, offset = rest[written:], offset + written
