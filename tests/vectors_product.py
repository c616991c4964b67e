"""How the package reads each kind of vector: the same public decoders that commands use.

A reader takes a vector and returns what encoding the result again gives; it raises what the package
raises. `released` counts what left the pipeline towards a disk.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable

from blake3 import blake3
from vectors import kit

from tests import repos, vector_file
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import aead, compress, deliveries, keys, sealing, segment, slots
from vimgvc.disk import memory as disk_memory
from vimgvc.model import commit, encoding, manifest
from vimgvc.repo import config, forgetting, gcrecords, inbox, keyring, pins, promises, refs, repository
from vimgvc.store import index_object, pack


class RecordingDisk(disk_memory.MemoryDisk):
    """Counts the bytes that were released to it."""

    released = 0

    def pwrite(self, offset: int, data: memoryview) -> None:
        self.released += len(data)
        super().pwrite(offset, data)


def _seals(vector: vector_file.Vector) -> sealing.Sealing:
    return sealing.Sealing(keys.PurposeKeys(vector.root), vector.repo, _random(vector))


def _random(vector: vector_file.Vector) -> aead.Rng:
    random = bytes.fromhex(vector.facts.get("random", ""))
    return lambda length: random[:length]


def _json(vector: vector_file.Vector) -> bytes:
    return encoding.dumps_canonical(encoding.loads_canonical(vector.body, vector.name))


def _config(vector: vector_file.Vector) -> bytes:
    return config.decode(vector.body).encode()


def _secret(vector: vector_file.Vector) -> keys.Secret:
    kind, _, value = vector.facts["secret"].partition(" ")
    return keys.Secret(kind, bytes.fromhex(value))


def _config_file(vector: vector_file.Vector) -> bytes:
    backend, monitor = memory.MemoryBackend(), repos.Collector()
    backend.put("config", [vector.body])
    slot = bytes.fromhex(vector.facts["slot"])
    backend.put(f"keys/{slots.describe_slot(slot).id}-0", [slot])
    backend.put(f"keys/{slots.describe_slot(slot).id}-1", [slot])
    repo = repository.Repository.open(backend, [_secret(vector)], monitor=monitor)
    assert repo.config.encode().hex() == vector.facts["config"]
    assert len(monitor.problems) == 1
    return vector.body


def _slot(vector: vector_file.Vector) -> bytes:
    backend, name = memory.MemoryBackend(), vector.facts["name"]
    for copy in "01":
        backend.put(f"keys/{name}-{copy}", [vector.body])
    unlocked = keyring.Keyring(backend).unlock(_secret(vector))
    assert (unlocked.root, unlocked.config.hex()) == (vector.root, vector.facts["config"])
    return encoding.dumps_canonical(encoding.loads_canonical(vector.body, vector.name))


def _kit(vector: vector_file.Vector) -> bytes:
    repo_id, blobs = keyring.parse_kit(vector.body)
    listed = [encoding.loads_canonical(blob, vector.name) for blob in blobs.values()]
    again = encoding.dumps_canonical({"repository": repo_id, "slots": listed, "v": 1})
    return again + b"\n" * vector.body.endswith(b"\n")


def _sealed(vector: vector_file.Vector) -> bytes:
    seals, kind, context = _seals(vector), vector.facts["type"].encode(), bytes.fromhex(vector.facts["context"])
    body = seals.open(kind, vector.body, vector.name, context)
    assert body.hex() == vector.facts["plain"]
    return seals.seal(kind, body, context)


def _commit(vector: vector_file.Vector) -> bytes:
    repo = _repository(vector)
    name = vector.facts["name"]
    repo.backend.put(f"commits/{name}", [vector.body])
    found = repo.graph.load(name)
    assert commit.decode(found.id, found.encode()) == found
    return repo.seals.seal(aead.COMMIT, found.encode(), context=bytes.fromhex(name))


def _log(vector: vector_file.Vector) -> bytes:
    backend, seals, blind = memory.MemoryBackend(), _seals(vector), vector.facts["blind"]
    for seq, blob in vector.entries():
        backend.put(f"refs/{blind}/{seq:016x}", [blob])
    read = list(refs.Refs(backend, seals).walk(blind))
    contexts = [bytes.fromhex(blind) + struct.pack("<Q", ref.seq) for ref in read]
    again = [seals.seal(aead.REF, ref.entry.encode(), context) for ref, context in zip(read, contexts, strict=True)]
    return b"".join(again)


def _forgotten(vector: vector_file.Vector) -> bytes:
    backend, seals, name = memory.MemoryBackend(), _seals(vector), vector.facts["name"]
    backend.put(forgetting.name(name), [vector.body])
    record = forgetting.Records(backend, seals).read(name)
    return seals.seal(aead.FORGOTTEN, record.encode(), bytes.fromhex(name))


def _promised(vector: vector_file.Vector) -> bytes:
    backend, seals, name = memory.MemoryBackend(), _seals(vector), vector.facts["name"]
    backend.put(promises.name(name), [vector.body])
    promise = promises.Promises(backend, seals).read(name)
    return seals.seal(aead.PROMISED, promise.encode(), bytes.fromhex(name))


def _pin(vector: vector_file.Vector) -> bytes:
    backend, seals, name = memory.MemoryBackend(), _seals(vector), vector.facts["name"]
    backend.put(pins.name(name), [vector.body])
    pin = pins.Pins(backend, seals).read(name)
    return seals.seal(aead.PIN, pin.encode(), bytes.fromhex(name))


def _write_slot(vector: vector_file.Vector) -> bytes:
    slot = slots.open_write_slot(vector.body, vector.root)
    assert slot.branch.encode().hex() == vector.facts["branch"]
    return encoding.dumps_canonical(encoding.loads_canonical(vector.body, vector.name))


def _delivery(vector: vector_file.Vector) -> bytes:
    slot = slots.open_write_slot(bytes.fromhex(vector.facts["slot"]), vector.root)
    delivery, ephemeral = (bytes.fromhex(vector.facts[name]) for name in ("delivery", "ephemeral"))
    found = deliveries.unseal(vector.body, slot, vector.repo, delivery, vector.name)
    fresh = deliveries.Fresh(found.root, delivery, ephemeral)
    return deliveries.seal(
        deliveries.write_key(vector.repo.hex(), slot), fresh, (found.commit, found.moment), _random(vector)
    )


def _admitted(vector: vector_file.Vector) -> bytes:
    backend, seals, name = memory.MemoryBackend(), _seals(vector), vector.facts["name"]
    backend.put(inbox.place(name, inbox.DONE), [vector.body])
    record = inbox.Records(backend, seals).read(name)
    return seals.seal(aead.ADMITTED, record.encode(), bytes.fromhex(name))


def _collection(vector: vector_file.Vector) -> bytes:
    backend, seals, name = memory.MemoryBackend(), _seals(vector), vector.facts["name"]
    backend.put(f"gc/{name}", [vector.body])
    epoch, phase = int(name[:16], 16), name[17:]
    record = gcrecords.Records(backend, seals).read(epoch, phase)
    return seals.seal(aead.COLLECTION, record.encode(), struct.pack("<Q", epoch) + phase.encode())


def _index(vector: vector_file.Vector) -> bytes:
    seals = _seals(vector)
    body = index_object.decode(seals.open(aead.INDEX, vector.body, vector.name), vector.name)
    return seals.seal(aead.INDEX, index_object.encode(body))


def _pack(vector: vector_file.Vector) -> bytes:
    seals, blob = _seals(vector), vector.body
    table, _ = pack.read_table(
        vector.name,
        len(blob),
        lambda offset, length: blob[offset : offset + length],
        lambda data, where: seals.open(aead.TABLE, data, where),
    )
    plains = []
    builder = pack.Builder(table.kind, vector.repo, bytearray(len(blob)))
    for number in range(len(table.segments)):
        offset, shape = table.shape(number)
        ids, starts, lengths = table.slots(number)
        stored = memoryview(blob)[offset : offset + shape.stored_length]
        plains.append(_open(seals, shape, stored, ids, lengths.tolist()))
        builder.add(shape, stored, ids, lengths.tolist())
        assert starts.tolist() == [sum(lengths.tolist()[:at]) for at in range(len(lengths))]
    assert blake3(b"".join(plains)).hexdigest() == vector.facts["plain"]
    again = b"".join(bytes(part) for part in builder.finish(lambda body: seals.seal(aead.TABLE, body)).parts)
    return blob if "damaged" in vector.name else again


def _open(seals: sealing.Sealing, shape: segment.Shape, stored: memoryview, ids: bytes, lengths: list[int]) -> bytes:
    """The plain bytes of a segment with every slot checked."""
    plain = seals.opener().open(shape, stored, ids, "segment")
    for at, length in enumerate(lengths):
        start = sum(lengths[:at])
        seals.check_slot(shape.kind, plain[start : start + length], ids[32 * at : 32 * at + 32], "slot")
    return plain


def _shape(vector: vector_file.Vector) -> tuple[segment.Shape, bytes, list[int]]:
    """What a table says: the shape, the identifiers and the lengths of the slots."""
    facts = {name: int(value) for name, value in (item.split("=") for item in vector.facts["shape"].split())}
    shape = segment.Shape(facts["kind"], facts["codec"], facts["plain"], facts["stored"])
    return shape, bytes.fromhex(vector.facts["ids"]), [int(length) for length in vector.facts["lengths"].split()]


def _segment(vector: vector_file.Vector) -> bytes:
    seals = _seals(vector)
    shape, ids, lengths = _shape(vector)
    plain = _open(seals, shape, memoryview(vector.body), ids, lengths)
    assert blake3(plain).hexdigest() == vector.facts["plain"]
    if shape.codec == compress.ZSTD:
        return vector.body  # another version of zstd makes another frame of it
    nonce = bytes.fromhex(vector.facts["nonce"])
    sealer = segment.Sealer(seals.keys.segment, seals.repo, lambda: nonce, level=1, verify=True, capacity=len(plain))
    return bytes(sealer.seal(shape.kind, bytearray(plain), len(plain), ids)[1])


def restore_segment(vector: vector_file.Vector, target: disk_memory.MemoryDisk) -> None:
    """Restore a disk whose only segment is that of the vector, told as its table tells it."""
    shape, ids, lengths = _shape(vector)
    names = [ids[at : at + 32] for at in range(0, len(ids), 32)]
    item = kit.Segment(shape.kind, shape.codec, shape.plain_length, tuple(names), tuple(lengths), vector.body)
    leaf = kit.leaf([(length // kit.BLOCK, name) for length, name in zip(lengths, names, strict=True)])
    root = kit.root(0, sum(lengths), kit.keyed("node id", leaf))
    tree = kit.segment([root, leaf], kit.TREE)
    restore(vector, [kit.pack([item]), kit.pack([tree])], tree.ids[0].hex(), target)


def disk_of(vector: vector_file.Vector) -> RecordingDisk:
    """As large as the slots of the vector are told to be."""
    return RecordingDisk(sum(_shape(vector)[2]))


def released(vector: vector_file.Vector) -> int:
    """Bytes that reach the target of such a restore."""
    target = disk_of(vector)
    with contextlib.suppress(errors.VimgvcError):
        restore_segment(vector, target)
    return target.released


def _leaf(vector: vector_file.Vector) -> bytes:
    return manifest.decode_leaf(vector.body, int(vector.facts["blocks"])).encode()


def _inner(vector: vector_file.Vector) -> bytes:
    return manifest.decode_inner(vector.body, int(vector.facts["level"]), int(vector.facts["windows"])).encode()


def _root(vector: vector_file.Vector) -> bytes:
    return manifest.decode_root(vector.body).encode()


def _repository(vector: vector_file.Vector, *packs: bytes) -> repository.Repository:
    """A repository opened with the vector's keys, holding `packs` and nothing else."""
    backend = memory.MemoryBackend()
    for blob in packs:
        name = sealing.blob_hash(blob)
        backend.put(pack.blob_name(name), [blob])
    unlocked = keyring.Unlocked(vector.root, kit.dumps(kit.config(id=vector.repo.hex())))
    return repository.Repository.open(backend, unlocked=unlocked, rng=_random(vector))


