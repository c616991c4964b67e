"""Vectors of sealed objects (formats.md §12), index objects (§9), commits (§10) and ref logs (§11)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from blake3 import blake3

from vectors import kit

_CONTEXT = bytes(range(0x10, 0x20))
_BODY = b"what is inside"
_GOOD = kit.seal(b"C", _BODY, _CONTEXT)


def vectors() -> Iterator[kit.Vector]:
    yield from _sealed()
    yield from _indexes()
    yield from _commits()
    yield from _logs()


def _flip(data: bytes, at: int) -> bytes:
    """One bit changed."""
    at %= len(data)
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def _again(data: bytes) -> bytes:
    """With the trailing hash made to fit."""
    return kit.with_hash(data[:-32])


def _plain(length: int, body: bytes, zeros: int) -> bytes:
    """A plaintext that claims `length` bytes."""
    return kit.seal(b"C", body, _CONTEXT, plain=length.to_bytes(4, "little") + body + bytes(zeros))


def _sealed() -> Iterator[kit.Vector]:
    for name, size in (("empty", 0), ("one_byte", 1), ("unpadded", 60), ("padded", 1000)):
        body = bytes(at % 251 for at in range(size))
        facts = {"type": "C", "context": _CONTEXT.hex(), "random": kit.RANDOM.hex(), "plain": body.hex()}
        blob = kit.seal(b"C", body, _CONTEXT)
        yield kit.Vector(f"sealed_{name}", "success", "sealed", f"a body of {size} bytes", blob, facts)
    long = _BODY + bytes(100)
    damaged = {
        "sealed_checksum": ("a bit of the ciphertext differs", _flip(_GOOD, 50)),
        "sealed_truncated": ("the last byte is missing", _GOOD[:-1]),
        "sealed_tag": ("a bit of the tag differs, the hash fits", _again(_flip(_GOOD, -33))),
        "sealed_salt": ("a bit of the salt differs, the hash fits", _again(_flip(_GOOD, 8))),
        "sealed_type_forged": ("a ref entry whose type byte was changed", _again(_flip(_other_type(), 6))),
        "sealed_context": ("sealed for another place", kit.seal(b"C", _BODY, bytes(16))),
        "sealed_repo": ("sealed for another repository", kit.seal(b"C", _BODY, _CONTEXT, repo=bytes(16))),
        "sealed_key": ("sealed with another root key", kit.seal(b"C", _BODY, _CONTEXT, root=bytes(32))),
    }
    for name, (comment, blob) in damaged.items():
        yield _bad(name, "IntegrityError", comment, blob)
    broken = {
        "sealed_empty_file": ("an empty file", b""),
        "sealed_short": ("91 bytes, with a hash that fits", kit.with_hash(_GOOD[:59])),
        "sealed_magic": ("another beginning", kit.seal(b"C", _BODY, _CONTEXT, head=b"vimgvdC\1")),
        "sealed_type": ("of type B, which does not exist", kit.seal(b"C", _BODY, _CONTEXT, head=b"vimgvcB\1")),
        "sealed_length": ("the length field is one too large", _again(_flip(_GOOD, 40))),
        "sealed_trailing": ("a byte before the trailing hash", kit.with_hash(_GOOD[:-32] + b"\0")),
        "sealed_padding": ("the last byte of the padding is 1", kit.seal(b"C", long, _CONTEXT, plain=_dirty(long))),
        "sealed_padding_more": ("padded to one unit too many", _plain(60, bytes(60), 4)),
        "sealed_padding_less": ("not padded", _plain(len(long), long, 0)),
        "sealed_length_inside": ("claims more bytes than there are", _plain(100, _BODY, 0)),
        "sealed_no_length": ("a plaintext of 3 bytes", kit.seal(b"C", _BODY, _CONTEXT, plain=bytes(3))),
    }
    for name, (comment, blob) in broken.items():
        yield _bad(name, "FormatError", comment, blob)
    later = kit.seal(b"C", _BODY, _CONTEXT, head=b"vimgvcC\2")
    yield _bad("sealed_version_unknown", "Unsupported", "of version 2", later)


def _other_type() -> bytes:
    """Of type B, one bit from C."""
    return kit.seal(b"B", _BODY, _CONTEXT)


def _dirty(body: bytes) -> bytes:
    plain = kit.plaintext(body)
    assert len(plain) > 4 + len(body)
    return plain[:-1] + b"\1"


def _bad(name: str, expect: str, comment: str, blob: bytes) -> kit.Vector:
    return kit.Vector(name, expect, "sealed", comment, blob, {"type": "C", "context": _CONTEXT.hex()})


def _indexes() -> Iterator[kit.Vector]:
    packs = [(bytes([7]) * 32, 5000, 300, kit.DATA), (bytes([3]) * 32, 2**33, 400, kit.TREE)]
    low, middle, high = (bytes([first]) * 31 + b"\1" for first in (0x01, 0x7F, 0x80))
    good = kit.index(packs, [(low, 1, 0, 0), (middle, 0, 65535, 65535), (high, 0, 1, 2)])
    cases = {
        "index_nothing": ("success", "neither packs nor entries", kit.index([], [])),
        "index_two_packs": ("success", "three entries in two packs", good),
        "index_order": ("FormatError", "0x80… before 0x7f…", kit.index(packs, [(high, 0, 0, 0), (middle, 0, 0, 1)])),
        "index_twice": ("FormatError", "an identifier twice", kit.index(packs, [(low, 0, 0, 0), (low, 1, 0, 0)])),
        "index_pack_number": ("FormatError", "pack 2 of 2", kit.index(packs, [(low, 2, 0, 0)])),
        "index_no_pack": ("FormatError", "pack 0 of none", kit.index([], [(low, 0, 0, 0)])),
        "index_counts": ("FormatError", "2^32 - 1 entries in 8 bytes", kit.index([], [], (0, 2**32 - 1))),
        "index_truncated": ("FormatError", "the last byte is missing", good[:-1]),
        "index_trailing": ("FormatError", "a byte too many", good + b"\0"),
        "index_body_empty": ("FormatError", "no counts", b""),
    }
    for name, (expect, comment, body) in cases.items():
        facts = {"random": kit.RANDOM.hex()}
        yield kit.Vector(name, expect, "index", comment, kit.seal(b"I", body), facts)


_COMMITS: dict[str, tuple[str, str, dict[str, object]]] = {
    "commit_first": ("success", "the first of a branch", {}),
    "commit_two_disks": ("success", "two disks", {"disks": [kit.disk("a", 2**40), kit.disk("b", 511, read_bytes=511)]}),
    "commit_merge": ("success", "two parents, no disk", {"parents": ["01" * 32, "02" * 32], "disks": []}),
    "commit_text": ("success", "a message of several lines and scripts", {"message": 'é\n"鍵"\t\\\x7f\u2028\x00'}),
    "commit_version_unknown": ("Unsupported", "of version 2", {"v": 2}),
    "commit_attachments": ("success", "two attachments", {"attachments": [kit.attachment(), kit.attachment("a")]}),
    "commit_attachment_member": ("FormatError", "an unknown member", {"attachments": [kit.attachment(container={})]}),
    "commit_attachment_twice": ("FormatError", "one name", {"attachments": [kit.attachment(), kit.attachment()]}),
    "commit_attachment_like_disk": ("FormatError", "named as the disk", {"attachments": [kit.attachment("vm")]}),
    "commit_member": ("FormatError", "an unknown member", {"more": 1}),
    "commit_member_missing": ("FormatError", "no author", {"author": None}),
    "commit_time": ("FormatError", "a time in digits of another script", {"time": "\u0662\u066026-01-02T03:04:05Z"}),
    "commit_parents_text": ("FormatError", "one parent, not a list", {"parents": "01" * 32}),
    "commit_parent_upper": ("FormatError", "a parent in upper case", {"parents": ["AB" * 32]}),
    "commit_manifest_short": ("FormatError", "31 bytes", {"disks": [kit.disk(manifest="01" * 31)]}),
    "commit_size_negative": ("FormatError", "a disk of -1 bytes", {"disks": [kit.disk(size=-1)]}),
    "commit_number_boolean": ("FormatError", "true bytes", {"disks": [kit.disk(new_bytes=True)]}),
    "commit_disk_member": ("FormatError", "an unknown member of a disk", {"disks": [kit.disk(more=1)]}),
    "commit_disk_twice": ("FormatError", "two disks of one name", {"disks": [kit.disk(), kit.disk()]}),
}


def _commits() -> Iterator[kit.Vector]:
    for name, (expect, comment, changes) in _COMMITS.items():
        yield _commit(name, expect, comment, kit.dumps(kit.commit(**changes)))
    good = kit.dumps(kit.commit())
    yield _commit("commit_not_object", "FormatError", "a list", b"[]")
    yield _commit("commit_trailing", "FormatError", "a line feed at the end", good + b"\n")
    other = bytes(31) + b"\1"
    yield _commit("commit_id", "IntegrityError", "sealed for an identifier that is not its own", good, other)
    blob = kit.seal(b"C", good, kit.keyed("commit id", good))
    facts = {"name": other.hex()}
    yield kit.Vector("commit_name", "IntegrityError", "commit", "served under another name", blob, facts)


def _commit(name: str, expect: str, comment: str, body: bytes, commit_id: bytes = b"") -> kit.Vector:
    commit_id = commit_id or kit.keyed("commit id", body)
    facts = {"name": commit_id.hex(), "random": kit.RANDOM.hex()}
    return kit.Vector(name, expect, "commit", comment, kit.seal(b"C", body, commit_id), facts)


_SEEN: dict[str, object] = {"00" * 16: [3, "ab" * 32], "ff" * 16: [2**63 - 1, "cd" * 32]}
#: name: (expect, comment, the entry)
_ENTRIES = {
    "ref_first": ("success", "the first entry", kit.entry()),
    "ref_seen_others": ("success", "two other logs were seen", kit.entry(seen=_SEEN)),
    "ref_version_unknown": ("Unsupported", "of version 2", kit.entry(v=2, more=1)),
    "ref_kind": ("FormatError", "a tag in the place of a branch", kit.entry(kind="tag")),
    "ref_name": ("FormatError", "another name than its place", kit.entry(name="vm2")),
    "ref_seq": ("FormatError", "the second entry in the place of the first", kit.entry(seq=2)),
    "ref_member": ("FormatError", "an unknown member", kit.entry(more=1)),
    "ref_time": ("FormatError", "a time without Z", kit.entry(time="2026-01-02T03:04:05")),
    "ref_commit_upper": ("FormatError", "a commit in upper case", kit.entry(commit="AB" * 32)),
    "ref_seen": ("FormatError", "entry 0 was seen", kit.entry(seen={"00" * 16: [0, "ab" * 32]})),
    "ref_seen_name": ("FormatError", "a name in the clear", kit.entry(seen={"vm": [1, "ab" * 32]})),
    "ref_prev_of_first": ("IntegrityError", "something before the first", kit.entry(prev="ab" * 32)),
}


def _logs() -> Iterator[kit.Vector]:
    for name, (expect, comment, entry) in _ENTRIES.items():
        yield _log(name, expect, comment, [(1, kit.seal(b"R", kit.dumps(entry), kit.place()))])
    lacking = {name: item for name, item in kit.entry().items() if name != "seen"}
    first = kit.seal(b"R", kit.dumps(lacking), kit.place())
    yield _log("ref_member_missing", "FormatError", "no 'seen'", [(1, first)])

    one = kit.seal(b"R", kit.dumps(kit.entry()), kit.place())
    two = _next(2, one)
    three = _next(3, two, commit=None)
    tag = kit.seal(b"R", kit.dumps(kit.entry(kind="tag", name="v1")), kit.place(name="v1", kind="tag"))
    yield _log("ref_moved", "success", "two entries", [(1, one), (2, two)])
    yield _log("ref_deleted", "success", "three entries, the last deletes the name", [(1, one), (2, two), (3, three)])
    yield _log("ref_tag", "success", "a tag", [(1, tag)], kit.blind("v1", "tag"))
    note = kit.seal(b"R", kit.dumps(kit.entry(kind="note")), kit.place(kind="note"))
    comment = "neither branch nor tag, in the place for it"
    yield _log("ref_kind_unknown", "FormatError", comment, [(1, note)], kit.blind(kind="note"))
    yield _log("ref_gap", "IntegrityError", "entry 3 follows entry 1", [(1, one), (3, _next(3, one))])
    forked = kit.seal(b"R", kit.dumps(kit.entry(2, prev="ab" * 32)), kit.place(2))
    yield _log("ref_prev", "IntegrityError", "entry 2 follows another entry 1", [(1, one), (2, forked)])
    yield _log("ref_old_for_new", "IntegrityError", "entry 1 again in the place of entry 2", [(1, one), (2, one)])
    yield _log("ref_place", "IntegrityError", "the entry of another name", [(1, tag)])


def _next(seq: int, before: bytes, **changes: object) -> bytes:
    entry = kit.entry(seq, prev=blake3(before).hexdigest(), **changes)
    return kit.seal(b"R", kit.dumps(entry), kit.place(seq))


def _log(name: str, expect: str, comment: str, entries: Sequence[tuple[int, bytes]], blind: bytes = b"") -> kit.Vector:
    facts = {
        "blind": (blind or kit.blind()).hex(),
        "entries": " ".join(f"{seq}:{len(blob)}" for seq, blob in entries),
        "random": kit.RANDOM.hex(),
    }
    return kit.Vector(name, expect, "log", comment, b"".join(blob for _, blob in entries), facts)
