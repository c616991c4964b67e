"""What tests of the index share: index objects in a dictionary, and identifiers that clash."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import numpy.typing as npt

from vimgvc import errors
from vimgvc.store import index, index_object

Ids = npt.NDArray[np.uint8]
Entry = tuple[bytes, int, int]


class Objects:
    """The bodies of index objects by name; `loads` are the names that were read, in order."""

    def __init__(self) -> None:
        self.bodies: dict[str, bytes] = {}
        self.loads: list[str] = []
        self.damaged: set[str] = set()

    def load(self, name: str) -> bytes:
        self.loads.append(name)
        if name not in self.bodies:
            raise errors.NotFound("index object", name)
        if name in self.damaged:
            raise errors.IntegrityError(f"index {name[:12]}", "checksum")
        return self.bodies[name]

    def store(self, body: index_object.Body) -> str:
        data = index_object.encode(body)
        name = hashlib.sha256(data).hexdigest()
        self.bodies[name] = data
        return name

    def save(self, of: index.Index) -> list[str]:
        """Store what `of` has not saved; the names of the new objects."""
        names = []
        for body in of.take_unsaved():
            names.append(self.store(body))
            of.mark_saved(body, names[-1])
        return names


class Problems:
    """A monitor that keeps what it is told."""

    def __init__(self) -> None:
        self.messages: list[str] = []

    def start(self, task: str, total: int, unit: str = "bytes") -> None: ...
    def advance(self, amount: int, *, new: int = 0, stored: int = 0) -> None: ...
    def note(self, message: str) -> None: ...

    def problem(self, message: str) -> None:
        self.messages.append(message)


def pack_name(number: int) -> bytes:
    """The name of a pack; never zero, and different in every byte that counts."""
    return hashlib.sha256(b"pack %d" % number).digest()


def random_ids(count: int, seed: int) -> Ids:
    return np.random.default_rng(seed).integers(0, 256, (count, 32), np.uint8)


def as_array(ids: Iterable[bytes]) -> Ids:
    return np.frombuffer(b"".join(ids), np.uint8).reshape(-1, 32)


def body_of(entries: Sequence[tuple[bytes, Entry]], packs: Sequence[bytes]) -> index_object.IndexBody:
    """A body from (identifier, (pack name, segment, slot)), identifiers unique, in any order."""
    ordered = sorted(entries)
    rows = np.zeros(len(packs), index_object.PACK)
    for row, name in zip(rows, packs, strict=True):
        row["name"] = np.frombuffer(name, np.uint8)
        row["size"], row["table_length"], row["kind"] = 1000, 100, 1
    places = np.array([(packs.index(pack), segment, slot) for _, (pack, segment, slot) in ordered], index_object.PLACE)
    return index_object.IndexBody(rows, as_array(item for item, _ in ordered), places)


def add(to: index.Index, pack: bytes, ids: Ids, segments: Sequence[int] | None = None) -> int:
    """Add a pack of 1000 bytes; entry i is slot i of its segment, which is 0 unless told."""
    columns = np.array(segments if segments is not None else np.zeros(len(ids)), np.uint16)
    return to.add_pack(pack, 1000, 100, 1, ids, columns, np.arange(len(ids)).astype(np.uint16))


def places_of(of: index.Index, item: bytes) -> set[Entry]:
    """Every place of one identifier, with the pack's name for its number."""
    return {(bytes.fromhex(of.pack(place.pack).name), place.segment, place.slot) for place in of.lookup_all(item)}


def answers(of: index.Index, ids: Ids) -> list[Entry | None]:
    """What `lookup` says for each of `ids`."""
    found = of.lookup(ids)
    columns = zip(found.found, found.pack.tolist(), found.segment.tolist(), found.slot.tolist(), strict=True)
    return [
        (bytes.fromhex(of.pack(pack).name), segment, slot) if there else None for there, pack, segment, slot in columns
    ]


def run_all(tasks: Sequence[Callable[[], None]]) -> None:
    """Run `tasks` in threads that start together; raises the first failure."""
    import concurrent.futures
    import threading

    barrier = threading.Barrier(len(tasks))

    def start(task: Callable[[], None]) -> None:
        barrier.wait()
        task()

    with concurrent.futures.ThreadPoolExecutor(len(tasks)) as pool:
        for future in [pool.submit(start, task) for task in tasks]:
            future.result()
