"""OVA: archives, descriptors and manifests, good and bad; disks where they lie; what is written is read back."""

from __future__ import annotations

import hashlib
import io
import os
import pathlib
import tarfile
from xml.etree import ElementTree as ET

import numpy as np
import pytest

from tests import ova_images, vmdk_images
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents, memory, protocol
from vimgvc.images import detect, ova, ova_disks, ovf, pieces, raw, tar

_DISK = bytes(range(256)) * 256
_IMAGE = vmdk_images.stream(_DISK)


def _parse(image: bytes) -> ova.Ova:
    return ova.parse_ova(memory.MemoryDisk.of(image), "image")


def _files(*members: bytes) -> bytes:
    return b"".join(members) + bytes(1024)


def test_what_is_inside() -> None:
    """Descriptor, digests, and disks with id, format, size and place are found, in the descriptor's order."""
    text = ova_images.envelope(
        [ova_images.file_of("two.vmdk", 2, f'ovf:size="{len(_IMAGE)}"'), ova_images.file_of("./one%20x.img", 1)],
        [
            ova_images.disk_of(len(_DISK), 2),
            ova_images.disk_of(1, 1, 'ovf:capacityAllocationUnits="byte * 2^20"'),
            'ovf:diskId="empty" ovf:capacity="5" ovf:capacityAllocationUnits="GigaBytes"',
        ],
    )
    image = ova_images.ova({"one x.img": _DISK, "two.vmdk": _IMAGE, "vm.cert": b"c"}, 0, text=text)
    file = memory.MemoryDisk.of(image)
    found = ova.parse_ova(file, "image")
    assert found.descriptor == text
    assert found.systems == ("vm",)
    assert found.certificate == b"c"
    assert [(item.id, item.name, item.format, item.capacity) for item in found.disks] == [
        ("disk2", "two", "vmdk", len(_DISK)),
        ("disk1", "one x", None, 1 << 20),
        ("empty", "empty", None, 5 << 30),
    ]
    assert [item.name for item in found.members] == ["vm.ovf", "vm.mf", "one x.img", "two.vmdk", "vm.cert"]
    member = found.disks[0].member
    assert member is not None
    part = ova.slice_of(file, member)
    assert reader.read(part.pread_into, 0, part.size) == _IMAGE
    assert all(ova.check_digest(file, found, member, "image") for member in found.members if member.name != "vm.mf")
    assert detect.detect_reader(file, "image") == "ova"


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_archives_of_other_programs(layout: int) -> None:
    """Archives as the usual libraries write them are read, with long names, and names that are not ASCII."""
    long = "x" * (90 if layout == tarfile.USTAR_FORMAT else 200) + "-\N{LATIN SMALL LETTER E WITH ACUTE}.vmdk"
    text = ova_images.envelope([ova_images.file_of(long)], [ova_images.disk_of(len(_DISK))])
    room = io.BytesIO()
    with tarfile.open(fileobj=room, mode="w", format=layout) as archive:
        for name, data in {"vm.ovf": text, long: _IMAGE}.items():
            info = tarfile.TarInfo(name)
            info.size, info.mtime = len(data), 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    found = _parse(room.getvalue())
    assert [item.name for item in found.members] == ["vm.ovf", long]
    assert found.disks[0].member == found.members[1]


def test_sizes_above_8_gib() -> None:
    """GNU's binary size and pax's decimal one are both read, and what we write for such a file is read by tarfile."""
    size = 9 << 30
    binary = ova_images.block(b"big", 0, size_field=b"\x80" + size.to_bytes(11, "big"))
    decimal = ova_images.pax({"size": str(size), "mtime": "1.5"}) + ova_images.block(b"big", 0)
    for head in (binary, decimal, tar.header("big", size)):
        disk = _Large.of(head)
        assert tar.members(disk, "image") == (tar.Member("big", len(head), size),)
        assert tarfile.TarInfo.frombuf(tar.header("big", size), "utf-8", "strict").size == size


class _Large(memory.MemoryDisk):
    """What was given, then zeros up to 10 GiB."""

    @property
    def size(self) -> int:
        return 10 << 30

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = self.content()[offset : offset + buffer.nbytes].ljust(buffer.nbytes, b"\0")


