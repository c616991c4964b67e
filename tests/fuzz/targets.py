"""What is fuzzed: for each parser a function of bytes that lets only typed errors out, and inputs to begin with."""

from __future__ import annotations

import contextlib
import functools
import hashlib
import io
import itertools
import struct
import tarfile
from collections.abc import Callable
from dataclasses import dataclass

from tests import nbd_peers as peers
from tests.fuzz import inputs, parted
from tests.hostile import case, chains, others, qcow2, qcow2_good, vbox_and_vpc, vhdx, vmdk
from vimgvc import errors
from vimgvc.backends import s3_xml
from vimgvc.codec import deliveries, slots
from vimgvc.disk import extents, protocol
from vimgvc.images import cow, detect, gates, ova, ovf, qcow2_layout, qcow2_metadata
from vimgvc.images import qcow2 as qcow2_reader
from vimgvc.images import vmdk as vmdk_reader
from vimgvc.images.gates import judge, vmdk_text
from vimgvc.model import commit
from vimgvc.nbd import handshake, transmission

_OVF = b"""<?xml version="1.0"?>
<Envelope xmlns="http://schemas.dmtf.org/ovf/envelope/1" xmlns:ovf="http://schemas.dmtf.org/ovf/envelope/1">
 <References><File ovf:id="file1" ovf:href="vm-disk1.vmdk" ovf:size="4096"/></References>
 <DiskSection><Info>disks</Info>
  <Disk ovf:diskId="disk1" ovf:fileRef="file1" ovf:capacity="1" ovf:capacityAllocationUnits="byte * 2^20"
   ovf:format="http://www.vmware.com/interfaces/specifications/vmdk.html#streamOptimized"/></DiskSection>
 <VirtualSystem ovf:id="vm"><Info>a machine</Info></VirtualSystem>
</Envelope>
"""

_S3_DOCUMENTS = (
    (
        b'<?xml version="1.0" encoding="UTF-8"?><ListBucketResult xmlns="http://s3.amazonaws.com/doc/2006-03-01/">'
        b"<Name>b</Name><Prefix>p/refs/</Prefix><KeyCount>1</KeyCount><MaxKeys>1000</MaxKeys><EncodingType>url"
        b"</EncodingType><IsTruncated>true</IsTruncated><NextContinuationToken>t</NextContinuationToken><Contents>"
        b"<Key>p/refs/%20a</Key><LastModified>2026-11-28T19:39:53.272Z</LastModified><Size>7</Size></Contents>"
        b"</ListBucketResult>"
    ),
    b"<DeleteResult><Error><Key>a</Key><Code>AccessDenied</Code></Error></DeleteResult>",
    b"<Error><Code>PermanentRedirect</Code><Region>eu-west-1</Region></Error>",
    b"<CopyObjectResult><ETag>x</ETag></CopyObjectResult>",
)

#: What a parser may answer.
ALLOWED = errors.VimgvcError


@dataclass(frozen=True, slots=True)
class Target:
    """`run` raises nothing but `ALLOWED`, and that it swallows; `seeds` are inputs that reach far."""

    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]]


def _swallow(work: Callable[[bytes], object]) -> Callable[[bytes], None]:
    def run(data: bytes) -> None:
        try:
            work(data)
        except ALLOWED as error:
            _check_told(error)

    return run


def _check_told(error: errors.VimgvcError) -> None:
    """A message is one line that says something, whatever was in the image."""
    assert error.message
    assert error.message.isprintable(), error.message
    assert len(error.message) < 2000


# --- images: seeds and patches ----------------------------------------------------------------------


def _mend_vhdx(image: bytearray) -> None:
    for at, length in ((65536, 4096), (2 * 65536, 4096), (3 * 65536, 65536), (4 * 65536, 65536)):
        sealed = image[at : at + length]
        sealed[4:8] = bytes(4)
        case.put(image, at + 4, "<I", vhdx.crc32c(bytes(sealed)))


def _mend_vpc(image: bytearray) -> None:
    for at, length, seal in ((0, 512, 64), (len(image) - 512, 512, 64), (512, 1024, 36)):
        block = image[at : at + length]
        block[seal : seal + 4] = bytes(4)
        case.put(image, at + seal, ">I", ~sum(block) & 0xFFFFFFFF)


