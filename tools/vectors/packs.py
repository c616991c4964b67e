"""Vectors of packs, their tables and their segments (formats.md §8)."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence

from blake3 import blake3

from vectors import kit

_ONE, _TWO = b"\x55" * 4096, b"\x66" * 4096
_LEAF = kit.leaf([(1, kit.keyed("chunk id", _ONE))])
_NODES = [_LEAF, kit.root(0, 4096, kit.keyed("node id", _LEAF))]
_NOISE = blake3(b"noise").digest(4096)
_RAW = kit.segment([_NOISE])
_FRAME = kit.frame(8192, (4096, b"\x55"), (4096, b"\x66"))
_ZSTD = kit.segment([_ONE, _TWO], frame=_FRAME)
#: What a real compressor made of both, with a checksum at the end.
_COMPRESSED = bytes.fromhex("28b52ffd64001f6d0000185555660200fc07bed8bf0fb0328b0c12")


def vectors() -> Iterator[kit.Vector]:
    yield from _packs()
    yield from _tables()
    yield from _segments()
    yield from _frames()


def _pack(name: str, expect: str, comment: str, blob: bytes, slots: Sequence[bytes] = ()) -> kit.Vector:
    facts = {"random": kit.RANDOM.hex()}
    if slots:
        facts["plain"] = blake3(b"".join(slots)).hexdigest()
    return kit.Vector(name, expect, "pack", comment, blob, facts)


def _packs() -> Iterator[kit.Vector]:
    nodes = kit.segment(_NODES, kit.TREE)
    longest = b"\x55" * 262144
    packed = kit.segment([longest], frame=kit.frame(262144, (131072, b"\x55"), (131072, b"\x55")))
    good = kit.pack([_ZSTD])
    table = kit.seal(b"T", kit.table_of([_ZSTD]))
    damaged = table[:60] + bytes([table[60] ^ 1]) + table[61:]
    yield _pack("pack_raw", "success", "one segment as it is", kit.pack([_RAW]), [_NOISE])
    yield _pack("pack_zstd", "success", "one compressed segment", good, [_ONE, _TWO])
    yield _pack("pack_tree", "success", "a leaf and a root node", kit.pack([nodes]), _NODES)
    yield _pack("pack_two_segments", "success", "two segments", kit.pack([_ZSTD, _RAW]), [_ONE, _TWO, _NOISE])
    yield _pack("pack_chunk_longest", "success", "a chunk of 64 blocks", kit.pack([packed]), [longest])
    for name, copies in (("first", [damaged, table]), ("second", [table, damaged])):
        comment = f"a bit of the {name} copy of the table differs"
        yield _pack(f"pack_{name}_table_damaged", "success", comment, kit.pack([_ZSTD], copies=copies), [_ONE, _TWO])
    both = kit.pack([_ZSTD], copies=[damaged, damaged])
    yield _pack("pack_tables_damaged", "IntegrityError", "both copies of the table are damaged", both)
    size = len(table).to_bytes(4, "little")
    large = (2**31).to_bytes(4, "little") + (2**31 ^ 0xFFFFFFFF).to_bytes(4, "little")
    broken = {
        "pack_end_magic": ("another end", good[:-8] + b"vimgvcE\2"),
        "pack_end_check": ("the second length does not fit the first", good[:-16] + size + size + good[-8:]),
        "pack_end_length": ("tables of 2 GiB", good[:-16] + large + good[-8:]),
        "pack_truncated": ("the last byte is missing", good[:-1]),
        "pack_empty_file": ("an empty file", b""),
    }
    for name, (comment, blob) in broken.items():
        yield _pack(name, "FormatError", comment, blob)


def _tables() -> Iterator[kit.Vector]:
    """Tables that are sealed as they should be, but break a rule inside."""
    row, ids, lengths = kit.rows([_ZSTD])[0], _ZSTD.ids, _ZSTD.lengths
    offset, stored, plain, slots, codec, _ = row
    good = kit.table_of([_ZSTD])
    two = kit.rows([_ZSTD, _ZSTD])
    moved = two[1][0]

    def table(line: kit.Row, *, kind: int = kit.DATA, sizes: Sequence[int] = lengths) -> bytes:
        return kit.table(kind, [line], ids, sizes)

    def second(more: int) -> bytes:
        """The second segment begins later, and ends where it should."""
        line = (moved + more, stored - more, *two[1][2:])
        return kit.table(kit.DATA, [two[0], line], [*ids, *ids], [*lengths, *lengths])

    one = {
        "table_kind": ("of kind 3", table(row, kind=3)),
        "table_reserved": ("a byte that is not zero", kit.table(kit.DATA, [row], ids, lengths, zero=1)),
        "table_segment_reserved": ("a byte that is not zero", table((*row[:5], 1))),
        "table_no_segment": ("no segment", kit.table(kit.DATA, [], ids, lengths)),
        "table_no_slot": ("no slot", kit.table(kit.DATA, [(offset, stored, 0, 0, codec, 0)], [], [])),
        "table_slots_more": ("3 slots in the segment, 2 in all", table((offset, stored, plain, 3, codec, 0))),
        "table_slots_fewer": ("1 slot in the segment, 2 in all", table((offset, stored, 4096, 1, codec, 0))),
        "table_trailing": ("a byte too many", good + b"\0"),
        "table_truncated": ("the last byte is missing", good[:-1]),
        "table_counts": ("2^32 - 1 slots", kit.table(kit.DATA, [row], ids, lengths, counts=(1, 2**32 - 1))),
        "table_first_offset": ("the segment begins at 25", table((25, stored - 1, *row[2:]))),
        "table_end": ("the segment ends a byte before the table", table((offset, stored - 1, *row[2:]))),
        "table_plain_sum": ("8191 bytes in two slots of 4096", table((offset, stored, plain - 1, slots, codec, 0))),
        "table_chunk_unaligned": ("a chunk of 4095 bytes", table(row, sizes=(4095, 4097))),
        "table_chunk_zero": ("a chunk of no bytes", table(row, sizes=(0, 8192))),
        "table_chunk_long": ("a chunk of 65 blocks", _long(262144 + 4096)),
        "table_node_zero": ("a node of no bytes", table(row, kind=kit.TREE, sizes=(0, 8192))),
        "table_node_long": ("a node of 65537 bytes", _long(65537, kit.TREE)),
        "table_plain_long": ("4 MiB and 64 KiB", _large()),
        "table_stored_short": ("28 bytes stored, which is nothing", _short()),
    }
    for name, (comment, body) in one.items():
        segments = [_empty()] if name == "table_stored_short" else [_ZSTD]
        yield _pack(name, "FormatError", comment, kit.pack(segments, body))
    both = [_ZSTD, _ZSTD]
    no_slot = kit.table(kit.DATA, [two[0], (*two[1][:2], 0, 0, 0, 0)], ids, lengths)
    yield _pack("table_segment_no_slot", "FormatError", "a segment without slots", kit.pack(both, no_slot))
    yield _pack("table_gap", "FormatError", "a byte between two segments", kit.pack(both, second(1)))
    yield _pack("table_overlap", "FormatError", "two segments overlap", kit.pack(both, second(-1)))


def _long(length: int, kind: int = kit.DATA) -> bytes:
    return kit.table(kind, [(24, len(_ZSTD.stored), length, 1, 1, 0)], _ZSTD.ids[:1], [length])


def _large() -> bytes:
    lengths = [65536] * 65
    return kit.table(kit.TREE, [(24, len(_ZSTD.stored), 65536 * 65, 65, 1, 0)], [_ZSTD.ids[0]] * 65, lengths)


def _empty() -> kit.Segment:
    return kit.sealed(_ZSTD, b"")


def _short() -> bytes:
    return kit.table(kit.DATA, [(24, 28, 4096, 1, 0, 0)], _ZSTD.ids[:1], [4096])


def _segment(name: str, expect: str, comment: str, item: kit.Segment, plain: bytes = b"") -> kit.Vector:
    """`shape`, `ids` and `lengths` are what a pack's table says; `plain` is what comes out of a good one."""
    facts = {
        "shape": f"kind={item.kind} codec={item.codec} plain={item.plain} stored={len(item.stored)}",
        "ids": " ".join(one.hex() for one in item.ids),
        "lengths": " ".join(map(str, item.lengths)),
    }
    if plain:
        facts |= {"nonce": kit.NONCE.hex(), "plain": blake3(plain).hexdigest()}
    else:
        facts["released"] = "4096" if name == "segment_slot_id_last" else "0"
    return kit.Vector(name, expect, "segment", comment, item.stored, facts)