_OVF = ova_images.member("vm.ovf", ova_images.envelope([], []))
_TAR = {
    "empty": (errors.ImageDamaged, b""),
    "zeros": (errors.UnsafeImage, bytes(1024)),
    "first": (errors.UnsafeImage, _files(ova_images.member("a.vmdk", b""), _OVF)),
    "no_end": (errors.ImageDamaged, _OVF),
    "checksum": (errors.UnsafeImage, _files(ova_images.block(b"vm.ovf", 0, checksum=1))),
    "beyond": (errors.ImageDamaged, _files(_OVF, ova_images.block(b"a", 1 << 32))),
    "size": (errors.UnsafeImage, _files(_OVF, ova_images.block(b"a", 0, size_field=b"-1".ljust(12)))),
    "size_binary": (errors.UnsafeImage, _files(_OVF, ova_images.block(b"a", 0, size_field=b"\x80" + b"\xff" * 11))),
    "size_negative": (errors.UnsafeImage, _files(_OVF, ova_images.block(b"a", 0, size_field=b"\xff" * 12))),
    "twice": (errors.UnsafeImage, _files(_OVF, _OVF)),
    "twice_dot": (errors.UnsafeImage, _files(_OVF, ova_images.member("./vm.ovf", b""))),
    "path": (errors.UnsafeImage, _files(_OVF, ova_images.member("a/b", b""))),
    "path_up": (errors.UnsafeImage, _files(_OVF, ova_images.member("../b", b""))),
    "path_root": (errors.UnsafeImage, _files(_OVF, ova_images.member("/etc/shadow", b""))),
    "name_none": (errors.UnsafeImage, _files(_OVF, ova_images.member("", b""))),
    "name_bytes": (errors.UnsafeImage, _files(_OVF, ova_images.block(b"\xff\xfe", 0))),
    "name_control": (errors.UnsafeImage, _files(_OVF, ova_images.member("a\x1b[31m", b""))),
    "name_long": (errors.UnsafeImage, _files(_OVF, ova_images.pax({"path": "x" * 256}), ova_images.member("a", b""))),
    "link": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", b"", b"2"))),
    "hard_link": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", b"", b"1"))),
    "device": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", b"", b"4"))),
    "folder": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", b"", b"5"))),
    "sparse": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", b"", b"S"))),
    "extension_long": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", bytes(65537), b"x"))),
    "extension_junk": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", b"7 path\n", b"x"))),
    "extension_size": (errors.UnsafeImage, _files(_OVF, ova_images.pax({"size": "-1"}), ova_images.member("a", b""))),
    "extension_beyond": (errors.UnsafeImage, _files(_OVF, ova_images.member("a", b"99 path=x\n", b"x"))),
    "many": (errors.UnsafeImage, _files(_OVF, *[ova_images.member(f"a{n}", b"") for n in range(1024)])),
}


@pytest.mark.parametrize(("wanted", "image"), _TAR.values(), ids=_TAR)
def test_bad_archives(wanted: type[errors.VimgvcError], image: bytes) -> None:
    """An archive that holds anything but plain files with plain names, or that is cut short, is refused."""
    with pytest.raises(wanted):
        _parse(image)


def _described(files: list[str], disks: list[str], *, more: str = "", head: str = "") -> bytes:
    return ova_images.envelope(files, disks, more=more, head=head)


