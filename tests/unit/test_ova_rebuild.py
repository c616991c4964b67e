"""An OVA made again with the description that it came with."""

from __future__ import annotations

import io
import tarfile
import urllib.parse

import pytest

from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import memory
from vimgvc.images import ova, ovf

_TEXT = """<?xml version="1.0" encoding="{encoding}"?>
<!-- <File ovf:href="a.vmdk" ovf:size="5"/> -->
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
  <References>
    <File ovf:size = '7' ovf:href="a.vmdk" ovf:id="file1" note="x &gt; y > z size=&quot;1&quot;"/>
    <File ovf:href="b.vmdk" ovf:id="file2"></File>
    <File ovf:href="c%20d.nvram" ovf:id="file3" ovf:size="9"/>
  </References>
  <DiskSection><Disk ovf:diskId="d1" ovf:fileRef="file1" ovf:capacity="1024" ovf:format="x"/></DiskSection>
</Envelope>
"""


def test_only_sizes_of_files_change() -> None:
    """The sizes of the named files are put in; every other byte stays, comments and other attributes too."""
    text = _TEXT.format(encoding="UTF-8").encode()
    changed = ovf.resized(text, {"a.vmdk": 123456, "b.vmdk": 5})
    assert changed == text.replace(b"ovf:size = '7'", b'ovf:size = "123456"')
    assert [file.size for file in ovf.parse(changed, "x").files] == [123456, None, 9]


def test_an_encoding_in_which_tags_are_not_found() -> None:
    """What cannot be changed safely is refused by name."""
    text = _TEXT.format(encoding="UTF-16").encode("utf-16")
    assert ovf.parse(text, "x").disks
    with pytest.raises(errors.Unsupported):
        ovf.resized(text, {"a.vmdk": 1})


def test_the_archive_is_whole() -> None:
    """Descriptor, files and a manifest with all their digests are in it, under the names of the description."""
    files = [("a.vmdk", b"x" * 1000), ("b.vmdk", b""), ("c d.nvram", b"settings")]
    archive = ova.rebuild(
        "web", _TEXT.format(encoding="UTF-8").encode(), [(name, memory.MemoryDisk.of(data)) for name, data in files]
    )
    found = ova.parse_ova(archive, "web.ova")
    assert [member.name for member in found.members] == ["web.ovf", "web.mf", "a.vmdk", "b.vmdk", "c d.nvram"]
    assert all(
        ova.check_digest(archive, found, member, "web.ova") for member in found.members if member.name != "web.mf"
    )
    assert [file.size for file in ovf.parse(found.descriptor, "x").files] == [1000, None, 8]


@pytest.mark.parametrize("length", [1, 99, 100, 101, 255])
def test_names_of_any_length(length: int) -> None:
    """A file with a name as long as file systems allow is read back, by us and by tarfile."""
    name = "é" * (length // 2) + "x" * (length % 2)
    archive = ova.build("web", [], [(name, memory.MemoryDisk.of(b"settings"))])
    found = ova.parse_ova(archive, "web.ova")
    assert found.members[-1].name == name
    assert ova.check_digest(archive, found, found.members[-1], "web.ova")
    with tarfile.open(fileobj=io.BytesIO(reader.read(archive.pread_into, 0, archive.size))) as other:
        file = other.extractfile(name)
        assert file is not None
        assert file.read() == b"settings"


def test_files_beside_the_disks_are_listed() -> None:
    """The description of a new archive lists every file that is in it, by its name."""
    others = [("a b.xml", memory.MemoryDisk.of(b"x" * 600)), ("empty", memory.MemoryDisk.of(b""))]
    archive = ova.build("web", [ova.Part(memory.MemoryDisk.of(b"disk"), 512)], others)
    found = ova.parse_ova(archive, "web.ova")
    assert [member.name for member in found.members] == ["web.ovf", "web.mf", "web-disk1.vmdk", "a b.xml", "empty"]
    listed = ovf.parse(found.descriptor, "x")
    assert [(urllib.parse.unquote(file.href), file.size) for file in listed.files] == [
        ("web-disk1.vmdk", 4),
        ("a b.xml", 600),
        ("empty", 0),
    ]
    assert len(listed.disks) == 1
