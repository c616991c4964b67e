"""A compressed qcow2 image as a target: clusters are compressed in the threads that write them, and appended.

Tables lie in front, where they can be planned; the refcounts, which depend on how small the data
becomes, behind it (specs/qcow2.md §6). An interrupted run begins again.
"""

from __future__ import annotations

import collections
import contextlib
import threading
from collections.abc import Iterator

import numpy as np

from vimgvc.disk import extents, protocol
from vimgvc.images import qcow2, qcow2_clusters, qcow2_compress, qcow2_layout, qcow2_plan, qcow2_tail, raw, written

#: Clusters of which only parts were written wait in memory up to this many bytes.
_WAITING = 32 << 20

#: Entries of L2 tables looked at at once.
_ENTRIES = 1 << 16


class _Open:
    """A cluster of which a part was written: its content, and how many bytes were written to it."""

    __slots__ = ("content", "got")

    def __init__(self, content: bytearray) -> None:
        self.content = content
        self.got = 0


class CompressedTarget:
    """A compressed image as a Target. Use `qcow2_target.build`.

    Any range of what was planned can be written, in any order. It is fastest with whole clusters; a
    cluster that is written again after it was compressed is decompressed, and its old place is lost.
    """

    resumed = False

    def __init__(self, file: raw.RawWriter, plan: qcow2_plan.Plan) -> None:
        self.plan = plan
        self._file = file
        self._overlay = plan.options.backing_file is not None
        self._zero_flag = plan.options.compat != "0.10"
        self._compressor = qcow2_compress.Compressor(plan.options.compression_type, plan.cluster)
        zstd = plan.options.compression_type == "zstd"
        header = qcow2_layout.Header(
            size=plan.disk_size,
            cluster_bits=plan.cluster.bit_length() - 1,
            compression=qcow2_layout.ZSTD if zstd else qcow2_layout.ZLIB,
        )
        self._clusters = qcow2_clusters.Clusters(written.Written(file), header, file.path)
        self._lock = threading.Condition()
        self._busy: set[int] = set()
        self._waiting: collections.OrderedDict[int, _Open] = collections.OrderedDict()
        self._space = qcow2_tail.Space(plan)
        self._complete = False
        try:
            # The data of an interrupted run was cut off when the file was opened; its tables are replaced.
            at = plan.l1_offset or plan.l2_offset
            for piece in plan.tables_bytes(self._no_place):
                file.pwrite(at, memoryview(piece))
                at += len(piece)
        except BaseException:
            file.abort(keep=False)
            raise

    @staticmethod
    def _no_place(_: int, count: int) -> qcow2_tail.Entries:
        return np.zeros(count, np.uint64)

    @property
    def size(self) -> int:
        return self.plan.size

    def pwrite(self, offset: int, data: memoryview) -> None:
        extents.check_range(self.size, offset, data.nbytes)
        self._file.zero(0, 0)  # raises when finished
        if data.nbytes:
            self.plan.locate(offset, data.nbytes)
            for cluster, inside, start, stop in self._parts(offset, data.nbytes):
                self._update(cluster, inside, data[start:stop])

    def zero(self, offset: int, length: int) -> None:
        extents.check_range(self.size, offset, length)
        self._file.zero(0, 0)
        for item in self.plan.readable(offset, length):
            if item.kind is extents.Kind.DATA:
                for cluster, inside, start, stop in self._parts(item.start, item.length):
                    self._update(cluster, inside, memoryview(bytes(stop - start)))

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        extents.check_range(self.size, offset, buffer.nbytes)
        for item in self.plan.readable(offset, buffer.nbytes):
            piece = buffer[item.start - offset : item.end - offset]
            if item.kind is not extents.Kind.DATA:
                piece[:] = bytes(piece.nbytes)
                continue
            for cluster, inside, start, stop in self._parts(item.start, item.length):
                with self._claimed(cluster) as opened:
                    content = self._load(cluster) if opened is None else opened.content
                    piece[start:stop] = content[inside : inside + stop - start]
                    self._keep(cluster, opened)

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        """As the contract says; HOLE where the backing file shows through, too."""
        extents.check_range(self.size, offset, length)
        return self.plan.kinds(offset, length)

    def reader(self, backing: protocol.Source | None = None) -> protocol.Source:
        """The image as it is now, as others will read it; closing it leaves the target as it is."""
        self._write_rest()
        self._file.settle()
        return qcow2.Qcow2Reader(written.Written(self._file), self._file.path, backing=backing)

    def finish(self) -> None:
        self._write_rest()
        self._file.finish()

    def abort(self, *, keep: bool = True) -> None:
        """As the contract says; nothing of it stays."""
        self._file.abort(keep=False)

    def _parts(self, offset: int, length: int) -> Iterator[tuple[int, int, int, int]]:
        """(cluster, offset in it, and the part's begin and end in the range) for each cluster of a range."""
        at = 0
        while at < length:
            cluster, inside = divmod(offset + at, self.plan.cluster)
            step = min(self.plan.cluster - inside, length - at)
            yield cluster, inside, at, at + step
            at += step

    @contextlib.contextmanager
    def _claimed(self, cluster: int) -> Iterator[_Open | None]:
        """Have a cluster to oneself; what of it is waiting is taken out."""
        with self._lock:
            while cluster in self._busy:
                self._lock.wait()
            self._busy.add(cluster)
            opened = self._waiting.pop(cluster, None)
        try:
            yield opened
        finally:
            with self._lock:
                self._busy.discard(cluster)
                self._lock.notify_all()

    def _update(self, cluster: int, inside: int, data: memoryview) -> None:
        self._complete = False
        used = min(self.plan.cluster, self.size - cluster * self.plan.cluster)
        with self._claimed(cluster) as waiting:
            if data.nbytes == used:
                self._store(cluster, data)
                return
            opened = waiting or _Open(bytearray(self._load(cluster)))
            opened.content[inside : inside + data.nbytes] = data
            opened.got += data.nbytes
            if opened.got >= used:
                self._store(cluster, memoryview(opened.content))
                return
            self._keep(cluster, opened)
        self._relieve()

    def _keep(self, cluster: int, opened: _Open | None) -> None:
        if opened is not None:
            with self._lock:
                self._waiting[cluster] = opened

    def _relieve(self) -> None:
        """Compress what has waited longest when too much waits."""
        while len(self._waiting) * self.plan.cluster > _WAITING:
            self._settle()

    def _settle(self) -> bool:
        """Compress one waiting cluster; False when there is none that nobody else works at."""
        with self._lock:
            cluster = next(iter(self._waiting), None)
        if cluster is None:
            return False
        with self._claimed(cluster) as opened:
            if opened is not None:
                self._store(cluster, memoryview(opened.content))
        return True

    def _load(self, cluster: int) -> bytes | bytearray:
        """The content of a claimed cluster as it was stored."""
        entry = self._entry(cluster)
        if entry & qcow2_layout.COMPRESSED:
            return self._clusters.cluster(entry & ~qcow2_layout.COMPRESSED, cluster * self.plan.cluster)
        content = bytearray(self.plan.cluster)
        if entry & qcow2_layout.COPIED:
            self._file.pread_into(entry & qcow2_layout.OFFSET_MASK, memoryview(content))
        return content

    def _entry(self, cluster: int) -> int:
        room = bytearray(8)
        self._file.pread_into(self.plan.entry_offset(cluster), memoryview(room))
        return int.from_bytes(room, "big")

    def _store(self, cluster: int, data: memoryview) -> None:
        """Compress and append a claimed cluster, and make its entry; zeros take no space."""
        old = self._entry(cluster)
        entry, bitmap = self._append(data)
        room = entry.to_bytes(8, "big")
        if self.plan.options.extended_l2:
            room += bitmap.to_bytes(8, "big")
        self._file.pwrite(self.plan.entry_offset(cluster), memoryview(room))
        if old:
            with self._lock:  # so that nobody is given space there meanwhile
                for offset in self._space.release(old):
                    self._file.zero(offset, self.plan.cluster)

    def _append(self, data: memoryview) -> tuple[int, int]:
        """The cluster's entry, and its bitmap for extended entries."""
        full = data
        if data.nbytes < self.plan.cluster:
            full = memoryview(data.tobytes().ljust(self.plan.cluster, b"\0"))
        if not np.frombuffer(full, np.uint8).any():
            if not self._overlay:
                return 0, 0
            if self._zero_flag:
                return (0, 0xFFFF_FFFF << 32) if self.plan.options.extended_l2 else (qcow2_layout.ZERO, 0)
        packed = self._compressor.compress(full)
        offset = self._take(None if packed is None else len(packed))
        if packed is None:
            self._file.pwrite(offset, full)
            return offset | qcow2_layout.COPIED, 0xFFFF_FFFF
        self._file.pwrite(offset, memoryview(packed))
        return self._compressor.descriptor(offset, len(packed)), 0

    def _take(self, length: int | None) -> int:
        with self._lock:
            offset = self._space.take(length)
            if self._space.end > self._file.size:
                self._file.resize(self._space.end)
        return offset

    def _write_rest(self) -> None:
        """Everything that was held back, the refcounts and the header; again if more was written since."""
        self._file.zero(0, 0)
        if self._complete:
            return
        while self._settle():
            pass
        if self._overlay:
            self._hide_backing()
        tail = qcow2_tail.Tail(self.plan, self._space.end)
        self._file.resize(tail.end)
        at = self._space.end
        for piece in tail.pieces(self._space.counts):
            self._file.pwrite(at, memoryview(piece))
            at += len(piece)
        self._file.pwrite(0, memoryview(self.plan.header(tail.refcount_table)))
        self._complete = True

    def _hide_backing(self) -> None:
        """What was planned and never written reads as zeros, not as the backing file."""
        zeros = memoryview(bytes(self.plan.cluster))
        size = self.plan.entry_size
        for first, end in self.plan.units.runs():
            for low in range(first, end, _ENTRIES):
                room = bytearray((min(low + _ENTRIES, end) - low) * size)
                self._file.pread_into(self.plan.entry_offset(low), memoryview(room))
                entries = np.frombuffer(room, ">u8").reshape(-1, size // 8)
                for number in np.flatnonzero((entries == 0).all(axis=1)).tolist():
                    self._store(low + number, zeros)
