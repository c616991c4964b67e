"""Raw disks that look like something else, and files that look like two things."""

from __future__ import annotations

import struct
from collections.abc import Iterator

from tests.hostile import case, qcow2

_HEADS = {
    "qcow2": b"QFI\xfb\0\0\0\3" + bytes(8) + b"/etc/passwd",
    "vmdk": b'# Disk DescriptorFile\nversion=1\nRW 63 FLAT "/etc/shadow" 0\n',
    "sparse-vmdk": b"KDMV\1\0\0\0",
    "qed": b"QED\0" + bytes(60),
    "luks": b"LUKS\xba\xbe\0\2",
    "vhdx": b"vhdxfile",
    "vpc": b"conectix",
    "cow": b"OOOM\0\0\0\2",
}


def cases() -> list[case.Case]:
    return [*_written_by_guests(), *_two_things(), *_names()]


def _raw(head: bytes) -> bytes:
    data = bytearray(case.noise(5, 100_000))
    data[:512] = case.pad(head, 512)[:512]
    return bytes(data)


def _written_by_guests() -> Iterator[case.Case]:
    """I21: a guest wrote a container's header into its raw disk."""
    for name, head in _HEADS.items():
        data = _raw(head)
        yield case.case("I21", f"{name}-declared-raw", case.OK, case.write(data, data), options=("--format", "raw"))
        yield case.case("I21", f"{name}-named-raw", case.REFUSED, case.write(None, data, image="d.raw"), image="d.raw")
    data = bytes(qcow2.plain().data)
    yield case.case("I21", "whole-qcow2-declared-raw", case.OK, case.write(data, data), options=("--format", "raw"))
    data = case.noise(6, 70_001)
    yield case.case("I21", "noise", case.OK, case.write(data, data))
    yield case.case("I21", "empty", case.OK, case.write(b"", b""))


def _two_things() -> Iterator[case.Case]:
    """I22: what it is depends on who looks."""
    iso = qcow2.plain()
    iso.data[0x8001 : 0x8001 + 5] = b"CD001"
    vhd = bytes(qcow2.plain().data) + b"conectix" + bytes(504)
    boot = qcow2.plain().put(510, "2s", b"\x55\xaa")
    vmdk = qcow2.plain().put(0, "4s", b"KDMV")
    koly = bytes(qcow2.plain().data) + b"koly" + struct.pack(">I", 4) + bytes(504)
    for name, data in {
        "iso-and-qcow2": bytes(iso.data),
        "qcow2-and-vpc": vhd,
        "boot-sector-and-qcow2": bytes(boot.data),
        "qcow2-and-dmg": koly,
    }.items():
        yield case.case("I22", name, case.REFUSED, case.write(None, data))
        yield case.case("I22", f"{name}-declared-raw", case.OK, case.write(data, data), options=("--format", "raw"))
    good = boot.content
    yield case.case(
        "I22",
        "boot-sector-and-qcow2-declared",
        case.OK,
        case.write(good, bytes(boot.data)),
        options=("--format", "qcow2"),
    )
    noise = case.noise(7, 65536)
    for name, data, said in (
        ("qcow2-declared-vmdk", bytes(qcow2.plain().data), "vmdk"),
        ("vmdk-declared-qcow2", bytes(vmdk.data), "qcow2"),
        ("noise-declared-qcow2", noise, "qcow2"),
        ("noise-declared-vdi", noise, "vdi"),
        ("noise-declared-vpc", noise, "vpc"),
        ("noise-declared-parallels", noise, "parallels"),
        ("zeros-declared-qcow2", bytes(65536), "qcow2"),
        ("empty-declared-qcow2", b"", "qcow2"),
    ):
        yield case.case("I22", name, case.REFUSED, case.write(None, data), options=("--format", said))
    for driver in ("vvfat", "nbd", "host_device", "blkdebug", "quorum", "https"):
        yield case.case("I29", f"driver-{driver}", 2, case.write(None, noise), options=("--format", driver))


def _names() -> Iterator[case.Case]:
    """I23: the name says raw, the content does not, and the other way round."""
    built = qcow2.plain()
    data = bytes(built.data)
    for suffix in ("raw", "img"):
        name = f"disk.{suffix}"
        yield case.case("I23", f"{suffix}-is-qcow2", case.REFUSED, case.write(None, data, image=name), image=name)
    good = case.write(built.content, data, image="disk.img")
    yield case.case("I23", "img-declared-qcow2", case.OK, good, image="disk.img", options=("--format", "qcow2"))
    noise = case.noise(8, 65536)
    for suffix in ("qcow2", "vmdk", "vdi", "vhd", "vhdx"):
        name = f"disk.{suffix}"
        yield case.case("I23", f"{suffix}-is-noise", case.REFUSED, case.write(None, noise, image=name), image=name)