_FILE, _ONE = ova_images.file_of("a.vmdk"), ova_images.disk_of(1)
_ENTITY = '<!DOCTYPE x [<!ENTITY a "b">]>'
_BOMB = '<!DOCTYPE x [<!ENTITY a "aaaa"><!ENTITY b "&a;&a;&a;&a;">]>'
_XML = {
    "none": b"",
    "text": b"hello",
    "cut": _described([_FILE], [_ONE])[:-5],
    "entity": _described([_FILE], [_ONE], head=_ENTITY),
    "bomb": _described([_FILE], [_ONE], head=_BOMB, more="<x>&b;</x>"),
    "external": _described([_FILE], [_ONE], head='<!DOCTYPE x SYSTEM "file:///etc/shadow">'),
    "encoding": b'<?xml version="1.0" encoding="ebcdic-cp-be"?><a/>',
    "deep": _described([], [], more="<a>" * 65 + "</a>" * 65),
    "elements": _described([], [], more="<a/>" * 100_001),
    "long": _described([], [], more=" " * (4 << 20)),
    "disks": _described([_FILE], [f'ovf:diskId="d{n}"' for n in range(257)]),
    "href_scheme": _described([ova_images.file_of("http://host/a.vmdk")], [_ONE]),
    "href_path": _described([ova_images.file_of("/etc/shadow")], [_ONE]),
    "href_up": _described([ova_images.file_of("../a.vmdk")], [_ONE]),
    "href_missing": _described([ova_images.file_of("b.vmdk")], [_ONE]),
    "ref_missing": _described([], [_ONE]),
    "file_twice": _described([_FILE, _FILE], [_ONE]),
    "disk_twice": _described([_FILE], [_ONE, _ONE]),
    "disks_share": _described([_FILE], [_ONE, 'ovf:diskId="other" ovf:fileRef="file1"']),
    "parent": _described([_FILE], [ova_images.disk_of(1, more='ovf:parentRef="x"')]),
    "capacity": _described([_FILE], ['ovf:diskId="d" ovf:fileRef="file1" ovf:capacity="-1"']),
    "capacity_most": _described([_FILE], ['ovf:diskId="d" ovf:capacity="9999999999999999999"']),
    "units": _described([_FILE], [ova_images.disk_of(1, more='ovf:capacityAllocationUnits="byte * 9^99"')]),
    "units_word": _described([_FILE], [ova_images.disk_of(1, more='ovf:capacityAllocationUnits="furlong"')]),
    "size": _described([ova_images.file_of("a.vmdk", 1, 'ovf:size="1"')], [_ONE]),
    "size_word": _described([ova_images.file_of("a.vmdk", 1, 'ovf:size="x"')], [_ONE]),
}


@pytest.mark.parametrize("text", _XML.values(), ids=_XML)
def test_bad_descriptors(text: bytes) -> None:
    """A descriptor with a document type, without bounds, or that leads out of the archive is refused."""
    with pytest.raises(errors.UnsafeImage):
        _parse(ova_images.ova({"a.vmdk": _IMAGE}, 0, text=text))


@pytest.mark.parametrize("more", ['ovf:compression="gzip"', 'ovf:chunkSize="100"'])
def test_compressed_and_divided_files_are_unsupported(more: str) -> None:
    """What would have to be unpacked first is not read as if it were a disk."""
    text = _described([ova_images.file_of("a.vmdk", 1, more)], [_ONE])
    with pytest.raises(errors.Unsupported):
        _parse(ova_images.ova({"a.vmdk": _IMAGE}, 0, text=text))


def test_manifests() -> None:
    """Digests of three kinds are checked; a wrong one of the descriptor is told at once, one of a disk when asked."""
    text = ova_images.envelope([_FILE], [_ONE])
    content = {"vm.ovf": text, "a.vmdk": _IMAGE}
    for algorithm in ("SHA1", "SHA256", "SHA512"):
        sums = ova_images.manifest(content, algorithm)
        file = memory.MemoryDisk.of(ova_images.ova({"a.vmdk": _IMAGE}, 0, text=text, sums=sums))
        found = ova.parse_ova(file, "image")
        assert ova.check_digest(file, found, found.members[2], "image")
        assert not ova.check_digest(file, found, found.members[1], "image")
    wrong = ova_images.manifest({**content, "a.vmdk": b"?"})
    file = memory.MemoryDisk.of(ova_images.ova({"a.vmdk": _IMAGE}, 0, text=text, sums=wrong))
    found = ova.parse_ova(file, "image")
    with pytest.raises(errors.IntegrityError):
        ova.check_digest(file, found, found.members[2], "image")
    with pytest.raises(errors.IntegrityError):
        _parse(ova_images.ova({"a.vmdk": _IMAGE}, 0, text=text, sums=ova_images.manifest({"vm.ovf": b"?"})))
    assert _parse(ova_images.ova({"a.vmdk": _IMAGE}, 0, text=text, sums=None)).manifest is None