def _segments() -> Iterator[kit.Vector]:
    """Segments that are not what their table says."""
    nodes = kit.segment(_NODES, kit.TREE)
    yield _segment("segment_raw", "success", "as it is", _RAW, _NOISE)
    yield _segment("segment_zstd", "success", "compressed", _ZSTD, _ONE + _TWO)
    yield _segment("segment_tree", "success", "manifest nodes", nodes, b"".join(_NODES))

    def changed(item: kit.Segment, **fields: object) -> kit.Segment:
        return dataclasses.replace(item, **fields)  # type: ignore[arg-type]  # fields are named in place

    first, second = _ZSTD.ids
    stored = _ZSTD.stored
    flipped = {"tag": len(stored) - 1, "nonce": 0}
    cases = {
        f"segment_{name}": (f"a bit of the {name} differs", changed(_ZSTD, stored=_flip(stored, at)))
        for name, at in flipped.items()
    } | {
        "segment_truncated": ("the last byte is missing", changed(_ZSTD, stored=stored[:-1])),
        "segment_kind": ("nodes for chunks", changed(_ZSTD, kind=kit.TREE)),
        "segment_codec_changed": ("as it is, not compressed", changed(_RAW, codec=1)),
        "segment_repo": ("of another repository", kit.segment([_ONE, _TWO], repo=bytes(16))),
        "segment_plain_changed": ("a block more", changed(_ZSTD, plain=12288, lengths=(8192, 4096))),
        "segment_stored_changed": ("a byte more", changed(_ZSTD, stored=stored + b"\0")),
        "segment_id_changed": ("a bit of the first identifier differs", changed(_ZSTD, ids=(_flip(first, 0), second))),
        "segment_ids_swapped": ("the slots in another order", changed(_ZSTD, ids=(second, first))),
        "segment_id_dropped": ("one slot instead of two", changed(_ZSTD, ids=(first,), lengths=(8192,))),
    }
    for name, (comment, item) in cases.items():
        yield _segment(name, "IntegrityError", comment, item)
    unknown = kit.segment([_ONE, _TWO], frame=_FRAME, codec=2)
    yield _segment("segment_codec", "Unsupported", "a codec of later versions", unknown)
    other = bytes([9]) * 32
    last = kit.sealed(changed(_ZSTD, ids=(first, other)), _FRAME)
    yield _segment("segment_slot_id_last", "IntegrityError", "the last slot is another chunk", last)
    begin = kit.sealed(changed(_ZSTD, ids=(other, second)), _FRAME)
    yield _segment("segment_slot_id", "IntegrityError", "the first slot is another chunk", begin)
    swapped = kit.sealed(dataclasses.replace(nodes, ids=(nodes.ids[1], nodes.ids[1])), b"".join(_NODES))
    yield _segment("node_id", "IntegrityError", "the first node is another one", swapped)


