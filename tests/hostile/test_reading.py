"""Rows that are about reading, in this process: cut files, sources that change, what is read how often."""

from __future__ import annotations

import contextlib
import functools
import os
import pathlib
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests import depth, needs, repos
from tests.fuzz import inputs
from tests.hostile import case, others, qcow2, rig, vbox_and_vpc, vhdx, vmdk
from tests.hostile.qcow2 import Spec, Squeezed
from vimgvc import errors
from vimgvc.disk import extents, protocol
from vimgvc.images import chain, cow, foreign, gates, raw, registry
from vimgvc.images import qcow2 as reading
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

K = 1024


class Bytes(inputs.Bytes):
    """A file in memory as a Source that counts what is read of it."""

    def __init__(self, data: bytes, *, allocated: int | None = None) -> None:
        super().__init__(data)
        self.allocated_bytes = self.size if allocated is None else allocated
        self.count = 0

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        super().pread_into(offset, buffer)
        self.count += buffer.nbytes


def _whole(reader: protocol.Reader, step: int = 1 << 20) -> bytes:
    data = bytearray(reader.size)
    for at in range(0, reader.size, step):
        reader.pread_into(at, memoryview(data)[at : at + step])
    return bytes(data)


def _small(**more: Any) -> qcow2.Built:
    clusters: dict[int, qcow2.Cluster] = {at: case.noise(at, 4 * K) for at in (0, 1, 4, 6)}
    clusters |= {2: case.noise(2, 4 * K), 9: Squeezed(case.text(1, 4 * K)), 10: Squeezed(case.text(2, 4 * K))}
    return qcow2.build(Spec(size=12 * 4 * K, bits=12, clusters=clusters, **more))


def _fragmented(bits: int, *, squeezed: bool) -> qcow2.Built:
    """Every cluster is allocated, and in the file they lie backwards."""
    cluster, count = 1 << bits, (32 << 20) >> bits
    kinds: dict[int, qcow2.Cluster] = {}
    for at in range(count):
        data = case.noise(at, 4096).ljust(cluster, b"x")
        kinds[at] = Squeezed(data) if squeezed else data
    built = qcow2.build(Spec(size=count * cluster, bits=bits, clusters=kinds))
    entries = np.frombuffer(built.data, ">u8", count, built.l2[0]).copy()
    parts = [built.content[at * cluster : (at + 1) * cluster] for at in range(count)]
    built.data[built.l2[0] : built.l2[0] + count * 8] = entries[::-1].tobytes()
    built.content = b"".join(reversed(parts))
    return built


# --- I16: damage is local ---------------------------------------------------------------------------


def test_i16_damage_is_local() -> None:
    """An entry that leads nowhere costs its own cluster; the error names the range, all else can be read."""
    built = qcow2.plain()
    built.entry(1, 1 << 40 | qcow2.COPIED)
    disk = reading.Qcow2Reader(Bytes(bytes(built.data)), "vm")
    for at in (0, 2, 3):
        piece = bytearray(65536)
        disk.pread_into(at * 65536, memoryview(piece))
        assert piece == built.content[at * 65536 : (at + 1) * 65536]
    with pytest.raises(errors.ImageDamaged, match="guest bytes 65537 to 65546"):
        disk.pread_into(65537, memoryview(bytearray(10)))


def test_i18_broken_stream_names_its_range() -> None:
    """A stream that cannot be decompressed is an error that names its place on the disk."""
    broken = Squeezed(b"", case.noise(1, 600))
    built = qcow2.build(Spec(clusters={1: broken, 2: case.noise(3, 65536)}))
    disk = reading.Qcow2Reader(Bytes(bytes(built.data)), "vm")
    with pytest.raises(errors.ImageDamaged, match="guest bytes 65536 to"):
        disk.pread_into(65536, memoryview(bytearray(512)))
    disk.pread_into(131072, memoryview(bytearray(65536)))


# --- I17, I35: what is read how often ----------------------------------------------------------------