@pytest.mark.parametrize("line", [b"hello", b"MD5(vm.ovf)= " + b"0" * 32, b"SHA256(vm.ovf)= " + b"0" * 40])
def test_bad_manifests(line: bytes) -> None:
    """A line that is no digest is refused: a digest that is overlooked protects nothing."""
    with pytest.raises(errors.UnsafeImage):
        _parse(ova_images.ova({"a.vmdk": _IMAGE}, 1, sums=line + b"\n"))
    with pytest.raises(errors.UnsafeImage):
        _parse(ova_images.ova({"a.vmdk": _IMAGE}, 1, sums=ova_images.manifest({"a": b""}) * 2))


def test_i30_truncated_archives(seed: int) -> None:
    """Cut anywhere before its end, an archive is refused."""
    image = ova_images.ova({"a.vmdk": _IMAGE}, len(_DISK))
    rng = np.random.default_rng(seed)
    for cut in {*range(0, min(len(image) - 1024, 65536), 512), *rng.integers(0, len(image) - 1024, 100).tolist()}:
        with pytest.raises((errors.UnsafeImage, errors.ImageDamaged)):
            _parse(image[:cut])


def test_damage_gives_typed_errors_only(seed: int) -> None:
    """Whatever bytes change, an archive is read or refused with an error of ours."""
    image = ova_images.ova({"a.vmdk": b"x" * 600}, 512)
    rng = np.random.default_rng(seed)
    for _ in range(500):
        data = bytearray(image)
        for at in rng.integers(0, len(image), 4).tolist():
            data[at] = int(rng.integers(256))
        try:
            _parse(bytes(data))
        except errors.VimgvcError:
            continue


def _open(folder: pathlib.Path, image: bytes, *, max_size: int = 1 << 40) -> list[protocol.Source]:
    (folder / "vm.ova").write_bytes(image)
    file = raw.RawReader(folder / "vm.ova")
    found = ova.parse_ova(file, file.path)
    return [ova_disks.open_disk(file, disk, max_size=max_size).reader for disk in found.disks]


class TestRawInside(reader.ReaderSuite):
    """A raw disk inside an archive, read where it lies."""

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        image = ova_images.ova({"a.img": sample.content}, len(sample.content))
        kinds = [extents.Extent(0, len(image), extents.Kind.DATA)]
        file = memory.MemoryDisk.of(image, kinds)
        member = ova.parse_ova(file, "image").disks[0].member
        assert member is not None
        return ova.slice_of(file, member)


class TestSparseInside(reader.ReaderSuite):
    """A sparse VMDK inside an archive in a file."""

    sector = 512
    hole_grid = vmdk_images.GRAIN * 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> protocol.Reader:
        if not sample.content:
            pytest.skip("a vmdk in one file has at least one sector")
        marks = bytearray(len(sample.content))
        for item in sample.holes:
            marks[item.start : item.end] = b"\1" * item.length
        return _open(folder, ova_images.ova({"a.vmdk": vmdk_images.hosted(sample.content, holes=bytes(marks))}, 0))[0]


def test_disks_inside(tmp_path: pathlib.Path) -> None:
    """Closing one disk leaves the others open; empty disks are zeros of their capacity; a text is no disk."""
    text = ova_images.envelope(
        [ova_images.file_of("a.img", 1), ova_images.file_of("b.img", 2)],
        [ova_images.disk_of(1, 1, ""), ova_images.disk_of(1, 2, ""), 'ovf:diskId="e" ovf:capacity="1000"'],
    )
    one, two, empty = _open(tmp_path, ova_images.ova({"a.img": b"a" * 1000, "b.img": b"b" * 512}, 0, text=text))
    one.close()
    assert reader.read(two.pread_into, 0, 512) == b"b" * 512
    assert reader.read(empty.pread_into, 0, 1000) == bytes(1000)
    with pytest.raises(errors.UnsafeImage):
        _open(tmp_path, ova_images.ova({"a.vmdk": vmdk_images.text("monolithicFlat", ['RW 1 FLAT "x" 0'])}, 0))
    with pytest.raises(errors.UnsafeImage):  # declared to be a vmdk
        _open(tmp_path, ova_images.ova({"a.vmdk": b"x"}, 0, text=ova_images.envelope([_FILE], [_ONE])))
    for content in ({"a.img": _DISK}, {"a.vmdk": vmdk_images.hosted(_DISK)}):
        with pytest.raises(errors.UnsafeImage, match="limit"):
            _open(tmp_path, ova_images.ova(content, 0), max_size=1000)


