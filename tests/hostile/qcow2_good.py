"""qcow2 images that must be read, whatever they look like."""

from __future__ import annotations

from tests.hostile import case, qcow2
from tests.hostile.qcow2 import Spec, Squeezed

K = 1024
BACKED = ("--allow-chain", "--chain-root", "{folder}")
BITMAPS = 0x23852875


def cases() -> list[case.Case]:
    return [*_layouts(), *_headers(), *_sizes(), *_ignored(), *_bombs()]


def _layouts() -> list[case.Case]:
    mixed: dict[int, qcow2.Cluster] = {
        0: case.noise(1, 64 * K),
        1: qcow2.ZERO,
        2: qcow2.ALLOCATED_ZERO,
        4: case.noise(2, 64 * K),
        7: case.text(3, 64 * K),
    }
    squeezed: dict[int, qcow2.Cluster] = {at: Squeezed(case.text(at, 64 * K)) for at in (0, 1, 2, 5, 6)}
    sub: dict[int, qcow2.Cluster] = {0: case.noise(4, 16 * K), 1: qcow2.ZERO, 3: case.noise(5, 16 * K)}
    specs = {
        "v2": Spec(version=2, clusters={0: case.noise(6, 64 * K), 3: case.text(7, 64 * K)}),
        "v3": Spec(size=8 << 16, clusters=mixed),
        "empty": Spec(),
        "clusters-512": Spec(
            size=40 * 512, bits=9, clusters={at: case.noise(at + 20, 512) for at in (0, 1, 5, 30, 39)}
        ),
        "clusters-4k": Spec(size=1 << 20, bits=12, clusters={at: case.noise(at, 4096) for at in range(0, 256, 3)}),
        "clusters-2m": Spec(size=5 << 20, bits=21, clusters={0: case.noise(1, 2 << 20), 2: case.text(2, 2 << 20)}),
        "two-l2-tables": Spec(size=9 << 20, bits=12, clusters={1: case.noise(1, 4096), 2300: case.noise(2, 4096)}),
        "extended-l2": Spec(size=4 * 16 * K, bits=14, extended=True, clusters=sub),
        "zlib": Spec(size=8 << 16, clusters=squeezed),
        "zlib-v2": Spec(size=8 << 16, version=2, clusters=squeezed),
        "zstd": Spec(size=8 << 16, zstd=True, clusters=squeezed),
        "extended-l2-zlib": Spec(
            size=5 * 16 * K, bits=14, extended=True, clusters={**sub, 2: Squeezed(case.text(1, 16 * K))}
        ),
        "snapshot-ignored": Spec(snapshots=[("first", "1"), ("second", "2")], clusters={1: case.noise(8, 64 * K)}),
    }
    found = [case.case("I16", name, case.OK, qcow2.build(spec).make()) for name, spec in specs.items()]
    snapshot = Spec(snapshots=[("first", "1")], clusters={1: case.noise(8, 64 * K), 2: qcow2.ZERO})
    shared = qcow2.build(Spec(size=3 << 16, clusters={0: case.noise(9, 64 * K), 1: qcow2.ZERO, 2: qcow2.ZERO}))
    shared.entry(2, shared.where[0] | qcow2.COPIED)
    shared.content = shared.content[: 2 << 16] + shared.content[: 1 << 16]
    return [
        *found,
        case.case("I13", "snapshot-read", case.OK, qcow2.build(snapshot).make(), options=("--snapshot", "first")),
        case.case("I13", "snapshot-by-id", case.OK, qcow2.build(snapshot).make(), options=("--snapshot", "1")),
        case.case("I16", "one-cluster-twice", case.OK, shared.make()),
    ]


def _headers() -> list[case.Case]:
    plain = qcow2.plain
    corrupt = plain().set(incompatible=qcow2.CORRUPT)
    return [
        case.case("I8", "dirty", case.OK, plain().set(incompatible=qcow2.DIRTY, compatible=1).make()),
        case.case("I8", "corrupt-forced", case.OK, corrupt.make(), options=("--force-read",)),
        case.case("I8", "unknown-compatible", case.OK, plain().set(compatible=1 << 40).make()),
        case.case("I8", "unknown-autoclear", case.OK, plain().set(autoclear=1 << 40).make()),
        case.case("I9", "header-104", case.OK, plain(header_length=104).make()),
        case.case("I9", "header-200", case.OK, plain(header_length=200).make()),
        case.case("I15", "unknown-extension", case.OK, plain(extensions=[(0xABCD, b"whatever")]).make()),
        case.case("I15", "feature-names", case.OK, plain(extensions=[(0x6803F857, bytes(48 * 3))]).make()),
        case.case("I15", "empty-extension", case.OK, plain(extensions=[(0xABCD, b""), (0xABCE, b"")]).make()),
    ]


def _sizes() -> list[case.Case]:
    sizes = {"1": 1, "511": 511, "513": 513, "not-sectors": (3 << 16) + 12_345}
    found = [case.case("I19", f"size-{name}", case.OK, qcow2.plain(size).make()) for name, size in sizes.items()]
    return [*found, case.case("I19", "size-0", case.OK, qcow2.build(Spec(size=0)).make())]


def _ignored() -> list[case.Case]:
    """Parts that reading the disk does not need, and whose nonsense is therefore not looked at."""
    plain = qcow2.plain
    many = (65536).to_bytes(4, "big") + bytes(4) + (1 << 40).to_bytes(8, "big") + (1 << 62).to_bytes(8, "big")
    stale = (1).to_bytes(4, "big") + bytes(4) + (32).to_bytes(8, "big") + (1 << 20).to_bytes(8, "big")
    return [
        case.case("I12", "refcount-table-2g", case.OK, plain().set(refcount_clusters=0x7FFF).make()),
        case.case("I12", "refcount-table-misaligned", case.OK, plain().set(refcount_offset=0x10001).make()),
        case.case("I12", "refcount-table-beyond", case.OK, plain().set(refcount_offset=1 << 50).make()),
        case.case("I13", "snapshots-65537", case.OK, plain().set(nb_snapshots=65537, snapshots_offset=1 << 16).make()),
        case.case("I13", "snapshots-max", case.OK, plain().set(nb_snapshots=2**32 - 1, snapshots_offset=1).make()),
        case.case("I14", "bitmaps-65536", case.OK, plain(extensions=[(BITMAPS, many)]).set(autoclear=1).make()),
        case.case("I14", "bitmaps-stale", case.OK, plain(extensions=[(BITMAPS, stale)]).make()),
    ]


def _bombs() -> list[case.Case]:
    """Small files that are large disks: read in bounded memory, each compressed cluster once or so."""
    cluster = case.text(11, 1 << 16)
    clusters: dict[int, qcow2.Cluster] = dict.fromkeys(range(1024), qcow2.ZERO)
    many = qcow2.build(Spec(size=1024 << 16, clusters=clusters | {0: Squeezed(cluster)}))
    entry = qcow2.descriptor(many.where[0], len(qcow2.compress(cluster)), 16)
    for number in range(1024):
        many.entry(number, entry)
    many.content = cluster * 1024
    return [case.case("I17", "one-stream-1024-times", case.OK, many.make())]