def _disk(vector: vector_file.Vector) -> bytes:
    size = int(vector.facts["size"])
    target = RecordingDisk(size)
    restore(vector, vector.parts("packs"), vector.facts["manifest"], target)
    assert target.content().hex() == vector.facts["content"]
    return vector.body


def restore(vector: vector_file.Vector, packs: list[bytes], root: str, target: disk_memory.MemoryDisk) -> None:
    """Restore the disk with the root node `root` from nothing but `packs`."""
    disk = commit.Disk("vm", target.size, root, {}, 0, 0, 0, 0, 0)
    _repository(vector, *packs).open_disk(disk).restore(target, repos.Collector(), threads=1)


READERS: dict[str, Callable[[vector_file.Vector], bytes]] = {
    "json": _json,
    "config": _config,
    "config_file": _config_file,
    "slot": _slot,
    "kit": _kit,
    "sealed": _sealed,
    "commit": _commit,
    "log": _log,
    "index": _index,
    "collection": _collection,
    "forgotten": _forgotten,
    "pin": _pin,
    "promised": _promised,
    "write_slot": _write_slot,
    "delivery": _delivery,
    "admitted": _admitted,
    "pack": _pack,
    "segment": _segment,
    "leaf": _leaf,
    "inner": _inner,
    "root": _root,
    "disk": _disk,
}


def outcome(vector: vector_file.Vector) -> str:
    """The class of the error, or "success" if the vector is read and encodes to itself again."""
    try:
        again = READERS[vector.kind](vector)
    except errors.VimgvcError as error:
        return type(error).__name__
    return "success" if again == vector.body else "another encoding"