def test_i17_one_stream_behind_a_million_clusters() -> None:
    """A stream that many clusters share is read and decompressed a few times, not once for each."""
    cluster = case.noise(11, 1 << 16)
    built = qcow2.build(Spec(clusters={0: Squeezed(cluster)})).set(size=512 << 20)
    squeezed = qcow2.compress(cluster)
    entry = qcow2.descriptor(built.where[0], len(squeezed), 16).to_bytes(8, "big")
    built.data[built.l2[0] : built.l2[0] + 65536] = entry * 8192
    source = Bytes(bytes(built.data))
    disk = reading.Qcow2Reader(source, "vm")
    buffer = bytearray(4 << 20)
    for at in range(0, 64 << 20, len(buffer)):
        disk.pread_into(at, memoryview(buffer))
        assert buffer == cluster * 64
    assert source.count < 4 << 20


@pytest.mark.slow
@pytest.mark.parametrize(("bits", "squeezed"), [(21, False), (21, True), (16, True), (12, False)])
def test_i35_small_reads_of_a_fragmented_image(bits: int, *, squeezed: bool) -> None:
    """Reading 4 KiB at a time reads the file no more than twice, however it is laid out."""
    built = _fragmented(bits, squeezed=squeezed)
    source = Bytes(bytes(built.data))
    disk = reading.Qcow2Reader(source, "vm")
    assert _whole(disk, 4096) == built.content
    assert source.count <= 2 * source.size + (1 << 20)


# --- I30: cut files ---------------------------------------------------------------------------------


def _cuts(length: int, seed: int) -> list[int]:
    rng = np.random.default_rng(seed)
    ends = {*range(0, min(length, 65536), 512), *(int(rng.integers(0, length)) for _ in range(100))}
    return depth.some(sorted(ends - {length}), 60, seed)


def _read_or_refuse(opened: Callable[[], protocol.Reader], content: bytes) -> bool:
    """Whether it could be read, which then must be right. Only typed errors get out."""
    try:
        with contextlib.closing(opened()) as reader:
            assert _whole(reader) == content
    except (errors.UnsafeImage, errors.IntegrityError, errors.Unsupported):
        return False
    return True


@pytest.mark.slow
@pytest.mark.parametrize("more", [{}, {"version": 2}, {"zstd": True}, {"snapshots": [("a", "1")]}])
def test_i30_cut_qcow2(more: dict[str, Any], seed: int) -> None:
    """A qcow2 that ends anywhere is refused or breaks while it is read; nothing missing reads as zeros."""
    built = _small(**more)
    data = bytes(built.data)

    def survives(end: int) -> bool:
        return _read_or_refuse(lambda: reading.Qcow2Reader(Bytes(data[:end]), "vm"), built.content)

    for end in _cuts(len(data), seed):
        survives(end)
    assert survives(len(data))
    assert not survives(max(built.where.values()))


def test_i30_cut_cow(seed: int) -> None:
    """As for qcow2."""
    data, content = bytes(others.cow()), others.cow_content()

    def survives(end: int) -> bool:
        return _read_or_refuse(lambda: cow.CowReader(Bytes(data[:end]), "vm"), content)

    for end in _cuts(len(data), seed):
        survives(end)
    assert survives(len(data))
    assert not survives(len(data) - 512)


_FOREIGN: dict[str, Callable[[], bytearray]] = {
    "vmdk": vmdk.sparse,
    "vdi": vbox_and_vpc.vdi,
    "vpc": vbox_and_vpc.vpc,
    "vhdx": vhdx.vhdx,
    "qed": others.qed,
    "qcow": others.qcow,
    "parallels": others.parallels,
    "cloop": others.cloop,
    "bochs": others.bochs,
    "dmg": others.dmg,
}


@pytest.mark.slow
@pytest.mark.parametrize("name", [*_FOREIGN, "stream"])
def test_i30_cut_headers(name: str, seed: int) -> None:
    """A gate refuses what is cut in its header or tables, with a typed error; the whole image passes."""
    data = bytes(vmdk.stream() if name == "stream" else _FOREIGN[name]())
    form = "vmdk" if name == "stream" else name
    passed = []
    for end in _cuts(len(data), seed):
        try:
            gates.check(form, Bytes(data[:end]), "vm")
            passed.append(end)
        except (errors.UnsafeImage, errors.IntegrityError, errors.Unsupported):
            pass
    assert not [end for end in passed if end < 512]
    gates.check(form, Bytes(data), "vm")


