#!/usr/bin/env python3
"""A second reader of vimgvc repositories, written from specs/ alone, which it proves to be enough.

It shares no code with vimgvc, refuses what a reader must refuse, and is made to be read, not to be fast.

    independent_reader.py REPO passphrase:FILE log
    independent_reader.py REPO keyfile:FILE restore REV[:NAME] TARGET
    independent_reader.py REPO recovery:FILE restore REV[:NAME] TARGET

REV is a branch, a tag or a commit's identifier, or how it begins, with ~N behind it if need be.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import os
import pathlib
import re
import struct
import sys
import unicodedata
from collections.abc import Iterator
from typing import Any

import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

BLOCK, WINDOW, MIB = 4096, 4 << 20, 1 << 20
HEX16, HEX32, TIME = "[0-9a-f]{32}", "[0-9a-f]{64}", "9999-99-99T99:99:99Z".replace("9", "[0-9]")
LABEL = "[^\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]{0,200}"
CONFIG: dict[str, Any] = {"chunk": dict, "features": list, "format": int, "id": HEX16}
SLOT = {"checksum": HEX32, "commitment": HEX32, "created": TIME, "id": HEX16, "kdf": dict, "label": LABEL}
SLOT |= {"type": str, "v": int, "wrap": "(?:[0-9a-f]{2}){50,4144}"}
COMMIT = dict.fromkeys(("author", "branch", "host", "message"), str) | {"time": TIME, "v": int}
COMMIT |= dict.fromkeys(("attachments", "disks", "parents"), list)
FILE = {"name": str, "manifest": HEX32, "size": int, "read_bytes": int, "new_bytes": int, "stored_bytes": int}
DISK = FILE | {"allocated_bytes": int, "changed_bytes": int, "container": dict}
REF = {"host": str, "kind": "branch|tag", "name": str, "seen": dict, "seq": int, "time": TIME, "v": int}
Segment = tuple[int, int, int, int, list[bytes], list[int]]  # offset, stored, plain, codec, identifiers, lengths


class Refused(Exception):
    """The class that the vectors expect, a colon, and a reason."""


#: Besides, a tag that does not fit, what does not decompress, and what is no JSON, UTF-8 or number.
BAD = (Refused, InvalidTag, zstandard.ZstdError, ValueError, RecursionError, OSError)


def need(condition: object, reason: str, kind: str = "FormatError") -> None:
    if not condition:
        raise Refused(f"{kind}: {reason}")


def canonical(value: object) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def parse_json(data: bytes) -> Any:  # §1
    def check(value: object, depth: int) -> None:
        need(not isinstance(value, int) or abs(value) < 1 << 63, "a number is out of range")
        if isinstance(value, dict | list):
            need(depth <= 16, "JSON is nested too deeply")
            for item in value.values() if isinstance(value, dict) else value:
                check(item, depth + 1)

    need(len(data) <= 64 * MIB, "JSON is too large")
    value = json.loads(data.decode(), parse_float=int, parse_constant=int)
    check(value, 1)
    need(canonical(value) == data, "JSON is not canonical")
    return value


def members(value: Any, rules: dict[str, Any]) -> dict[str, Any]:
    """`value`, whose members are exactly those of `rules`: of a type, not negative, or matching a pattern."""
    need(type(value) is dict and set(value) == set(rules), "members are missing or unknown")
    for name, rule in rules.items():
        kind = str if isinstance(rule, str) else rule
        need(type(value[name]) is kind and (kind is not int or value[name] >= 0), f"{name} is of the wrong type")
        need(kind is rule or re.fullmatch(rule, value[name]), f"{name} has the wrong form")
    return dict(value)


def of_version_1(value: Any) -> dict[str, Any]:
    need(type(value) is dict and type(value.get("v")) is int, "there is no version")
    need(value["v"] == 1, f"version {value['v']}", "Unsupported")
    return dict(value)


def parse_config(data: bytes) -> dict[str, Any]:  # §4
    value = parse_json(data)
    need(type(value) is dict and type(value.get("format")) is int, "the configuration has no format")
    need(value["format"] == 1, f"format {value['format']}", "Unsupported")
    features = value.get("features")
    need(type(features) is list and all(type(item) is str for item in features), "the features have the wrong form")
    need(not features, f"features {features}", "Unsupported")
    chunk = members(members(value, CONFIG)["chunk"], {"average": int, "maximum": int, "minimum": int})
    need(list(chunk.values()) in [[average, 4 * average, BLOCK] for average in (16384, 32768, 65536)], "chunk sizes")
    return dict(value)


def parse_slot(blob: bytes, name: str) -> dict[str, Any]:  # §5
    try:
        slot = parse_json(blob)
        rest = canonical({key: item for key, item in slot.items() if key != "checksum"})
        need(len(blob) <= 16384 and slot["checksum"] == blake3(rest).hexdigest(), "its checksum does not fit")
    except (*BAD, AttributeError, KeyError) as error:
        raise Refused("SlotDamaged: the key slot is damaged") from error
    need(type(of_version_1(slot).get("type")) is str, "the key slot has no type")
    need(slot["type"] in ("passphrase", "keyfile", "recovery"), f"key slot type {slot['type']}", "Unsupported")
    kdf = members(slot, SLOT)["kdf"]
    need(slot["id"] == name, "the key slot has the name of another")
    if slot["type"] == "passphrase":
        members(kdf, {"m": int, "name": "argon2id", "p": int, "salt": HEX32, "t": int})
        quarter = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 4 >> 10
        need(8192 <= kdf["m"] <= min(2097152, max(quarter, 262144)), "the key derivation's memory is out of bounds")
        need(1 <= kdf["t"] <= 16 and 1 <= kdf["p"] <= 16, "the key derivation is out of bounds")
    else:
        members(kdf, {"name": "blake3", "salt": HEX32})
    return dict(slot)


def open_slot(slot: dict[str, Any], kind: str, secret: bytes) -> tuple[bytes, bytes]:  # root key, config
    need(slot["type"] == kind, "the key slot takes another kind of secret", "NoKey")
    kdf, salt = slot["kdf"], bytes.fromhex(slot["kdf"]["salt"])
    if kind == "passphrase":
        costs = {"iterations": kdf["t"], "lanes": kdf["p"], "memory_cost": kdf["m"]}
        both = Argon2id(salt=salt, length=64, **costs).derive(secret)
    else:
        both = blake3(blake3(secret, derive_key_context="vimgvc 1 slot secret").digest(), key=salt).digest(64)
    header = canonical({key: slot[key] for key in slot if key not in ("checksum", "commitment", "wrap")})
    commitment = blake3(header, key=both[32:]).digest()
    need(hmac.compare_digest(commitment.hex(), slot["commitment"]), "the key slot does not open", "NoKey")
    plain = AESGCM(both[:32]).decrypt(bytes(12), bytes.fromhex(slot["wrap"]), header + commitment)
    return plain[:32], plain[32:]


def parse_table(body: bytes, end: int) -> tuple[int, list[Segment]]:
    """Kind and segments of a pack whose segments end at `end` (§8)."""
    need(len(body) >= 8, "the table is too short")
    kind, zero, count, slots = struct.unpack_from("<BBHI", body)
    lengths_at = 8 + 16 * count + 32 * slots
    need(kind in (1, 2) and zero == 0 and count >= 1, "the table begins wrong")
    need(len(body) == lengths_at + 4 * slots, "the table has the wrong length")
    ids = [body[at : at + 32] for at in range(8 + 16 * count, lengths_at, 32)]
    lengths = [length for (length,) in struct.iter_unpack("<I", body[lengths_at:])]
    most, unit = (262144, BLOCK) if kind == 1 else (65536, 1)
    need(all(1 <= length <= most and length % unit == 0 for length in lengths), "a slot has an impossible size")
    segments, position, first = [], 24, 0
    for offset, stored, plain, held, codec, zero in struct.iter_unpack("<IIIHBB", body[8 : 8 + 16 * count]):
        need(codec in (0, 1), f"codec {codec}", "Unsupported")
        need(offset == position and stored >= 29 and zero == 0 and held >= 1, "a segment is out of place")
        segments.append((offset, stored, plain, codec, ids[first : first + held], lengths[first : first + held]))
        need(plain <= WINDOW and sum(segments[-1][5]) == plain, "the slots do not add up to their segment")
        position, first = position + stored, first + held
    need(position == end and first == slots, "the segments do not add up to the pack")
    return kind, segments


def parse_leaf(data: bytes, blocks: int) -> list[tuple[int, bytes | None]]:
    """The runs of a window of `blocks` blocks: bytes, and the identifier of the chunk or None for zeros (§7)."""
    need(len(data) >= 4 and data[:2] == b"\1\0", "this is not a leaf")
    runs = int.from_bytes(data[2:4], "little")
    need(len(data) >= 4 + 2 * runs, "the leaf is too short")
    fields = struct.unpack_from(f"<{runs}H", data, 4)
    need(all(1 <= field & 0x7FFF <= blocks for field in fields), "a run is of an impossible length")
    need(sum(field & 0x7FFF for field in fields) == blocks, "the runs do not add up to the window")
    kinds = "".join("cz"[field >> 15] for field in fields)
    need("zz" not in kinds, "two runs of zeros touch")
    need("c" in kinds and len(data) == 4 + 2 * runs + 32 * kinds.count("c"), "the leaf has too few or many chunks")
    ids = iter([data[at : at + 32] for at in range(4 + 2 * runs, len(data), 32)])
    return [((field & 0x7FFF) * BLOCK, None if field & 0x8000 else next(ids)) for field in fields]


def parse_inner(data: bytes, level: int, below: int) -> list[tuple[int, bytes]]:
    """The children of a node of `level` with `below` windows of the disk from its first one on (§7)."""
    need(len(data) >= 12 and data[:4] == bytes([2, level, 0, 0]), "this is not an inner node of this level")
    children = [child for child in range(64) if int.from_bytes(data[4:12], "little") >> child & 1]
    need(children and len(data) == 12 + 32 * len(children), "the node has the wrong number of children")
    need(children[-1] * 64 ** (level - 1) < below, "a child lies beyond the end of the disk")
    return [(child, data[12 + 32 * at : 44 + 32 * at]) for at, child in enumerate(children)]


def parse_root(data: bytes) -> tuple[int, int, bytes]:  # level of the top node, size of the disk, top node
    need(len(data) == 48 and data[0] == 3 and data[2:8] == bytes(6) and data[15] < 128, "this is not a root")
    size = int.from_bytes(data[8:16], "little")
    level = next(level for level in range(9) if 64**level >= -(-size // WINDOW))
    need(data[1] == level and (size or not any(data[16:])), "the root has another level or top than its size needs")
    return level, size, data[16:]


class Keys:
    """The purpose keys of a repository (§3), and what they open."""

    def __init__(self, root: bytes, repo: bytes) -> None:
        purposes = ("chunk id", "node id", "commit id", "segment", "metadata", "ref name")
        keys = [blake3(root, derive_key_context="vimgvc 1 " + purpose).digest() for purpose in purposes]
        self.chunk, self.node, self.commit, self.segment, self.meta, self.ref = keys
        self.repo = repo

    def open(self, kind: bytes, blob: bytes, context: bytes = b"") -> bytes:  # §12
        need(92 <= len(blob) <= 512 * MIB, "the sealed object has an impossible size")
        need(blake3(blob[:-32]).digest() == blob[-32:], "the sealed object is damaged", "IntegrityError")
        need(blob[:7] == b"vimgvc" + kind, "this is a sealed object of another type")
        need(blob[7] == 1, f"sealed objects of version {blob[7]}", "Unsupported")
        need(len(blob) == 76 + int.from_bytes(blob[40:44], "little"), "the sealed object has another length")
        key = blake3(kind + blob[8:40], key=self.meta).digest()
        plain = AESGCM(key).decrypt(bytes(12), blob[44:-32], blob[:44] + self.repo + context)
        end = 4 + int.from_bytes(plain[:4], "little")
        exponent = end.bit_length() - 1
        low = (1 << exponent - exponent.bit_length()) - 1
        need(len(plain) == (end + low) & ~low, "the padding has the wrong length")
        need(not any(plain[end:]), "the padding is not zero")
        return plain[4:end]

    def open_pack(self, blob: bytes) -> tuple[int, list[Segment]]:
        need(40 <= len(blob) <= 256 * MIB and blob[-8:] == b"vimgvcE\1", "the pack has no end")
        length, inverse = struct.unpack("<II", blob[-16:-8])
        end = len(blob) - 16 - 2 * length
        need(length ^ inverse == 0xFFFFFFFF and end >= 24, "the end of the pack is damaged")
        try:
            return parse_table(self.open(b"T", blob[end : end + length]), end)
        except BAD:
            return parse_table(self.open(b"T", blob[end + length : end + 2 * length]), end)

    def open_segment(self, stored: bytes, kind: int, segment: Segment) -> list[bytes]:
        _, length, plain, codec, ids, lengths = segment
        head = b"vimgvcS\1" + struct.pack("<BBH16sIII", kind, codec, 0, self.repo, plain, length, len(ids))
        key = blake3(head + b"".join(ids), key=self.segment).digest()
        data = AESGCM(key).decrypt(stored[:12], stored[12:], head + b"".join(ids))
        need(codec == 0 or zstandard.frame_content_size(data) == plain, "the frame declares another size")
        if codec == 1:
            data = zstandard.ZstdDecompressor().decompress(data, max_output_size=plain, allow_extra_data=False)
        need(len(data) == plain, "the segment has another length")
        slots = [data[sum(lengths[:at]) :][:size] for at, size in enumerate(lengths)]
        key = self.chunk if kind == 1 else self.node
        need([blake3(slot, key=key).digest() for slot in slots] == ids, "a slot is another one", "IntegrityError")
        return slots

    def parse_commit(self, body: bytes, name: str) -> dict[str, Any]:  # §10
        need(blake3(body, key=self.commit).hexdigest() == name, "this is another commit", "IntegrityError")
        commit = members(of_version_1(parse_json(body)), COMMIT)
        named = [members(item, FILE) for item in commit["attachments"]]
        need(all(type(item) is str and re.fullmatch(HEX32, item) for item in commit["parents"]), "bad parents")
        named += [members(disk, DISK) for disk in commit["disks"]]
        need(len({item["name"] for item in named}) == len(named), "a disk or attachment is named twice")
        return {**commit, "id": name}

    def parse_ref(self, body: bytes, blind: str, seq: int) -> dict[str, Any]:  # §11
        entry = of_version_1(parse_json(body))
        members(entry, REF | {name: HEX32 if entry.get(name) else type(None) for name in ("commit", "prev")})
        need(entry["seq"] == seq, "the entry is out of sequence")
        name = f"{entry['kind']}\0{entry['name']}".encode()
        need(blake3(name, key=self.ref).hexdigest(16) == blind, "the entry belongs to another name")
        for other, seen in entry["seen"].items():
            need(re.fullmatch(HEX16, other) and type(seen) is list and len(seen) == 2 and seen[0], "seen is malformed")
            members(dict(zip("nh", seen, strict=True)), {"n": int, "h": HEX32})
        return dict(entry)


class Repository:
    """A directory as §2 describes it, opened with a secret."""

    def __init__(self, path: pathlib.Path, kind: str, secret: bytes) -> None:
        self.path, self.opened = path, dict[int, tuple[Segment, list[bytes]]]()
        self.places: dict[tuple[int, bytes], list[tuple[pathlib.Path, Segment, int]]] = {}
        root, config = self.unlock(kind, secret)
        if [file.read_bytes() for file in self.files("", "config")] != [config]:
            print("config is damaged or missing; the key slot's is believed", file=sys.stderr)
        self.keys = Keys(root, bytes.fromhex(parse_config(config)["id"]))
        for file in sorted(file for area in self.files("packs", "..") for file in area.glob("[0-9a-f]" * 64)):
            try:
                held, segments = self.keys.open_pack(file.read_bytes())
                for segment in segments:
                    for at, identifier in enumerate(segment[4]):
                        self.places.setdefault((held, identifier), []).append((file, segment, at))
            except BAD as error:
                print(f"{file} is not used: {error}", file=sys.stderr)

    def files(self, area: str, pattern: str) -> list[pathlib.Path]:
        return sorted(file for file in (self.path / area).glob("*") if re.fullmatch(pattern, file.name))

    def unlock(self, kind: str, secret: bytes) -> tuple[bytes, bytes]:
        reasons = "NoKey: no key slot opens"
        for file in self.files("keys", HEX16 + "-[01]"):
            try:
                return open_slot(parse_slot(file.read_bytes(), file.name[:32]), kind, secret)
            except BAD as error:
                reasons += f"\n  {file.name}: {error}"
        raise Refused(reasons)

    def slot(self, identifier: bytes, kind: int) -> bytes:
        """A chunk (1) or a node (2), from the first of its places that is not damaged."""
        reasons = f"IntegrityError: {identifier.hex()} cannot be read"
        for file, segment, at in self.places.get((kind, identifier), []):
            try:
                if kind not in self.opened or self.opened[kind][0] is not segment:
                    with file.open("rb") as pack:
                        pack.seek(segment[0])
                        self.opened[kind] = segment, self.keys.open_segment(pack.read(segment[1]), kind, segment)
                return self.opened[kind][1][at]
            except BAD as error:
                reasons += f"\n  {file.name}: {error}"
        raise Refused(reasons)

    def names(self) -> dict[str, str]:
        found = {}
        for log in self.files("refs", HEX16):
            before, entry = None, dict[str, Any]()
            for seq, file in enumerate(self.files(f"refs/{log.name}", "[0-9a-f]{16}"), 1):
                blob = file.read_bytes()
                body = self.keys.open(b"R", blob, bytes.fromhex(log.name) + struct.pack("<Q", seq))
                entry = self.keys.parse_ref(body, log.name, seq)
                need(entry["prev"] == before and int(file.name, 16) == seq, f"{file} is out of line", "IntegrityError")
                before = blake3(blob).hexdigest()
            if entry.get("commit"):
                found[entry["name"]] = entry["commit"]
        return found

    def commit(self, name: str) -> dict[str, Any]:
        blob = (self.path / "commits" / name).read_bytes()
        return self.keys.parse_commit(self.keys.open(b"C", blob, bytes.fromhex(name)), name)

    def resolve(self, rev: str) -> dict[str, Any]:
        name, _, back = rev.partition("~")
        begins = [file.name for file in self.files("commits", HEX32) if file.name.startswith(name)]
        (found,) = [self.names()[name]] if name in self.names() else begins
        for _ in range(int(back or 0)):
            found = self.commit(found)["parents"][0]
        return self.commit(found)

    def history(self) -> list[dict[str, Any]]:
        waiting, done = set(self.names().values()), dict[str, dict[str, Any]]()
        while waiting:
            commit = self.commit(waiting.pop())
            done[commit["id"]] = commit
            waiting |= set(commit["parents"]) - done.keys()
        return sorted(done.values(), key=lambda commit: str(commit["time"]), reverse=True)

    def chunks(self, node: bytes, level: int, first: int, size: int) -> Iterator[tuple[int, bytes, int]]:
        """Offset, identifier and length of every chunk below a node."""
        at = first * WINDOW
        if level:
            for child, below in parse_inner(self.slot(node, 2), level, -(-size // WINDOW) - first):
                yield from self.chunks(below, level - 1, first + child * 64 ** (level - 1), size)
            return
        for length, identifier in parse_leaf(self.slot(node, 2), -(-min(WINDOW, size - at) // BLOCK)):
            if identifier is not None:
                yield at, identifier, length
            at += length

    def restore(self, commit: dict[str, Any], name: str, target: pathlib.Path) -> None:
        named = [item for item in commit["disks"] + commit["attachments"] if item["name"] == name]
        (disk,) = named if name else commit["disks"]
        level, size, top = parse_root(self.slot(bytes.fromhex(disk["manifest"]), 2))
        need(size == disk["size"], "the manifest has another size", "IntegrityError")
        with target.open("xb") as file:
            file.truncate(size)
            for at, identifier, length in self.chunks(top, level, 0, size) if any(top) else ():
                data = self.slot(identifier, 1)
                need(len(data) == length, "the chunk is not as long as its run", "IntegrityError")
                file.seek(at)
                file.write(data[: size - at])


def read_secret(text: str) -> tuple[str, bytes]:  # crypto.md §7
    kind, _, name = text.partition(":")
    value = pathlib.Path(name).read_bytes()
    if kind != "keyfile":
        value = value.removesuffix(b"\n").removesuffix(b"\r")
    if kind == "passphrase":
        with contextlib.suppress(UnicodeDecodeError):
            value = unicodedata.normalize("NFC", value.decode()).encode()
    if kind == "recovery":
        digits = value.decode().upper().translate(str.maketrans("OIL", "011", " -"))
        number = sum("0123456789ABCDEFGHJKMNPQRSTVWXYZ".index(digit) << 175 - 5 * at for at, digit in enumerate(digits))
        check = blake3((number >> 20).to_bytes(20), derive_key_context="vimgvc 1 recovery checksum").digest()
        need(len(digits) == 36 and number & 0xFFFFF == int.from_bytes(check[:3]) >> 4, "the code is mistyped", "NoKey")
        value = (number >> 20).to_bytes(20)
    return kind, value


if __name__ == "__main__":
    try:
        match sys.argv[1:]:
            case [path, secret, "log"]:
                for commit in Repository(pathlib.Path(path), *read_secret(secret)).history():
                    print(commit["id"], commit["time"], commit["branch"], commit["message"].partition("\n")[0])
            case [path, secret, "restore", what, target]:
                repository, (rev, _, name) = Repository(pathlib.Path(path), *read_secret(secret)), what.partition(":")
                repository.restore(repository.resolve(rev), name, pathlib.Path(target))
            case _:
                sys.exit(__doc__)
    except BAD as error:
        sys.exit(f"independent_reader.py: {error}")