def test_written_archives_are_read_back(seed: int, tmp_path: pathlib.Path) -> None:
    """What is laid out is read by us, with every digest right, and by tarfile; descriptor, manifest, disks."""
    images = [_IMAGE, vmdk_images.stream(np.random.default_rng(seed).bytes(1000 * 512))]
    parts = [ova.Part(memory.MemoryDisk.of(image), size) for image, size in zip(images, [65536, 512_000], strict=True)]
    built = ova.build('a "disk" & <more>', parts)
    data = reader.read(built.pread_into, 0, built.size)
    file = memory.MemoryDisk.of(data)
    found = ova.parse_ova(file, "image")
    assert [item.name for item in found.members] == [
        "a_disk_more.ovf",
        "a_disk_more.mf",
        "a_disk_more-disk1.vmdk",
        "a_disk_more-disk2.vmdk",
    ]
    assert found.systems == ('a "disk" & <more>',)
    assert [(item.capacity, item.format) for item in found.disks] == [(65536, "vmdk"), (512_000, "vmdk")]
    assert all(ova.check_digest(file, found, item, "image") for item in found.members if not item.name.endswith(".mf"))
    with tarfile.open(fileobj=io.BytesIO(data)) as archive:
        contents = [stream.read() for item in archive.getmembers() if (stream := archive.extractfile(item))]
    assert contents[2:] == images
    assert hashlib.sha256(images[0]).hexdigest() in contents[1].decode()
    assert detect.detect_reader(file, "image") == "ova"
    path = tmp_path / "vm.ova"
    path.write_bytes(data)
    assert os.stat(path).st_size == built.size
    built.close()


@pytest.mark.parametrize("count", [0, 1, 31])
def test_descriptors_written_are_well_formed(count: int) -> None:
    """Every disk has a file, a drive and a port of a controller of its own; instance ids are unique."""
    disks = [ovf.NewDisk(f"vm-disk{number}.vmdk", 1000 + number, 512 * number) for number in range(count)]
    text = ovf.write("vm", disks)
    found = ovf.parse(text, "image")
    assert [(item.href, item.size) for item in found.files] == [(disk.name, disk.length) for disk in disks]
    assert [item.capacity for item in found.disks] == [disk.capacity for disk in disks]
    rasd = "{http://schemas.dmtf.org/wbem/wscim/1/cim-schema/2/CIM_ResourceAllocationSettingData}"
    items = ET.fromstring(text).findall(".//{http://schemas.dmtf.org/ovf/envelope/1}Item")
    ids = [item.findtext(f"{rasd}InstanceID") for item in items]
    assert len(set(ids)) == len(ids)
    drives = [item for item in items if item.findtext(f"{rasd}ResourceType") == "17"]
    places = {(item.findtext(f"{rasd}Parent"), item.findtext(f"{rasd}AddressOnParent")) for item in drives}
    assert len(drives) == len(places) == count
    assert {parent for parent, _ in places} <= set(ids)
    assert [item.findtext(f"{rasd}HostResource") for item in drives] == [
        f"ovf:/disk/vmdisk{number + 1}" for number in range(count)
    ]


def test_built_archives_of_any_length_are_whole_blocks() -> None:
    """Members are padded to blocks of 512 bytes, empty ones have none."""
    for length in (0, 1, 511, 512, 513):
        built = ova.build("vm", [ova.Part(memory.MemoryDisk.of(b"x" * length), 512)])
        assert built.size % 512 == 0
        assert isinstance(built, pieces.PiecesReader)
        content = reader.read(built.pread_into, 0, built.size)
        assert _parse(content).members[2].length == length