@pytest.mark.slow
@pytest.mark.parametrize("name", list(_FOREIGN))
def test_i30_cut_images_of_qemu(name: str, seed: int, tmp_path: pathlib.Path) -> None:
    """What qemu reads of an image that was cut anywhere is refused, breaks, or is right: never zeros instead."""
    needs.require_tool("qemu-nbd", "qemu-utils")
    data = bytes(_FOREIGN[name]())
    rng = np.random.default_rng(seed)
    whole = tmp_path / "whole"
    whole.write_bytes(data)
    with contextlib.closing(registry.open_image(whole).reader) as reader:
        content = _whole(reader)
    path = tmp_path / "cut"
    for end in [len(data) - 512, *(int(rng.integers(len(data) // 4, len(data))) for _ in range(4))]:
        path.write_bytes(data[:end])

        def opened() -> protocol.Reader:
            return registry.open_image(path, registry.Access(name)).reader

        _read_or_refuse(opened, content)


# --- I31, I32: sources that change or fail -----------------------------------------------------------


class Meddler:
    """A disk whose file `meddle` changes when it is read for the first time."""

    def __init__(self, inner: protocol.Source, meddle: Callable[[], object]) -> None:
        self._inner, self._meddle, self._done = inner, meddle, False
        self.size, self.allocated_bytes = inner.size, inner.allocated_bytes
        self.extents, self.check_unchanged, self.close = inner.extents, inner.check_unchanged, inner.close

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        self._inner.pread_into(offset, buffer)
        if not self._done:
            self._done = True
            self._meddle()


def _images(folder: pathlib.Path) -> dict[str, tuple[registry.Opened, pathlib.Path]]:
    """By name: an opened disk, and a file of it that is going to change."""
    base = case.noise(9, 4 * 65536)
    (folder / "base").write_bytes(base)
    over = qcow2.build(
        Spec(clusters={0: case.noise(1, 65536)}, backing=b"base", backing_format=b"raw", below=base, version=3)
    )
    (folder / "over").write_bytes(over.data)
    (folder / "plain").write_bytes(qcow2.plain().data)
    outside = qcow2.build(Spec(clusters={0: case.noise(1, 65536)}, data_file=True))
    (folder / "split").write_bytes(outside.data)
    (folder / "data").write_bytes(outside.outside)
    (folder / "flat").write_bytes(vmdk.text("monolithicFlat", [f'RW {vmdk.SIZE // 512} FLAT "extent" 0']))
    (folder / "extent").write_bytes(vmdk.CONTENT)
    (folder / "raw").write_bytes(base)
    (folder / "vdi").write_bytes(vbox_and_vpc.vdi())
    rooted = registry.Access(chain_roots=(str(folder),))
    outer = registry.Access(data_file=str(folder / "data"))
    return {
        "raw": (registry.open_image(folder / "raw"), folder / "raw"),
        "qcow2": (registry.open_image(folder / "plain"), folder / "plain"),
        "backing file": (registry.open_image(folder / "over", rooted), folder / "base"),
        "data file": (registry.open_image(folder / "split", outer), folder / "data"),
        "extent": (registry.open_image(folder / "flat"), folder / "extent"),
        "vdi": (registry.open_image(folder / "vdi"), folder / "vdi"),
    }


_CHANGES: dict[str, Callable[[pathlib.Path], object]] = {
    "grows": lambda path: os.truncate(path, path.stat().st_size + 4096),
    "shrinks": lambda path: os.truncate(path, path.stat().st_size - 1),
    "is touched": lambda path: os.utime(path, ns=(1, 1)),
}


@pytest.mark.slow
@pytest.mark.parametrize("change", list(_CHANGES))
def test_i31_source_changes(change: str, tmp_path: pathlib.Path) -> None:
    """A commit of an image of which any file changes meanwhile fails, and publishes nothing."""
    needs.require_tool("qemu-nbd", "qemu-utils")
    repo = repos.create()
    for name, (opened, path) in _images(tmp_path).items():
        meddling = Meddler(opened.reader, functools.partial(_CHANGES[change], path))
        request = repository.CommitRequest("main", name, "tester", "here", allow_empty=False)
        with pytest.raises(errors.VimgvcError):
            repo.commit([ingest.Source("disk", meddling, opened.container)], request)
        opened.reader.close()
    assert not repo.branches()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["plain", "over", "split", "flat"])
def test_i32_read_errors(name: str, tmp_path: pathlib.Path) -> None:
    """A disk that answers with EIO ends a commit, from the middle of an image too; nothing is published."""
    strace = needs.require_tool("strace", "strace")
    for opened, _path in _images(tmp_path).values():
        opened.reader.close()
    work = tmp_path / "work"
    work.mkdir()
    (work / "key").write_bytes(os.urandom(32))
    (work / "key").chmod(0o600)
    program = [sys.executable, "-m", "vimgvc"]
    env = {**os.environ, "PYTHONPATH": str(rig.ROOT), "HOME": str(work)}
    subprocess.run([*program, "init", "repo", "--key-file", "key", "--remember", "-q"], cwd=work, env=env, check=True)
    failing = {"over": "base", "split": "data", "flat": "extent"}.get(name, name)
    options = {"over": ["--allow-chain"], "split": ["--data-file", str(tmp_path / "data")]}.get(name, [])
    first = 1 if failing != name else 4
    watch = [strace, "-f", "-o", str(work / "calls"), "-P", str(tmp_path / failing), "-e", "trace=/^preadv|^pread64"]
    watch += ["-e", f"inject=/^preadv:error=EIO:when={first}+"]
    commit = ["commit", "--repo", "repo", str(tmp_path / name), "--author", "t", *options]
    done = subprocess.run([*watch, *program, *commit], cwd=work, env=env, capture_output=True, text=True, check=False)
    assert "INJECTED" in (work / "calls").read_text()
    assert done.returncode in (1, 20), done.stderr
    assert "error" in done.stderr
    log = subprocess.run([*program, "log", "--repo", "repo"], cwd=work, env=env, capture_output=True, check=False)
    assert b"commit " not in log.stdout


# --- I33, I34 ---------------------------------------------------------------------------------------


def test_i33_holes_of_the_file_are_not_holes_of_the_disk(tmp_path: pathlib.Path) -> None:
    """What the tables call data is data, also where the file has a hole; it reads as the zeros that are there."""
    built = qcow2.build(Spec(clusters={1: bytes(65536), 2: case.noise(1, 65536)}))
    path = tmp_path / "vm"
    with path.open("wb") as file:
        file.truncate(len(built.data))
        file.write(built.data[: built.where[1]])
        file.seek(built.where[2])
        file.write(built.data[built.where[2] :])
    disk = registry.open_image(path).reader
    assert _whole(disk) == built.content
    found = [(item.start, item.length, item.kind) for item in disk.extents(0, disk.size)]
    assert found[1] == (65536, 131072, extents.Kind.DATA)
    disk.close()


def test_i34_swapped_after_it_was_judged(tmp_path: pathlib.Path) -> None:
    """What was judged is what is read: a file that takes the name afterwards is never opened."""
    needs.require_tool("qemu-nbd", "qemu-utils")
    path, other = tmp_path / "vm", tmp_path / "other"
    path.write_bytes(vbox_and_vpc.vdi())
    other.write_bytes(vbox_and_vpc.vdi(size=2 << 20, blocks=2, allocated=2)[:-4096] + b"evil" * 1024)
    file = raw.RawReader(path)
    facts = gates.check("vdi", file, "vm")
    other.replace(path)
    disk = foreign.open_foreign(file, "vdi", facts)
    assert _whole(disk) == vbox_and_vpc.CONTENT
    disk.close()
    path.unlink()
    path.write_bytes(qcow2.plain().data)
    opened = registry.open_image(path)
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert _whole(opened.reader) == qcow2.plain().content
    opened.reader.close()


def test_i34_backing_file_becomes_a_symlink(tmp_path: pathlib.Path) -> None:
    """A backing name is walked without symbolic links, so one that appears while it is walked is refused."""
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "base").write_bytes(bytes(4096))
    chain.open_below([str(tmp_path)], str(tmp_path), b"sub/base", "vm").close()
    shutil.rmtree(tmp_path / "sub")
    (tmp_path / "sub").symlink_to("/etc")
    with pytest.raises(errors.UnsafeImage, match=re.escape("symbolic link")):
        chain.open_below([str(tmp_path)], str(tmp_path), b"sub/passwd", "vm")