def _frames() -> Iterator[kit.Vector]:
    """Segments that are sealed as they should be, with another content."""
    skippable = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"skip"
    rle = (4096, b"\x55")
    cases = {
        "segment_frame_size": ("declares 4096 of 8192 bytes", kit.frame(4096, rle)),
        "segment_frame_unsized": ("declares no size", kit.frame(8192, rle, (4096, b"\x66"), declared=False)),
        "segment_bomb": ("declares 2^32 - 4096 bytes", kit.frame(2**32 - 4096, *[(131072, b"\0")] * 32)),
        "segment_frame_more": ("yields more than it declares", kit.frame(8192, *[rle] * 3)),
        "segment_frame_less": ("yields less than it declares", kit.frame(8192, rle)),
        "segment_frame_truncated": ("the last byte is missing", _FRAME[:-1]),
        "segment_frame_trailing": ("a byte behind the frame", _FRAME + b"\0"),
        "segment_two_frames": ("an empty frame behind the frame", _FRAME + kit.frame(0, (0, b""))),
        "segment_frame_skippable": ("a skippable frame before the frame", skippable + _FRAME),
        "segment_not_a_frame": ("the chunks as they are", _ONE + _TWO),
    }
    for name, (comment, content) in cases.items():
        yield _segment(name, "FormatError", comment, kit.segment([_ONE, _TWO], frame=content))
    checked = kit.segment([_ONE, _TWO], frame=_COMPRESSED)
    yield _segment("segment_zstd_checksum", "success", "what a compressor made, with a checksum", checked, _ONE + _TWO)
    damaged = kit.segment([_ONE, _TWO], frame=_flip(_COMPRESSED, len(_COMPRESSED) - 1))
    yield _segment("segment_frame_damaged", "FormatError", "the frame's own checksum does not fit", damaged)
    raw = kit.sealed(_RAW, _NOISE + b"\0")
    yield _segment("segment_raw_length", "FormatError", "a byte more than the plain length", raw)


def _flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]
