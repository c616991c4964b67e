"""An encoder of repositories of format 1, written from specs/ and sharing no code with vimgvc.

Everything is deterministic: what writers draw at random is an argument here. Functions take what a
rule fixes as a keyword, so that a vector breaks one rule and keeps the others.
"""

from __future__ import annotations

import itertools
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from blake3 import blake3
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

ROOT, REPO = bytes(range(32)), bytes(range(0xA0, 0xB0))
RANDOM, NONCE = bytes(range(0x40, 0x60)), bytes(range(0x60, 0x6C))
TIME = "2026-01-02T03:04:05Z"
BLOCK, WINDOW = 4096, 4 << 20
DATA, TREE = 1, 2
_ESCAPES = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}
_LINE = 32


@dataclass(frozen=True)
class Vector:
    """One file: `expect` is a class of errors or "success"; `facts` are further lines of its head."""

    name: str
    expect: str
    kind: str
    comment: str
    body: bytes
    facts: dict[str, str] = field(default_factory=dict)
    root: bytes = ROOT
    repo: bytes = REPO

    def text(self) -> str:
        head = {"expect": self.expect, "kind": self.kind, "keys": f"root={self.root.hex()} repo={self.repo.hex()}"}
        lines = [f"{name}: {value}" for name, value in {**head, **self.facts, "comment": self.comment}.items()]
        lines.append("")
        lines += [self.body[at : at + _LINE].hex() for at in range(0, len(self.body), _LINE)]
        return "\n".join(lines) + "\n"


def dumps(value: object) -> bytes:
    """Canonical JSON (formats.md §1)."""
    return _json(value).encode()


def _json(value: object) -> str:
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    if isinstance(value, int):
        return str(value)
    if isinstance(value, str):
        signs = (_ESCAPES.get(sign) or (f"\\u00{ord(sign):02x}" if sign < " " else sign) for sign in value)
        return '"' + "".join(signs) + '"'
    if isinstance(value, dict):
        return "{" + ",".join(f"{_json(name)}:{_json(value[name])}" for name in sorted(value)) + "}"
    assert isinstance(value, list)
    return "[" + ",".join(_json(item) for item in value) + "]"


def purpose(name: str, root: bytes = ROOT) -> bytes:
    """A purpose key (§3)."""
    return blake3(root, derive_key_context="vimgvc 1 " + name).digest()


def keyed(name: str, data: bytes) -> bytes:
    """An identifier: the hash of `data` with a purpose key."""
    return blake3(data, key=purpose(name)).digest()


# §12 sealed objects


