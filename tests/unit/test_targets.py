"""What is written is what was read, or it has no name."""

from __future__ import annotations

import itertools
import pathlib

import numpy as np
import pytest

from tests import depth, made_images, repos
from vimgvc import errors
from vimgvc.commands import contents, export, kinds, streams, targets
from vimgvc.disk import memory
from vimgvc.images import qcow2, raw
from vimgvc.monitor import NullMonitor
from vimgvc.repo import repository

_SIZE = (9 << 20) + 512
_EIGHTH = 7  # by then it is data
_KINDS = [
    kinds.Kind("raw"),
    kinds.Kind("raw", {"preallocation": "full"}),
    kinds.Kind("qcow2"),
    kinds.Kind("qcow2", {"extended_l2": "on"}),
    kinds.Kind("qcow2", {"cluster_size": "4096", "compat": "0.10"}, compressed=True),
    kinds.Kind("qcow2", {"compression_type": "zstd"}, compressed=True),
]
_MADE = [
    kinds.Kind(fmt, options)
    for fmt, options in [
        *((fmt, {}) for fmt in ("parallels", "qcow", "qed", "vdi", "vhdx", "vmdk", "vpc")),
        ("vpc", {"subformat": "fixed"}),
    ]
]


def _sample(seed: int) -> bytes:
    rng = np.random.default_rng(seed)
    content = bytearray(_SIZE)
    for start in rng.integers(0, _SIZE - 50_000, 40).tolist():
        content[start : start + 50_000] = rng.integers(0, 8, 50_000, np.uint8).tobytes()
    content[-100:] = b"e" * 100
    return bytes(content)


def _stored(content: bytes) -> tuple[repository.Repository, contents.Stored]:
    repo = repos.create()
    made = repos.commit(repo, ("vm", content))
    disk = made.commit.disks[0]
    return repo, contents.Stored("vm", repo.open_disk(disk), NullMonitor(), 2)


def _read(path: pathlib.Path, kind: kinds.Kind) -> bytes:
    file = raw.RawReader(path)
    reader = file if kind.format == "raw" else qcow2.Qcow2Reader(file, "x")
    content = bytearray(reader.size)
    reader.pread_into(0, memoryview(content))
    reader.close()
    return bytes(content)


@pytest.mark.parametrize("kind", _MADE, ids=str)
def test_a_disk_arrives_in_every_format(kind: kinds.Kind, seed: int, tmp_path: pathlib.Path) -> None:
    """As the test below, read by another reader."""
    sample = _sample(seed)
    _, stored = _stored(sample)
    image = contents.Read("vm", memory.MemoryDisk.of(sample), NullMonitor(), 2)
    sources: dict[str, contents.Content] = {"stored": stored, "image": image}
    for name, content in sources.items():
        _write(content, kind, tmp_path / name)
        assert made_images.content(kind.format, (tmp_path / name).read_bytes()) == sample


class _Changing(memory.MemoryDisk):
    """A disk of which one byte is another every time it is read."""

    flips = 5_000_000

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        super().pread_into(offset, buffer)
        if offset <= self.flips < offset + buffer.nbytes:
            self._bytes[self.flips] ^= 1


def _changing(content: bytes) -> _Changing:
    disk = _Changing(len(content))
    disk.pwrite(0, memoryview(content))
    disk.finish()
    return disk


def _write(content: contents.Content, kind: kinds.Kind, path: pathlib.Path, *, compare: bool = True) -> targets.Written:
    place = targets.Place(str(path), export.tag("test", kind, content.size))
    return targets.write(content, kind, place, targets.Effort(compare), NullMonitor())


@pytest.mark.parametrize("kind", _KINDS, ids=str)
def test_a_disk_arrives(kind: kinds.Kind, seed: int, tmp_path: pathlib.Path) -> None:
    """From a commit and from an image, the new image has the same bytes, and the stream of it too."""
    sample = _sample(seed)
    _, stored = _stored(sample)
    image = contents.Read("vm", memory.MemoryDisk.of(sample), NullMonitor(), 2)
    sources: dict[str, contents.Content] = {"stored": stored, "image": image}
    for name, content in sources.items():
        _write(content, kind, tmp_path / name)
        assert _read(tmp_path / name, kind) == sample
        if "preallocation" not in kind.options:
            parts: list[bytes] = []
            count = streams.write(content, kind, lambda view, parts=parts: parts.append(bytes(view)), 2, NullMonitor())  # type: ignore[misc]
            (tmp_path / "stream").write_bytes(b"".join(parts))
            assert count == (tmp_path / "stream").stat().st_size
            assert _read(tmp_path / "stream", kind) == sample


@pytest.mark.parametrize("kind", depth.of_run([*_KINDS, *_MADE], 8), ids=str)
def test_x9_a_source_that_reads_differently_gives_no_image(kind: kinds.Kind, seed: int, tmp_path: pathlib.Path) -> None:
    """One byte that is another at the second time: the comparison finds it, and nothing has the name."""
    sample = bytearray(_sample(seed))
    sample[_Changing.flips] = 1
    with pytest.raises(errors.IntegrityError):
        _write(contents.Read("vm", _changing(bytes(sample)), NullMonitor(), 1), kind, tmp_path / "new")
    assert not (tmp_path / "new").exists()
    _write(contents.Read("vm", _changing(bytes(sample)), NullMonitor(), 1), kind, tmp_path / "new", compare=False)
    assert (tmp_path / "new").exists()


@pytest.mark.parametrize("kind", depth.of_run([*_KINDS, *_MADE], 8), ids=str)
def test_x9_a_byte_that_is_lost_on_the_way_gives_no_image(
    kind: kinds.Kind, seed: int, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A write that stores something else is found before the image has its name."""
    _, content = _stored(_sample(seed))
    honest = raw.RawWriter.pwrite
    writes = itertools.count()

    def pwrite(self: raw.RawWriter, offset: int, data: memoryview) -> None:
        if data.nbytes > 600 and next(writes) == _EIGHTH:
            changed = bytearray(data)
            changed[data.nbytes // 2] ^= 1
            data = memoryview(changed)
        honest(self, offset, data)

    monkeypatch.setattr(raw.RawWriter, "pwrite", pwrite)
    with pytest.raises(errors.IntegrityError):
        _write(content, kind, tmp_path / "new")
    assert next(writes) > _EIGHTH
    assert not (tmp_path / "new").exists()
