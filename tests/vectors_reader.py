"""How the independent reader reads each kind of vector it knows."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import independent_reader as reader
import zstandard
from blake3 import blake3
from cryptography.exceptions import InvalidTag
from vectors import kit

from tests import vector_file

#: It finds its way without index objects, recovery kits and what nobody has admitted.
UNKNOWN = {"admitted", "collection", "delivery", "forgotten", "index", "kit", "pin", "promised", "write_slot"}


def _keys(vector: vector_file.Vector) -> reader.Keys:
    return reader.Keys(vector.root, vector.repo)


def _json(vector: vector_file.Vector, _: pathlib.Path) -> None:
    reader.parse_json(vector.body)


def _config(vector: vector_file.Vector, _: pathlib.Path) -> None:
    reader.parse_config(vector.body)


def _config_file(vector: vector_file.Vector, directory: pathlib.Path) -> None:
    (directory / "keys").mkdir()
    (directory / "config").write_bytes(vector.body)
    (directory / "keys" / ("01" * 16 + "-0")).write_bytes(bytes.fromhex(vector.facts["slot"]))
    kind, secret = vector.facts["secret"].split()
    found = reader.Repository(directory, kind, bytes.fromhex(secret))
    assert found.keys.repo == vector.repo


def _slot(vector: vector_file.Vector, _: pathlib.Path) -> None:
    kind, secret = vector.facts["secret"].split()
    root, config = reader.open_slot(reader.parse_slot(vector.body, vector.facts["name"]), kind, bytes.fromhex(secret))
    assert (root, config.hex()) == (vector.root, vector.facts["config"])


def _sealed(vector: vector_file.Vector, _: pathlib.Path) -> None:
    kind, context = vector.facts["type"].encode(), bytes.fromhex(vector.facts["context"])
    assert _keys(vector).open(kind, vector.body, context).hex() == vector.facts["plain"]


def _commit(vector: vector_file.Vector, _: pathlib.Path) -> None:
    body = _keys(vector).open(b"C", vector.body, bytes.fromhex(vector.facts["name"]))
    _keys(vector).parse_commit(body, vector.facts["name"])


def _log(vector: vector_file.Vector, directory: pathlib.Path) -> None:
    log = directory / "refs" / vector.facts["blind"]
    log.mkdir(parents=True)
    for seq, blob in vector.entries():
        (log / f"{seq:016x}").write_bytes(blob)
    _open(vector, directory).names()


def _pack(vector: vector_file.Vector, _: pathlib.Path) -> None:
    kind, segments = _keys(vector).open_pack(vector.body)
    plain = b""
    for segment in segments:
        stored = vector.body[segment[0] : segment[0] + segment[1]]
        plain += b"".join(_keys(vector).open_segment(stored, kind, segment))
    assert blake3(plain).hexdigest() == vector.facts["plain"]


def _segment(vector: vector_file.Vector, _: pathlib.Path) -> None:
    shape = {name: int(value) for name, value in (item.split("=") for item in vector.facts["shape"].split())}
    ids = [bytes.fromhex(one) for one in vector.facts["ids"].split()]
    lengths = [int(length) for length in vector.facts["lengths"].split()]
    segment = (24, shape["stored"], shape["plain"], shape["codec"], ids, lengths)
    reader.need(shape["codec"] in (0, 1), "its table says so", "Unsupported")
    slots = _keys(vector).open_segment(vector.body, shape["kind"], segment)
    assert blake3(b"".join(slots)).hexdigest() == vector.facts["plain"]


def _leaf(vector: vector_file.Vector, _: pathlib.Path) -> None:
    reader.parse_leaf(vector.body, int(vector.facts["blocks"]))


def _inner(vector: vector_file.Vector, _: pathlib.Path) -> None:
    reader.parse_inner(vector.body, int(vector.facts["level"]), int(vector.facts["windows"]))


def _root(vector: vector_file.Vector, _: pathlib.Path) -> None:
    reader.parse_root(vector.body)


def _disk(vector: vector_file.Vector, directory: pathlib.Path) -> None:
    for blob in vector.parts("packs"):
        name = blake3(blob).hexdigest()
        (directory / "packs" / name[:2]).mkdir(parents=True, exist_ok=True)
        (directory / "packs" / name[:2] / name).write_bytes(blob)
    disk = {"name": "vm", "size": int(vector.facts["size"]), "manifest": vector.facts["manifest"]}
    target = directory / "restored"
    _open(vector, directory).restore({"disks": [disk], "attachments": []}, "vm", target)
    assert target.read_bytes().hex() == vector.facts["content"]


def _open(vector: vector_file.Vector, directory: pathlib.Path) -> reader.Repository:
    """The directory, with a key slot for the keys of the vector."""
    secret = bytes(range(32))
    (directory / "keys").mkdir()
    slot = kit.slot("keyfile", secret, kit.dumps(kit.config(id=vector.repo.hex())))
    (directory / "keys" / ("01" * 16 + "-0")).write_bytes(slot)
    return reader.Repository(directory, "keyfile", secret)


READERS: dict[str, Callable[[vector_file.Vector, pathlib.Path], None]] = {
    "json": _json,
    "config": _config,
    "config_file": _config_file,
    "slot": _slot,
    "sealed": _sealed,
    "commit": _commit,
    "log": _log,
    "pack": _pack,
    "segment": _segment,
    "leaf": _leaf,
    "inner": _inner,
    "root": _root,
    "disk": _disk,
}


def outcome(vector: vector_file.Vector, directory: pathlib.Path) -> str:
    """The class that the reader's refusal stands for, or "success"; `directory` is empty."""
    try:
        READERS[vector.kind](vector, directory)
    except reader.Refused as error:
        return str(error).partition(":")[0]
    except InvalidTag:
        return "IntegrityError"
    except (zstandard.ZstdError, ValueError, RecursionError):
        return "FormatError"
    return "success"
