"""qcow2 images that must be refused, or that break while they are read."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator

from tests.hostile import case, qcow2
from tests.hostile.qcow2 import Spec, Squeezed

K = 1024
_TIB = 1 << 40


def cases() -> list[case.Case]:
    return [*_headers(), *_tables(), *_snapshots(), *_extensions(), *_entries(), *_streams()]


def _refuse(
    row: str, name: str, built: qcow2.Built, code: int | set[int] = case.REFUSED, *, options: tuple[str, ...] = ()
) -> case.Case:
    return case.case(row, name, code, built.refused(), options=options)


def _headers() -> Iterator[case.Case]:
    for bit in (5, 6, 31, 32, 63):
        yield _refuse("I8", f"incompatible-{bit}", qcow2.plain().set(incompatible=1 << bit))
    yield _refuse("I8", "corrupt", qcow2.plain().set(incompatible=qcow2.CORRUPT))
    for version in (0, 4, 2**32 - 1):
        yield _refuse("I9", f"version-{version}", qcow2.plain().set(version=version), {21, 23})
    for length in (0, 72, 96, 103, 105, 113, 1 << 17, 2**32 - 1):
        yield _refuse("I9", f"header-length-{length}", qcow2.plain().set(header_length=length))
    for bits in (0, 1, 8, 22, 63, 2**32 - 1):
        yield _refuse("I10", f"cluster-bits-{bits}", qcow2.plain().set(cluster_bits=bits))
    yield _refuse("I10", "extended-l2-8k", qcow2.plain(bits=13, size=4 << 13).set(incompatible=qcow2.EXTENDED))
    for size in (_TIB * 64 + 512, 2**63 - 1, 2**63, 2**64 - 1, 2**64 - 512):
        yield _refuse("I19", f"size-{size}", qcow2.plain().set(size=size))
    for crypt in (1, 2):
        yield _refuse("I20", f"crypt-{crypt}", qcow2.plain().set(crypt=crypt))
    yield _refuse("I20", "crypt-3", qcow2.plain().set(crypt=3), {21, 23})
    yield _refuse("I8", "compression-unknown", qcow2.plain().set(incompatible=8, compression=9), {21, 23})
    yield _refuse("I8", "compression-without-bit", qcow2.plain().set(compression=1), {21, 23})


def _tables() -> Iterator[case.Case]:
    for size in (2**32 - 1, 536870913, (32 << 20) // 8 + 1):
        yield _refuse("I11", f"l1-entries-{size}", qcow2.plain().set(l1_size=size))
    small = qcow2.plain(size=9 << 20, bits=12)
    yield _refuse("I11", "l1-too-small", small.set(l1_size=1))
    yield _refuse("I11", "l1-none", qcow2.plain().set(l1_size=0, l1_offset=0))
    yield _refuse("I11", "l1-misaligned", qcow2.plain().set(l1_offset=3 * 65536 + 8))
    yield _refuse("I11", "l1-beyond-the-file", qcow2.plain().set(l1_offset=1 << 40))
    yield _refuse("I11", "l1-wraps", qcow2.plain().set(l1_offset=2**64 - 65536))
    yield _refuse("I11", "l1-negative", qcow2.plain().set(l1_offset=1 << 63))
    yield _refuse("I11", "size-for-a-larger-l1", qcow2.plain().set(size=4 << 40))
    short = qcow2.plain()
    del short.data[100:]
    yield _refuse("I30", "header-cut", short, {20, 21})
    only_magic = qcow2.plain()
    del only_magic.data[8:]
    yield _refuse("I30", "magic-only", only_magic, {20, 21})


def _snapshots() -> Iterator[case.Case]:
    """Asked for a snapshot, its table must make sense."""
    asked = ("--snapshot", "first")
    one = [("first", "1")]

    def image() -> qcow2.Built:
        return qcow2.build(Spec(snapshots=one, clusters={1: case.noise(8, 64 * K)}))

    table = struct.unpack_from(">Q", image().data, 64)[0]
    yield _refuse("I13", "asked-65537", image().set(nb_snapshots=65537), options=asked)
    yield _refuse("I13", "asked-max", image().set(nb_snapshots=2**32 - 1), options=asked)
    yield _refuse("I13", "asked-beyond", image().set(snapshots_offset=1 << 40), {20, 21}, options=asked)
    yield _refuse("I13", "asked-misaligned", image().set(snapshots_offset=table + 8), {20, 21}, options=asked)
    yield _refuse("I13", "asked-extra-data", image().put(table + 36, ">I", 1025), {20, 21}, options=asked)
    yield _refuse("I13", "asked-extra-data-max", image().put(table + 36, ">I", 2**32 - 1), {20, 21}, options=asked)
    yield _refuse("I13", "asked-l1-beyond", image().put(table, ">Q", 1 << 40), {20, 21}, options=asked)
    yield _refuse("I13", "asked-l1-misaligned", image().put(table, ">Q", 3 * 65536 + 8), {20, 21}, options=asked)
    yield _refuse("I13", "asked-l1-size", image().put(table + 8, ">I", 2**32 - 1), {20, 21}, options=asked)
    yield _refuse("I13", "asked-no-such", image(), {1, 21}, options=("--snapshot", "other"))


def _extensions() -> Iterator[case.Case]:
    def image(*extensions: tuple[int, bytes]) -> qcow2.Built:
        return qcow2.plain(extensions=list(extensions))

    for length in (0x7FFFFFFF, 0xFFFFFFFF, 65536):
        yield _refuse("I15", f"length-{length}", image((0xABCD, b"x" * 8)).put(116, ">I", length))
    yield _refuse("I15", "backing-format-twice", image((0xE2792ACA, b"raw"), (0xE2792ACA, b"qcow2")))
    endless = image().put(112, f">{(65536 - 112) // 8 * 2}I", *([0xABCD, 0] * ((65536 - 112) // 8)))
    yield _refuse("I15", "no-end", endless)
    yield _refuse("I15", "crypto-header-beyond", image((0x0537BE77, struct.pack(">QQ", 1 << 60, 1 << 60))).set(crypt=2))


def _entries() -> Iterator[case.Case]:
    """Tables whose entries lead nowhere: an error, never zeros."""
    damaged = case.DAMAGED
    image = qcow2.plain
    copied = qcow2.COPIED
    yield _refuse("I16", "data-misaligned", image().entry(1, (8 << 16) + 512 | copied), damaged)
    yield _refuse("I16", "data-beyond", image().entry(1, 1 << 40 | copied), damaged)
    yield _refuse("I16", "data-at-the-end", image().entry(1, len(image().data) | copied), damaged)
    yield _refuse("I16", "data-reserved-bit", image().entry(1, image().where[0] | copied | 1 << 58), damaged)
    yield _refuse("I16", "data-low-bits", image().entry(1, image().where[0] | copied | 2), damaged)
    yield _refuse("I16", "l2-misaligned", image().put(3 << 16, ">Q", (4 << 16) + 512 | copied), {20, 21})
    yield _refuse("I16", "l2-beyond", image().put(3 << 16, ">Q", 1 << 40 | copied), {20, 21})
    yield _refuse("I16", "l2-reserved", image().put(3 << 16, ">Q", 4 << 16 | copied | 1), {20, 21})
    yield _refuse(
        "I16",
        "l1-is-its-own-l2",
        image().set(size=2 << 29, l1_size=2).put(3 << 16, ">2Q", *[3 << 16 | copied] * 2),
        {0, 20},
    )
    yield _refuse("I16", "zero-bit-in-v2", image(version=2).entry(1, 1), {0, 20})
    sub = qcow2.build(Spec(size=4 << 14, bits=14, extended=True, clusters={0: case.noise(4, 16 * K)}))
    both = qcow2.clone(sub).put(sub.l2[0] + 8, ">Q", 0xFFFFFFFFFFFFFFFF)
    yield _refuse("I16", "subcluster-zero-and-data", both, damaged)
    nowhere = qcow2.clone(sub).put(sub.l2[0] + 16, ">QQ", 0, 0xFFFFFFFF)
    yield _refuse("I16", "subcluster-data-nowhere", nowhere, damaged)
    cut = qcow2.plain()
    del cut.data[-4096:]
    yield _refuse("I30", "last-cluster-cut", cut, damaged)


def _streams() -> Iterator[case.Case]:
    damaged = case.DAMAGED
    plain = case.text(1, 1 << 16)

    def image(stream: bytes, *, zstd: bool = False) -> qcow2.Built:
        return qcow2.build(Spec(zstd=zstd, clusters={1: Squeezed(plain, stream), 2: case.noise(3, 1 << 16)}))

    good = qcow2.compress(plain)
    yield _refuse("I18", "zlib-garbage", image(case.noise(1, 600)), damaged)
    yield _refuse("I18", "zlib-cut", image(good[: len(good) // 2] + b"\xff" * 512), damaged)
    yield _refuse("I18", "zlib-too-short", image(qcow2.compress(plain[:1000])), damaged)
    wide = zlib.compressobj(6, zlib.DEFLATED, 15)
    yield _refuse("I18", "zlib-with-header", image(wide.compress(plain) + wide.flush()), damaged)
    yield _refuse("I18", "zlib-too-long", image(qcow2.compress(plain + bytes(64 << 20))), {0, 20})
    tail = image(good)
    beyond = qcow2.descriptor(len(tail.data) - 512, 1, 16, sectors=100)
    yield _refuse("I18", "zlib-past-the-end", tail.entry(1, beyond), damaged)
    yield _refuse("I18", "stream-beyond", image(good).entry(1, qcow2.descriptor(1 << 40, 512, 16)), damaged)
    yield _refuse("I18", "stream-at-0", image(good).entry(1, qcow2.descriptor(0, 512, 16)), damaged)
    frame = qcow2.compress(plain, zstd=True)
    yield _refuse("I18", "zstd-garbage", image(case.noise(1, 600), zstd=True), damaged)
    yield _refuse("I18", "zstd-cut", image(frame[: len(frame) // 2], zstd=True), damaged)
    yield _refuse("I18", "zstd-too-short", image(qcow2.compress(plain[:1000], zstd=True), zstd=True), damaged)
    # Single segment, window and content size of 1 TiB, then one block that repeats a byte.
    huge = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 1 << 40) + b"\x02\x00\x00x" * 100
    yield _refuse("I18", "zstd-declares-1-tib", image(huge, zstd=True), damaged)
    yield _refuse("I18", "zstd-bomb", image(qcow2.compress(bytes(64 << 20), zstd=True), zstd=True), {0, 20})