def _read_a_little(disk: protocol.Reader, data: bytes) -> None:
    """The ends of a disk, places that the input chooses, and what is told of extents."""
    size = disk.size
    places = [
        0,
        max(0, size - 4096),
        *(value % (size + 1) for (value,) in struct.iter_unpack("<Q", data[-32:][: len(data[-32:]) // 8 * 8])),
    ]
    for place in places:
        disk.pread_into(place, memoryview(bytearray(min(70_000, size - place))))
    for _ in itertools.islice(disk.extents(0, size), 1000):
        pass


@functools.cache
def _qcow2_seeds() -> tuple[bytes, ...]:
    clusters: dict[int, qcow2.Cluster] = {0: case.noise(1, 512), 2: qcow2.ZERO, 3: case.noise(2, 512)}
    squeezed: dict[int, qcow2.Cluster] = {1: qcow2.Squeezed(case.text(1, 512)), 2: qcow2.Squeezed(case.text(2, 512))}
    sub: dict[int, qcow2.Cluster] = {0: case.noise(4, 16384), 1: qcow2.ZERO, 2: qcow2.Squeezed(case.text(1, 16384))}
    bitmap = struct.pack(">IIQQ", 1, 0, 32, 512)
    specs = [
        qcow2.Spec(size=40 * 512, bits=9, clusters=clusters),
        qcow2.Spec(size=40 * 512, bits=9, clusters=clusters, version=2),
        qcow2.Spec(size=8 * 512, bits=9, clusters=clusters | squeezed, zstd=True, snapshots=[("a", "1"), ("b", "2")]),
        qcow2.Spec(size=8 * 512, bits=9, clusters=squeezed, extensions=[(qcow2_good.BITMAPS, bitmap)]),
        qcow2.Spec(size=8 * 512, bits=9, clusters=clusters, backing=b"base", backing_format=b"raw"),
        qcow2.Spec(size=3 * 16384, bits=14, extended=True, clusters=sub),
        qcow2.Spec(size=4 * 512, bits=9, clusters={0: case.noise(1, 512)}, data_file=True),
    ]
    return tuple(bytes(qcow2.build(spec).data) for spec in specs)


def _qcow2(data: bytes) -> None:
    file = inputs.Bytes(inputs.patched(_qcow2_seeds(), data))
    header = qcow2_metadata.read_header(file, "image")
    for listed in (qcow2_metadata.snapshots, qcow2_metadata.bitmaps):
        try:
            listed(file, "image", header)
        except ALLOWED as error:
            _check_told(error)
    outside = inputs.Bytes(bytes(65536))
    asked = {1: "a", 2: "2"}.get(data[-1] if data else 0)
    disk = qcow2_reader.Qcow2Reader(file, "image", backing=outside, data_file=outside, snapshot=asked, force_read=True)
    disk.facts()
    _read_a_little(disk, data)


def _qcow2_header(data: bytes) -> None:
    header = qcow2_layout.parse_header(data, 1 << 30, "image")
    if header.cluster_size >= 65536:  # in smaller ones what is written anew need not fit
        again = qcow2_layout.encode_header(header).ljust(header.cluster_size, b"\0")
        assert qcow2_layout.parse_header(again, 1 << 30, "image").size == header.size


@functools.cache
def _cow_seeds() -> tuple[bytes, ...]:
    return (bytes(others.cow()),)


def _cow(data: bytes) -> None:
    _read_a_little(cow.CowReader(inputs.Bytes(inputs.patched(_cow_seeds(), data)), "image"), data)


_GATED: dict[str, tuple[Callable[[], list[bytearray]], Callable[[bytearray], None] | None]] = {
    "bochs": (lambda: [others.bochs()], None),
    "cloop": (lambda: [others.cloop()], None),
    "dmg": (lambda: [others.dmg()], None),
    "luks": (lambda: [bytearray(b"LUKS\xba\xbe\0\1") + bytearray(2048)], None),
    "parallels": (lambda: [others.parallels()], None),
    "qcow": (lambda: [others.qcow()], None),
    "qed": (lambda: [others.qed()], None),
    "vdi": (lambda: [vbox_and_vpc.vdi(), vbox_and_vpc.vdi(kind=2)], None),
    "vhdx": (lambda: [vhdx.vhdx()], _mend_vhdx),
    "vmdk": (lambda: [vmdk.sparse(), vmdk.stream()], None),
    "vpc": (lambda: [vbox_and_vpc.vpc()], _mend_vpc),
}


@functools.cache
def _gate_seeds(form: str) -> tuple[bytes, ...]:
    return tuple(bytes(image) for image in _GATED[form][0]())


def _gate(form: str, data: bytes) -> None:
    file = inputs.Bytes(inputs.patched(_gate_seeds(form), data, _GATED[form][1]))
    facts = gates.check(form, file, "image")
    assert facts.size is None or 0 <= facts.size <= gates.MAX_SIZE


def _vmdk_sparse(data: bytes) -> None:
    disk = vmdk_reader.open_sparse(inputs.Bytes(inputs.patched(_gate_seeds("vmdk"), data)), "image")
    _read_a_little(disk, data)


def _vmdk_text(data: bytes) -> None:
    vmdk_text.parse(judge.Judge(inputs.Bytes(data), "image"), data)


def _detect(data: bytes) -> None:
    detect.detect_reader(inputs.Bytes(data), "image")
    for form in ("qcow2", "vpc", "raw"):
        detect.check_declared_reader(inputs.Bytes(data), "image", form)


@functools.cache
def _ova_seeds() -> tuple[bytes, ...]:
    """An archive as other programs make it: descriptor, a disk, the manifest."""
    disk = bytes(vmdk.stream())[:4096]
    digest = hashlib.sha256(disk).hexdigest()
    manifest = f"SHA256(vm-disk1.vmdk)= {digest}\n".encode()
    made = []
    for form in (tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        place = io.BytesIO()
        with tarfile.open(fileobj=place, mode="w", format=form) as archive:
            for name, body in (("vm.ovf", _OVF), ("vm-disk1.vmdk", disk), ("vm.mf", manifest)):
                entry = tarfile.TarInfo(name)
                entry.size = len(body)
                archive.addfile(entry, io.BytesIO(body))
        made.append(place.getvalue())
    return tuple(made)


def _ova(data: bytes) -> None:
    found = ova.parse_ova(inputs.Bytes(inputs.patched(_ova_seeds(), data)), "image")
    for disk in found.disks:
        assert disk.capacity >= 0


def _ovf(data: bytes) -> None:
    ovf.parse(data, "image")


# --- connections: whole, and byte by byte -------------------------------------------------------------


def _steps(data: bytes) -> int:
    return 1 if data[:1] < b"\x80" else 1 << 20


def _nbd_client(data: bytes) -> None:
    """A server that says anything while a client shakes hands."""
    peers.feed(handshake.Client("disk"), data, _steps(data))


def _nbd_server(data: bytes) -> None:
    """A client that says anything: what the server keeps for it is bounded."""
    server = handshake.Server("disk", 1 << 30)
    peers.feed(server, data, _steps(data))
    assert len(server.outgoing()) < 1 << 20


def _nbd_replies(data: bytes) -> None:
    """A server that says anything while a read and a question wait."""
    agreed = handshake.Agreement(1 << 20, 0x183, structured=data[-1:] < b"\xe0", context=1)
    client = transmission.Client(agreed)
    room = bytearray(8192)
    client.read(4096, memoryview(room)[2048:6144])
    _, pending = client.status(0, 1 << 20)
    peers.feed(client, data, _steps(data))
    assert room[:2048] == bytes(2048) == room[6144:]
    if pending.found is not None:
        told = list(pending.found)
        assert all(before.end == after.start for before, after in itertools.pairwise(told))


def _nbd_requests(data: bytes) -> None:
    server = transmission.Server(handshake.Agreement(1 << 20, 0x183, structured=True, context=1))
    peers.feed(server, data, _steps(data))
    for request in server.requests:
        inside = request.offset + request.length <= 1 << 20
        assert request.error is not None or inside
        if request.error is None and request.length:
            server.status(request, [extents.Extent(request.offset, request.length, extents.Kind.DATA)])


def _nbd_seeds() -> list[bytes]:
    hello = struct.pack(">I", 3)
    return [
        peers.greeting() + peers.answer(8, 1) + peers.answer(10, 4, b"\0\0\0\1base:allocation") + peers.answer(10, 1),
        peers.greeting() + peers.answer(8, 0x8000_0001, b"no") + peers.answer(6, 3, struct.pack(">HQH", 0, 1 << 20, 3)),
        hello
        + peers.option(8)
        + peers.option(10, peers.contexts(b"disk", b"base:"))
        + peers.option(7, peers.go(b"disk", 3)),
        hello + peers.option(3) + peers.option(1, b"disk"),
        peers.data(4096, bytes(4096), cookie=1) + peers.status((1 << 20, 3), cookie=2),
        peers.hole(4096, 4096, cookie=1, done=False) + peers.chunk(0, cookie=1) + peers.failure(5, b"x", 17, cookie=2),
        peers.simple(cookie=1) + bytes(4096) + peers.simple(5, cookie=2),
        peers.request(0, 0, 4096) + peers.request(7, 0, 65536) + peers.request(1, 0, 4) + b"abcd" + peers.request(2),
    ]


# --- what a repository holds ---------------------------------------------------------------------------


def _commit(data: bytes) -> None:
    commit.decode("0" * 64, data)


def _commit_seeds() -> list[bytes]:
    return [b'{"version":1}', b"{}", b"[]", b'{"attachments":[{"name":"a","size":1}],"disks":[]}']


def _images(count: int) -> Callable[[], list[bytes]]:
    return lambda: [bytes([number]) for number in range(count)]


def _text_seeds() -> list[bytes]:
    parts = (
        vmdk.text("monolithicFlat", ['RW 63 FLAT "a.vmdk" 0']),
        vmdk.text("twoGbMaxExtentSparse", ['RW 9 SPARSE "b"'] * 3),
    )
    return [*parts, parts[0].replace(b"\n", b"\r\n")]


def _s3_xml(data: bytes) -> None:
    for read in (
        lambda: s3_xml.page(data, "p/refs/"),
        lambda: s3_xml.refused_deletes(data),
        lambda: s3_xml.error(data),
        lambda: s3_xml.check_copied(data),
    ):
        with contextlib.suppress(s3_xml.Strange):
            read()


def _delivery(data: bytes) -> None:
    with contextlib.suppress(ALLOWED):
        deliveries.parse_write_key(data)
    slot = slots.WriteSlot(slots.SlotInfo(data[:16].hex(), "write-only", "", "", ""), "", bytes(32), bytes(range(32)))
    deliveries.unseal(data, slot, bytes(16), bytes(16), "delivery")


TARGETS: dict[str, Target] = {
    "qcow2": Target(_swallow(_qcow2), _images(7)),
    "qcow2_header": Target(
        _swallow(_qcow2_header), lambda: [*(seed[:4096] for seed in _qcow2_seeds()), bytes(qcow2.plain().data[:512])]
    ),
    "cow": Target(_swallow(_cow), _images(1)),
    **{
        f"gate_{form}": Target(_swallow(functools.partial(_gate, form)), _images(2 if form in ("vdi", "vmdk") else 1))
        for form in _GATED
    },
    "ova": Target(_swallow(_ova), _images(3)),
    "partitions": Target(_swallow(parted.run), _images(4)),
    "ovf": Target(_swallow(_ovf), lambda: [_OVF]),
    "vmdk_sparse": Target(_swallow(_vmdk_sparse), _images(2)),
    "vmdk_text": Target(_swallow(_vmdk_text), _text_seeds),
    "detect": Target(
        _swallow(_detect), lambda: [seed[:4096] for seed in _qcow2_seeds()] + [bytes(chains.overlay(b"x").data[:4096])]
    ),
    "nbd_client": Target(_swallow(_nbd_client), _nbd_seeds),
    "nbd_server": Target(_swallow(_nbd_server), _nbd_seeds),
    "nbd_replies": Target(_swallow(_nbd_replies), _nbd_seeds),
    "nbd_requests": Target(_swallow(_nbd_requests), _nbd_seeds),
    "commit": Target(_swallow(_commit), _commit_seeds),
    "delivery": Target(_swallow(_delivery), lambda: [deliveries.WriteKey("", "", b"", b"").encode(), bytes(400)]),
    "s3_xml": Target(_swallow(_s3_xml), lambda: [*_S3_DOCUMENTS]),
}
