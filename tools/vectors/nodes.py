"""Vectors of manifests (formats.md §7)."""

from __future__ import annotations

from collections.abc import Iterator

from vectors import kit

_IDS = [bytes([number]) * 32 for number in range(1, 65)]
_A, _B, _C = _IDS[:3]
_GOOD = kit.leaf([(4, _A), (12, None)])
_INNER = kit.inner(1, {0: _A, 3: _B})
_ROOT = kit.root(0, 4096, _A)
_GIB = 1 << 30

#: name: (expect, comment, blocks of the window, body)
_LEAVES = {
    "leaf_one_block": ("success", "a disk of one block", 1, kit.leaf([(1, _A)])),
    "leaf_runs": ("success", "chunks and zeros", 1024, kit.leaf([(8, None), (64, _A), (1, _B), (950, None), (1, _A)])),
    "leaf_full": ("success", "every chunk has the most blocks", 1024, kit.leaf([(64, one) for one in _IDS[:16]])),
    "leaf_last_window": ("success", "a window of 16 blocks", 16, _GOOD),
    "leaf_type": ("FormatError", "an inner node's type", 16, kit.leaf([(4, _A), (12, None)], kind=2)),
    "leaf_reserved": ("FormatError", "a byte that is not zero", 16, kit.leaf([(4, _A), (12, None)], level=1)),
    "leaf_run_zero": ("FormatError", "a chunk of no block", 16, kit.leaf([(16, _A), (0, _B)])),
    "leaf_run_long": ("FormatError", "a run of 17 blocks", 16, kit.leaf([(17, _A)])),
    "leaf_runs_short": ("FormatError", "15 of 16 blocks", 16, kit.leaf([(4, _A), (11, None)])),
    "leaf_runs_long": ("FormatError", "17 of 16 blocks", 16, kit.leaf([(4, _A), (13, None)])),
    "leaf_no_run": ("FormatError", "no run", 16, kit.leaf([])),
    "leaf_zero_zero": ("FormatError", "two runs of zeros touch", 16, kit.leaf([(4, _A), (6, None), (6, None)])),
    "leaf_all_zero": ("FormatError", "zeros only", 16, kit.leaf([(16, None)])),
    "leaf_truncated": ("FormatError", "the identifier lacks a byte", 16, _GOOD[:-1]),
    "leaf_trailing": ("FormatError", "one byte too many", 16, _GOOD + b"\0"),
    "leaf_empty": ("FormatError", "no bytes", 16, b""),
}
#: name: (expect, comment, expected level, windows from the first one of the node on, body)
_INNERS = {
    "inner_sparse": ("success", "two children of 64", 1, 64, _INNER),
    "inner_full": ("success", "64 children", 2, 4096, kit.inner(2, dict(enumerate(_IDS)))),
    "inner_last": ("success", "the last child begins with the last window", 2, 65, kit.inner(2, {0: _A, 1: _B})),
    "inner_type": ("FormatError", "a leaf's type", 1, 64, kit.inner(1, {0: _A, 3: _B}, kind=1)),
    "inner_level": ("FormatError", "another level than its place", 2, 4096, _INNER),
    "inner_reserved": ("FormatError", "a byte that is not zero", 1, 64, kit.inner(1, {0: _A, 3: _B}, zero=256)),
    "inner_no_child": ("FormatError", "an empty bitmap", 1, 64, kit.inner(1, {})),
    "inner_child_beyond": ("FormatError", "child 3 of 3 windows", 1, 3, _INNER),
    "inner_truncated": ("FormatError", "the second identifier is missing", 1, 64, _INNER[:-32]),
    "inner_trailing": ("FormatError", "one identifier too many", 1, 64, _INNER + _C),
}
_ROOTS = {
    "root_empty": ("success", "a disk of 0 bytes", kit.root(0, 0, bytes(32))),
    "root_one_byte": ("success", "a disk of 1 byte", kit.root(0, 1, _A)),
    "root_one_window": ("success", "exactly one window", kit.root(0, kit.WINDOW, _A)),
    "root_two_windows": ("success", "one byte more than a window", kit.root(1, kit.WINDOW + 1, _A)),
    "root_65_windows": ("success", "one byte more than 64 windows", kit.root(2, 64 * kit.WINDOW + 1, _A)),
    "root_zeros": ("success", "1 TiB of zeros", kit.root(3, 1024 * _GIB, bytes(32))),
    "root_largest": ("success", "2^63 - 1 bytes", kit.root(7, 2**63 - 1, _A)),
    "root_type": ("FormatError", "a leaf's type", kit.root(0, 4096, _A, kind=1)),
    "root_level": ("FormatError", "level 1 for one window", kit.root(1, 4096, _A)),
    "root_reserved": ("FormatError", "a byte that is not zero", kit.root(0, 4096, _A, zero=b"\0\0\0\0\0\1")),
    "root_empty_top": ("FormatError", "a disk of 0 bytes with a top node", kit.root(0, 0, _A)),
    "root_size": ("FormatError", "2^63 bytes", kit.root(7, 2**63, _A)),
    "root_truncated": ("FormatError", "one byte too few", _ROOT[:-1]),
    "root_trailing": ("FormatError", "one byte too many", _ROOT + b"\0"),
}