def padme(length: int) -> int:
    e, power = -1, 1
    while power <= length:
        e, power = e + 1, power * 2
    s, power = 0, 1
    while power <= e:
        s, power = s + 1, power * 2
    unit: int = 1 << max(e - s, 0)
    return -(-length // unit) * unit


def plaintext(body: bytes) -> bytes:
    """What is encrypted: length, body, padding."""
    plain = struct.pack("<I", len(body)) + body
    return plain + bytes(padme(len(plain)) - len(plain))


def seal(
    kind: bytes,
    body: bytes,
    context: bytes = b"",
    *,
    plain: bytes | None = None,
    head: bytes = b"",
    sealed_as: bytes = b"",
    root: bytes = ROOT,
    repo: bytes = REPO,
) -> bytes:
    """A sealed object; `head` replaces its first 8 bytes, `sealed_as` the type in the key only."""
    salt = blake3(RANDOM + kind + repo + context + body, key=purpose("hedge", root)).digest()
    plain = plaintext(body) if plain is None else plain
    head = (head or b"vimgvc" + kind + b"\1") + salt + struct.pack("<I", len(plain) + 16)
    key = blake3((sealed_as or kind) + salt, key=purpose("metadata", root)).digest()
    return with_hash(head + AESGCM(key).encrypt(bytes(12), plain, head + repo + context))


def with_hash(data: bytes) -> bytes:
    return data + blake3(data).digest()


# §8 packs


@dataclass(frozen=True)
class Segment:
    """`ids` and `lengths` are of the slots, `stored` is the nonce with the ciphertext."""

    kind: int
    codec: int
    plain: int
    ids: tuple[bytes, ...]
    lengths: tuple[int, ...]
    stored: bytes

    def associated(self, repo: bytes = REPO, *, stored: int = 0) -> bytes:
        head = b"vimgvcS" + bytes([1, self.kind, self.codec, 0, 0]) + repo
        return head + struct.pack("<III", self.plain, stored or len(self.stored), len(self.ids)) + b"".join(self.ids)


def segment(
    slots: Sequence[bytes], kind: int = DATA, *, frame: bytes | None = None, codec: int = 0, repo: bytes = REPO
) -> Segment:
    """The segment of `slots`; with a `frame` its content, whatever it is, and codec 1 unless told otherwise."""
    name = "chunk id" if kind == DATA else "node id"
    data = b"".join(slots) if frame is None else frame
    shape = Segment(
        kind=kind,
        codec=codec if frame is None else codec or 1,
        plain=sum(map(len, slots)),
        ids=tuple(keyed(name, slot) for slot in slots),
        lengths=tuple(map(len, slots)),
        stored=bytes(len(data) + 28),
    )
    return sealed(shape, data, repo)


def sealed(shape: Segment, data: bytes, repo: bytes = REPO) -> Segment:
    """`shape` with `data` sealed in it."""
    associated = shape.associated(repo, stored=len(data) + 28)
    key = blake3(associated, key=purpose("segment")).digest()
    stored = NONCE + AESGCM(key).encrypt(NONCE, data, associated)
    return Segment(shape.kind, shape.codec, shape.plain, shape.ids, shape.lengths, stored)


def frame(size: int, *blocks: tuple[int, bytes], declared: bool = True, magic: int = 0xFD2FB528) -> bytes:
    """A zstd frame (RFC 8878) of raw blocks (0, bytes) and blocks of one byte repeated (times, byte)."""
    head = struct.pack("<IBI", magic, 0xA0, size) if declared else struct.pack("<IBB", magic, 0, 0x38)
    out = [head]
    for at, (times, data) in enumerate(blocks):
        last, kind = at == len(blocks) - 1, 1 if times else 0
        out.append(struct.pack("<I", (times or len(data)) << 3 | kind << 1 | last)[:3] + data)
    return b"".join(out)


Row = tuple[int, int, int, int, int, int]  # offset, stored, plain, slots, codec, 0


def rows(segments: Sequence[Segment]) -> list[Row]:
    ends = list(itertools.accumulate((len(item.stored) for item in segments), initial=24))
    return [
        (at, len(item.stored), item.plain, len(item.ids), item.codec, 0)
        for at, item in zip(ends, segments, strict=False)
    ]


def table(
    kind: int,
    lines: Sequence[Row],
    ids: Sequence[bytes],
    lengths: Sequence[int],
    *,
    zero: int = 0,
    counts: tuple[int, int] | None = None,
) -> bytes:
    """The body of a pack's table; `counts` are those of segments and slots."""
    head = struct.pack("<BBHI", kind, zero, *(counts or (len(lines), len(ids))))
    body = b"".join(struct.pack("<IIIHBB", *line) for line in lines)
    return head + body + b"".join(ids) + struct.pack(f"<{len(lengths)}I", *lengths)


def table_of(segments: Sequence[Segment]) -> bytes:
    ids = [one for item in segments for one in item.ids]
    return table(segments[0].kind, rows(segments), ids, [one for item in segments for one in item.lengths])


def pack(segments: Sequence[Segment], body: bytes | None = None, *, copies: Sequence[bytes] = ()) -> bytes:
    """A pack whose table has this `body`, or these `copies`."""
    copies = copies or [seal(b"T", table_of(segments) if body is None else body)] * 2
    size = len(copies[0])
    end = struct.pack("<II", size, size ^ 0xFFFFFFFF) + b"vimgvcE\1"
    return b"".join([b"vimgvcP\1", REPO, *(item.stored for item in segments), *copies, end])


# §9 index objects


def index(
    packs: Sequence[tuple[bytes, int, int, int]],
    entries: Sequence[tuple[bytes, int, int, int]],
    counts: tuple[int, int] | None = None,
) -> bytes:
    """`packs` are name, size, length of the table, kind; `entries` identifier, pack, segment, slot."""
    head = struct.pack("<II", *(counts or (len(packs), len(entries))))
    lines = b"".join(struct.pack("<32sQII", *line) for line in packs)
    return head + lines + b"".join(entry[0] for entry in entries) + b"".join(
        struct.pack("<IHH", *entry[1:]) for entry in entries
    )  # fmt: skip


# §7 manifests


def leaf(runs: Sequence[tuple[int, bytes | None]], *, kind: int = 1, level: int = 0, count: int | None = None) -> bytes:
    """`runs` are a number of blocks and the identifier of the chunk, or None for zeros."""
    head = struct.pack("<BBH", kind, level, len(runs) if count is None else count)
    fields = b"".join(struct.pack("<H", blocks | (0x8000 if name is None else 0)) for blocks, name in runs)
    return head + fields + b"".join(name for _, name in runs if name is not None)


def inner(level: int, children: dict[int, bytes], *, kind: int = 2, zero: int = 0) -> bytes:
    bitmap = sum(2**child for child in children)
    return struct.pack("<BBHQ", kind, level, zero, bitmap) + b"".join(children[child] for child in sorted(children))


def root(level: int, size: int, top: bytes, *, kind: int = 3, zero: bytes = bytes(6)) -> bytes:
    return bytes([kind, level]) + zero + struct.pack("<Q", size) + top


# §5 key slots


def slot(
    kind: str,
    secret: bytes,
    config: bytes,
    *,
    number: int = 1,
    changes: dict[str, object] | None = None,
    after: dict[str, object] | None = None,
    bad_commitment: bool = False,
) -> bytes:
    """`changes` are made before anything is computed, `after` before the checksum; None removes a member."""
    salt = bytes([number]) * 32
    kdf: dict[str, object] = {"name": "blake3", "salt": salt.hex()}
    if kind == "passphrase":
        kdf = {"m": 8192, "name": "argon2id", "p": 1, "salt": salt.hex(), "t": 1}
        both = Argon2id(salt=salt, length=64, iterations=1, lanes=1, memory_cost=8192).derive(secret)
    else:
        stretched = blake3(secret, derive_key_context="vimgvc 1 slot secret").digest()
        both = blake3(stretched, key=salt).digest(64)
    facts: dict[str, object] = {
        "created": TIME,
        "id": bytes([number]).hex() * 16,
        "kdf": kdf,
        "label": "",
        "type": kind,
    }
    facts = _without_none({**facts, "v": 1, **(changes or {})})
    header = dumps(facts)
    commitment = blake3(header, key=both[32:]).digest()
    if bad_commitment:
        commitment = bytes(32)
    wrap = AESGCM(both[:32]).encrypt(bytes(12), ROOT + config, header + commitment)
    facts = _without_none({**facts, "commitment": commitment.hex(), "wrap": wrap.hex(), **(after or {})})
    return dumps({**facts, "checksum": blake3(dumps(facts)).hexdigest()})


def _without_none(members: dict[str, object]) -> dict[str, object]:
    return {name: item for name, item in members.items() if item is not None}


def config(average: int = 65536, **changes: object) -> dict[str, object]:
    chunk = {"average": average, "maximum": 4 * average, "minimum": 4096}
    return {"chunk": chunk, "features": [], "format": 1, "id": REPO.hex(), **changes}


# §10 commits, §11 ref logs


def disk(name: str = "vm", size: int = 0, **changes: object) -> dict[str, object]:
    counters = dict.fromkeys(("allocated_bytes", "read_bytes", "changed_bytes", "new_bytes", "stored_bytes"), 0)
    manifest = keyed("node id", root(0, 0, bytes(32))).hex()
    return {"name": name, "size": size, "manifest": manifest, "container": {"format": "raw"}, **counters, **changes}


def attachment(name: str = "vm.ovf", size: int = 0, **changes: object) -> dict[str, object]:
    """An attachment of zeros in a commit."""
    counters = dict.fromkeys(("read_bytes", "new_bytes", "stored_bytes"), 0)
    return {"name": name, "size": size, "manifest": disk()["manifest"], **counters, **changes}


def commit(**changes: object) -> dict[str, object]:
    members: dict[str, object] = {"attachments": [], "author": "ann", "branch": "vm", "disks": [disk()], "host": "h"}
    return _without_none({**members, "message": "first", "parents": [], "time": TIME, "v": 1, **changes})


def blind(name: str = "vm", kind: str = "branch") -> bytes:
    return keyed("ref name", kind.encode() + b"\0" + name.encode())[:16]


def entry(seq: int = 1, **changes: object) -> dict[str, object]:
    """An entry of a ref log; here None is null."""
    members: dict[str, object] = {"commit": bytes(range(32)).hex(), "host": "h", "kind": "branch", "name": "vm"}
    return {**members, "prev": None, "seen": {}, "seq": seq, "time": TIME, "v": 1, **changes}


def place(seq: int = 1, name: str = "vm", kind: str = "branch") -> bytes:
    """The context of an entry."""
    return blind(name, kind) + struct.pack("<Q", seq)
