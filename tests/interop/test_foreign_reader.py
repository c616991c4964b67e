"""Reading through qemu: equal to what qemu reads by itself, confined, and honest about what it cannot read."""

from __future__ import annotations

import errno
import itertools
import json
import os
import pathlib
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import zlib

import pytest

from tests import children, depth, foreign_images, gate_images, needs, programs
from tests.suites import reader
from vimgvc import errors
from vimgvc.commands import images, info
from vimgvc.disk import extents, protocol
from vimgvc.images import access, foreign, foreign_options, gates, qemu, raw, registry

pytestmark = pytest.mark.slow

_SIZE = (37 << 20) + 3 * 512
_READS = 1000 if depth.ALL else 300


@pytest.fixture(autouse=True)
def _temporary(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder of temporary files of its own for every test, so that what is left shows."""
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path_factory.mktemp("temporary")))


def _left() -> list[str]:
    return children.left_in(pathlib.Path(tempfile.gettempdir()))


def _open(path: pathlib.Path, fmt: str, secret: pathlib.Path | None = None) -> protocol.Source:
    how = access.Access(declared=fmt, secret_file=None if secret is None else str(secret))
    return registry.open_image(path, how).reader


def _foreign(path: pathlib.Path, fmt: str) -> foreign.ForeignReader:
    file = raw.RawReader(path)
    found = foreign.open_foreign(file, fmt, gates.check(fmt, file, file.path))
    assert isinstance(found, foreign.ForeignReader)
    return found


def _program(source: foreign.ForeignReader) -> int:
    found = children.program_of(children.guard_of(source._child))
    assert found is not None
    return found


def _raw(content: bytes, holes: tuple[extents.Extent, ...], path: pathlib.Path) -> None:
    with path.open("wb") as file:
        for item in extents.cover(holes, 0, len(content), extents.Kind.DATA):
            if item.kind is extents.Kind.DATA:
                file.seek(item.start)
                file.write(content[item.start : item.end])
        file.truncate(len(content))


class TestVdi(reader.ReaderSuite):
    """A vdi image through qemu."""

    fmt = "vdi"
    sector = 512
    hole_grid = 1 << 20

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        _raw(sample.content, sample.holes, folder / "plain")
        foreign_images.Maker((self.fmt, {}), folder).convert(folder / "plain", folder / "disk")
        return _foreign(folder / "disk", self.fmt)


class TestQed(TestVdi):
    """A qed image through qemu."""

    fmt = "qed"
    hole_grid = 65536


@pytest.mark.parametrize(
    "layout",
    # of ciphers, others are read in test_foreign_target
    depth.of_run((layout for layout in foreign_images.LAYOUTS if "cipher-alg" not in layout[1]), 14),
    ids=foreign_images.identify,
)
def test_reads_as_qemu_reads(layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path) -> None:
    """Written in shuffled order by qemu-io: random unaligned reads are those of qemu-img's raw copy."""
    maker, path, copy = foreign_images.Maker(layout, tmp_path), tmp_path / "disk", tmp_path / "copy"
    if maker.writable:
        maker.create(path, _SIZE)
        maker.write(path, foreign_images.writes(_SIZE, seed))
    else:
        plain = foreign_images.Maker(("raw", {}), tmp_path)
        plain.create(tmp_path / "plain", _SIZE)
        plain.write(tmp_path / "plain", foreign_images.writes(_SIZE, seed))
        maker.convert(tmp_path / "plain", path)
    maker.to_raw(path, copy)
    expected = copy.read_bytes()
    source = _open(path, maker.fmt, maker.secret)
    assert source.size == len(expected)
    for offset, length in reader.ranges(source.size, seed, _READS):
        assert reader.read(source.pread_into, offset, length) == expected[offset : offset + length]
    for item in source.extents(0, source.size):
        assert item.kind is extents.Kind.DATA or not expected[item.start : item.end].strip(b"\0")
    source.check_unchanged()
    source.close()
    assert _left() == []


@pytest.mark.parametrize(
    "layout",
    depth.of_run(
        (
            layout
            for layout in foreign_images.LAYOUTS
            if layout[0] not in ("luks", "qcow2", "vhdx")  # of vhdx qemu-img maps everything as data
            and layout[1].get("subformat") not in ("fixed", *foreign_options.SPLIT)
        ),
        8,
    ),
    ids=foreign_images.identify,
)
def test_info_tells_what_qemu_maps(layout: tuple[str, dict[str, str]], seed: int, tmp_path: pathlib.Path) -> None:
    """The amount of data that `info` tells is what qemu-img map finds allocated, without reading any of it."""
    maker, path, plain = foreign_images.Maker(layout, tmp_path), tmp_path / "disk", tmp_path / "plain"
    raw_maker = foreign_images.Maker(("raw", {}), tmp_path)
    raw_maker.create(plain, _SIZE)
    raw_maker.write(plain, foreign_images.writes(_SIZE, seed))
    maker.convert(plain, path)
    mapped = json.loads(programs.qemu_img("map", "-f", maker.fmt, "--output=json", path))
    held = sum(item["length"] for item in mapped if item["data"])
    found = info.run(str(path), images.access(maker.fmt))
    assert found.data_bytes is not None
    assert found.cluster_size is not None
    assert 0 <= found.data_bytes - held < found.cluster_size  # whole units, also the last one


@pytest.mark.parametrize("fmt", ["bochs", "dmg", "parallels", "qcow", "qed", "vdi", "vhdx", "vpc"])
def test_images_packed_by_hand(fmt: str, tmp_path: pathlib.Path) -> None:
    """Also what qemu-img does not make is read, and as qemu-img reads it."""
    path, copy = tmp_path / "disk", tmp_path / "copy"
    path.write_bytes(gate_images.GOOD[fmt][0]())
    if fmt == "dmg" and "dmg" not in programs.qemu_img("--help").split():
        pytest.skip("qemu-img was built without dmg; it is in: apt-get install qemu-block-extra")
    foreign_images.Maker((fmt, {}), tmp_path).to_raw(path, copy)
    source = _open(path, fmt)
    assert reader.read(source.pread_into, 0, source.size) == copy.read_bytes()[: source.size]
    source.close()


def test_cloop(seed: int, tmp_path: pathlib.Path) -> None:
    """A cloop image is read; a block that cannot be decompressed is damage with its place."""
    content, path = reader.make_sample(5 * 65536, seed).content, tmp_path / "disk"
    blocks = [zlib.compress(content[start : start + 65536]) for start in range(0, len(content), 65536)]
    ends = list(itertools.accumulate([len(block) for block in blocks], initial=136 + 8 * (len(blocks) + 1)))
    head = b"#!/bin/sh\n#V2.0 Format\n".ljust(128, b"\0") + struct.pack(f">II{len(ends)}Q", 65536, len(blocks), *ends)
    path.write_bytes(head + b"".join(blocks))
    source = _open(path, "cloop")
    assert source.size == len(content)
    for offset, length in reader.ranges(source.size, seed, 100):
        assert reader.read(source.pread_into, offset, length) == content[offset : offset + length]
    source.close()
    path.write_bytes(head + b"".join([*blocks[:2], bytes(len(blocks[2])), *blocks[3:]]))
    source = _open(path, "cloop")
    assert reader.read(source.pread_into, 65536, 65536) == content[65536:131_072]
    with pytest.raises(errors.ImageDamaged, match="131072"):
        reader.read(source.pread_into, 131_072, 10)
    source.close()


@pytest.mark.parametrize("fmt", ["vmdk", "vhdx", "qed"])
def test_part_of_a_file(fmt: str, seed: int, tmp_path: pathlib.Path) -> None:
    """An image that is a part of a file is read like the image by itself; what is around it is never seen."""
    sample = reader.make_sample(3 << 20, seed)
    _raw(sample.content, sample.holes, tmp_path / "plain")
    path, archive = tmp_path / "disk", tmp_path / "archive"
    foreign_images.Maker((fmt, {}), tmp_path).convert(tmp_path / "plain", path)
    image = path.read_bytes()
    archive.write_bytes(b"\xee" * 1536 + image + b"\xee" * 70_000)
    whole = raw.RawReader(path)
    facts = gates.check(fmt, whole, "disk")
    whole.close()
    source = foreign.open_foreign(raw.RawReader(archive), fmt, facts, offset=1536, length=len(image))
    assert source.size == len(sample.content)
    for offset, length in reader.ranges(source.size, seed, 100):
        assert reader.read(source.pread_into, offset, length) == sample.content[offset : offset + length]
    source.close()


def test_old_encryption(seed: int, tmp_path: pathlib.Path) -> None:
    """A qcow2 image with the old AES encryption, which qemu-img only reads, is read with its passphrase."""
    maker, path = foreign_images.Maker(("qcow2", {"encrypt.format": "aes"}), tmp_path), tmp_path / "disk"
    try:
        maker.create(path, 1 << 20)
    except AssertionError as error:
        pytest.skip(f"this qemu-img does not make such images: {error}")
    source = _open(path, "qcow2", maker.secret)
    assert reader.read(source.pread_into, 0, source.size) == bytes(1 << 20)
    source.close()


def test_passphrases(tmp_path: pathlib.Path) -> None:
    """No passphrase: refused (I20). A wrong one, or one with a line feed too many: exit 12. No such file: not found."""
    maker, path = foreign_images.Maker(("luks", {}), tmp_path), tmp_path / "disk"
    maker.create(path, 1 << 20)
    assert maker.secret is not None
    with pytest.raises(errors.UnsafeImage, match="encrypted"):
        _open(path, "luks")
    wrong = tmp_path / "wrong"
    for content in (b"", b"wrong", foreign_images.PASSPHRASE + b"\n"):
        wrong.write_bytes(content)
        with pytest.raises(errors.NoKey):
            _open(path, "luks", wrong)
    wrong.write_bytes(b"x" * 65537)
    with pytest.raises(errors.UsageError, match="65536"):
        _open(path, "luks", wrong)
    with pytest.raises(errors.NotFound):
        _open(path, "luks", tmp_path / "none")
    assert _left() == []


def test_i34_the_judged_file_is_read(seed: int, tmp_path: pathlib.Path) -> None:
    """Row I34: after the opening a name may lead anywhere; qemu reads the file that was judged."""
    sample = reader.make_sample(1 << 20, seed)
    path, other = tmp_path / "disk", tmp_path / "other"
    maker = foreign_images.Maker(("vdi", {}), tmp_path)
    _raw(sample.content, (), tmp_path / "plain")
    maker.convert(tmp_path / "plain", path)
    maker.create(other, 2 << 20)
    file = raw.RawReader(path)
    facts = gates.check("vdi", file, file.path)
    other.rename(path)
    source = foreign.open_foreign(file, "vdi", facts)
    assert reader.read(source.pread_into, 0, source.size) == sample.content
    with pytest.raises(errors.VimgvcError, match="changed"):
        source.check_unchanged()  # it has one name less
    source.close()


_SYSTEM = (
    *("/usr/", "/lib/", "/lib64/", "/etc/ld.so.cache", "/sys/devices/system/", "/dev/null", "/dev/urandom"),
    *("/etc/gnutls", "/etc/ssl", "/etc/crypto-policies", "/proc/sys/crypto", "/proc/self/fd/"),
)
_TRACED = """
import sys
from vimgvc.images import access, registry
opened = registry.open_image(sys.argv[1], access.Access(declared=sys.argv[2]))
buffer = bytearray(opened.reader.size)
opened.reader.pread_into(0, memoryview(buffer))
opened.reader.close()
"""


@pytest.mark.parametrize("fmt", ["vpc", "vdi", "vhdx"])
def test_i3_i4_what_a_child_opens(fmt: str, tmp_path: pathlib.Path) -> None:
    """Rows I3, I4: from its start on the program opens the passed file, what the system installed, and no socket."""
    strace = needs.require_tool("strace", "strace")
    path, log = tmp_path / "disk", tmp_path / "log"
    foreign_images.Maker((fmt, {}), tmp_path).create(path, 8 << 20)
    calls = "trace=execve,open,openat,openat2,creat,socket,connect,bind,unlink,unlinkat,rename,mkdir"
    traced = [sys.executable, "-c", _TRACED, str(path), fmt]
    subprocess.run([strace, "-f", "-s", "4096", "-e", calls, "-o", log, *traced], check=True)
    lines = [line.split(maxsplit=1) for line in log.read_text().splitlines()]
    servers = {pid for pid, call in lines if "qemu-nbd" in call and "--persistent" in call and "execve(" in call}
    servers -= {pid for pid, call in lines if "execve(" in call and "sandbox_child.py" in call}
    assert len(servers) == 1
    mine = [call for pid, call in lines if pid in servers]
    start = next(number for number, call in enumerate(mine) if "--persistent" in call)
    for call in mine[start + 1 :]:
        if call.startswith(("open", "creat")) and " = -1 " not in call:
            assert call.split('"')[1].startswith(_SYSTEM), call
        assert not call.startswith(("socket", "connect", "bind", "unlink", "rename", "mkdir", "execve")), call
    assert sum("/proc/self/fd/" in call for call in mine[start + 1 :]) == 1


def test_x9_a_child_that_is_killed_while_reading(tmp_path: pathlib.Path) -> None:
    """Row X9, reading: when qemu-nbd is killed the next read says so; closing leaves nothing."""
    path = tmp_path / "disk"
    foreign_images.Maker(("vdi", {"static": "on"}), tmp_path).create(path, 8 << 20)
    source = _foreign(path, "vdi")
    os.kill(_program(source), signal.SIGKILL)
    with pytest.raises(errors.VimgvcError, match="SIGKILL"):
        reader.read(source.pread_into, 0, source.size)
    with pytest.raises(errors.VimgvcError, match="SIGKILL"):
        list(source.extents(0, source.size))
    source.close()
    assert _left() == []


def test_a_child_that_cannot_read_says_where(tmp_path: pathlib.Path) -> None:
    """What qemu cannot decompress is damage with its place, and never zeros; the rest is read."""
    maker, path = foreign_images.Maker(("vmdk", {"subformat": "streamOptimized"}), tmp_path), tmp_path / "disk"
    content = os.urandom(65536) * 4
    (tmp_path / "plain").write_bytes(content)
    maker.convert(tmp_path / "plain", path)
    image = bytearray(path.read_bytes())
    third = image.index(b"x\x9c", image.index(b"x\x9c", image.index(b"x\x9c") + 65536) + 65536)
    image[third + 100 : third + 30_000] = bytes(29_900)
    path.write_bytes(image)
    source = _foreign(path, "vmdk")
    assert reader.read(source.pread_into, 0, 131_072) == content[:131_072]
    with pytest.raises(errors.ImageDamaged) as caught:
        reader.read(source.pread_into, 131_072, 65536)
    assert "131072" in caught.value.message
    assert reader.read(source.pread_into, 196_608, 65536) == content[196_608:]
    source.close()


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("exec sleep 1000", errors.UnsafeImage, "does not answer"),
        ("while :; do :; done", errors.UnsafeImage, "does not answer"),
        ("exit 0", errors.UnsafeImage, "status 0"),
        ("echo 'qemu-nbd: what is this' >&2; exit 1", errors.UnsafeImage, "what is this"),
        ("kill -11 $$", errors.VimgvcError, "SIGSEGV"),
    ],
)
def test_a_child_that_does_not_serve(
    body: str, kind: type[errors.VimgvcError], says: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A program that hangs, ends or dies instead of opening the image is refused within the time it has."""
    path, fake = tmp_path / "disk", tmp_path / "bin" / "qemu-nbd"
    foreign_images.Maker(("vdi", {}), tmp_path).create(path, 8 << 20)
    fake.parent.mkdir()
    fake.write_text(f'#!/bin/sh\n[ "$1" = --version ] && exec echo "qemu-nbd 9.1.0"\n{body}\n')
    fake.chmod(0o755)
    monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
    if "answer" in says:
        qemu.available()
        monkeypatch.setattr(qemu, "OPENING", 1.0)
    file = raw.RawReader(path)
    with pytest.raises(kind, match=says) as caught:
        foreign.open_foreign(file, "vdi", gates.check("vdi", file, "disk"))
    assert type(caught.value) is kind
    file.close()
    assert _left() == []


def test_an_image_in_use_is_refused(tmp_path: pathlib.Path) -> None:
    """An image that a machine has open for writing is busy: its tables change under whoever reads it."""
    path, nbd = tmp_path / "disk", needs.require_tool("qemu-nbd", "qemu-utils")
    foreign_images.Maker(("vdi", {}), tmp_path).create(path, 8 << 20)
    machine = subprocess.Popen([nbd, "-t", "-f", "vdi", "-k", tmp_path / "socket", path])
    try:
        _until_listening(tmp_path / "socket", machine)
        with pytest.raises(errors.Busy, match="in use"):
            _foreign(path, "vdi").close()
    finally:
        machine.terminate()
        machine.wait()
    assert _left() == []


def _until_listening(path: pathlib.Path, machine: subprocess.Popen[bytes]) -> None:
    while machine.poll() is None:
        with socket.socket(socket.AF_UNIX) as connection:
            if connection.connect_ex(str(path)) in (0, errno.EAGAIN):
                return


def test_a_header_and_qemu_must_agree_on_the_size(tmp_path: pathlib.Path) -> None:
    """If qemu sees another disk than the gate did the image is refused, and nothing is left running."""
    path = tmp_path / "disk"
    foreign_images.Maker(("vdi", {}), tmp_path).create(path, 8 << 20)
    file = raw.RawReader(path)
    for told in ((8 << 20) - 512, (8 << 20) + 1, 4 << 20):
        with pytest.raises(errors.UnsafeImage, match=str(told)):
            foreign.open_foreign(file, "vdi", gates.Facts("vdi", told, {}))
    source = foreign.open_foreign(file, "vdi", gates.Facts("vdi", (8 << 20) - 5, {}))
    assert source.size == (8 << 20) - 5
    source.close()
    assert _left() == []


def test_what_qemu_refuses_is_refused(tmp_path: pathlib.Path) -> None:
    """An image that only qemu finds wrong is refused with its reason, without the graph in it."""
    path = tmp_path / "disk"
    path.write_bytes(os.urandom(1 << 20))
    file = raw.RawReader(path)
    with pytest.raises(errors.UnsafeImage) as caught:
        foreign.open_foreign(file, "vdi", gates.Facts("vdi", 1 << 20, {}))
    assert "json:" not in caught.value.message
    assert str(path) in caught.value.message
    file.close()
    assert _left() == []


def test_devices_are_read(tmp_path: pathlib.Path, seed: int) -> None:
    """An image that lies on a block device is read from there."""
    losetup = needs.require_loop()
    sample = reader.make_sample(1 << 20, seed)
    _raw(sample.content, (), tmp_path / "plain")
    foreign_images.Maker(("vmdk", {}), tmp_path).convert(tmp_path / "plain", tmp_path / "disk")
    os.truncate(tmp_path / "disk", (tmp_path / "disk").stat().st_size + 4095 & ~4095)
    device = programs.run(losetup, "--find", "--show", "--read-only", tmp_path / "disk").strip()
    try:
        source = _foreign(pathlib.Path(device), "vmdk")
        assert reader.read(source.pread_into, 0, source.size) == sample.content
        source.close()
    finally:
        subprocess.run([losetup, "--detach", device], check=True)