def vectors() -> Iterator[kit.Vector]:
    for name, (expect, comment, blocks, body) in _LEAVES.items():
        yield kit.Vector(name, expect, "leaf", comment, body, {"blocks": str(blocks)})
    for name, (expect, comment, level, windows, body) in _INNERS.items():
        facts = {"level": str(level), "windows": str(windows)}
        yield kit.Vector(name, expect, "inner", comment, body, facts)
    for name, (expect, comment, body) in _ROOTS.items():
        yield kit.Vector(name, expect, "root", comment, body)
    yield from _disks()


def _disks() -> Iterator[kit.Vector]:
    """Disks whose parts are sound, but do not fit each other."""
    chunk = b"\x55" * kit.BLOCK
    data = kit.segment([chunk])
    short = kit.leaf([(2, data.ids[0])])
    yield _disk("node_chunk_length", "the run has 2 blocks, its chunk 1", (8192, 8192), data, short)
    fits = kit.leaf([(1, data.ids[0])])
    yield _disk("disk_size", "the root node says 4096 bytes, the commit 4095", (4095, 4096), data, fits)
    yield _disk("disk_small", "a disk of 3 bytes; its block is padded", (3, 3), kit.segment([b"abc" + bytes(4093)]))
    inside = kit.inner(1, {0: kit.keyed("node id", fits)})
    tree = kit.segment([kit.root(1, 2 * kit.WINDOW, kit.keyed("node id", inside)), inside, fits], kit.TREE)
    comment = "a leaf of 1 block in the place of one of 1024"
    yield _packs("disk_leaf_short", comment, 2 * kit.WINDOW, kit.pack([data]), tree)
    loop = kit.segment([kit.root(0, 4096, data.ids[0])], kit.TREE)
    yield _packs("node_is_chunk", "the root names a chunk as its top node", 4096, kit.pack([data]), loop)


def _disk(name: str, comment: str, sizes: tuple[int, int], data: kit.Segment, leaf: bytes = b"") -> kit.Vector:
    """`sizes` are those in the commit and in the root node; the leaf has one run of one block unless given."""
    leaf = leaf or kit.leaf([(1, data.ids[0])])
    size, in_root = sizes
    top = kit.root(0, in_root, kit.keyed("node id", leaf))
    return _packs(name, comment, size, kit.pack([data]), kit.segment([top, leaf], kit.TREE))


def _packs(name: str, comment: str, size: int, data: bytes, tree: kit.Segment) -> kit.Vector:
    trees = kit.pack([tree])
    facts = {"size": str(size), "manifest": tree.ids[0].hex(), "packs": f"{len(data)} {len(trees)}"}
    expect = "success" if name == "disk_small" else "FormatError" if name == "disk_leaf_short" else "IntegrityError"
    if expect == "success":
        facts["content"] = b"abc".hex()
    return kit.Vector(name, expect, "disk", comment, data + trees, facts)
