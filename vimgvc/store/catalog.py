"""Opening the index: index objects, and whatever packs they do not know or that are gone."""

from __future__ import annotations

import pathlib
from collections.abc import Iterable
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.codec import aead, sealing
from vimgvc.monitor import Monitor
from vimgvc.store import index, objects

#: The reason of a missing pack that is not there at all.
ABSENT = "is missing"


@dataclass(frozen=True, slots=True)
class Catalog:
    """The index, and how it differs from what index objects say.

    `missing` are packs that they promise but that are absent or of another size, and which of the
    two; `unreadable` packs that no readable index object names and whose own tables are damaged;
    `adopted` counts those whose tables could be read.
    """

    index: index.Index
    missing: dict[str, str]
    unreadable: dict[str, str]
    adopted: int


def open_catalog(
    backend: protocol.Backend,
    seals: sealing.Sealing,
    cache: pathlib.Path | None,
    monitor: Monitor,
    *,
    condemned: Iterable[str] = (),
) -> Catalog:
    """The index of what is really there.

    Chunks of missing packs count as absent, so that the next commit that has their data stores it
    again and heals the commits before it. So do those of `condemned` packs, which nobody may begin to
    rely on (specs/repository.md §9). `cache` is a directory of this user, or None.
    """
    names = {item.name.partition("/")[2] for item in backend.list("index")}
    found = index.Index.open(sorted(names), lambda name: load_index(backend, seals, name), cache, monitor)
    there = objects.pack_sizes(backend.list("packs"))
    known: dict[str, set[int]] = {}
    for item in found.packs():
        known.setdefault(item.name, set()).add(item.size)
    missing = {
        name: f"has {there[name]} bytes instead of {max(sizes)}" if name in there else ABSENT
        for name, sizes in known.items()
        if there.get(name) not in sizes
    }
    found.drop_packs(missing)
    going = frozenset(condemned)
    strangers = {name: size for name, size in there.items() if name not in known and name not in going}
    unreadable = _adopt(backend, seals, found, strangers)
    for name, reason in sorted({**missing, **unreadable}.items()):
        monitor.problem(f"pack {name[:12]} {reason}")
    found.drop_packs(going)
    return Catalog(found, missing, unreadable, len(strangers) - len(unreadable))


def load_index(backend: protocol.Backend, seals: sealing.Sealing, name: str) -> bytes:
    """The body of an index object; raises `IntegrityError`, `NotFound`."""
    where = f"index {name[:12]}"
    try:
        blob = backend.get(f"index/{name}")
        body = seals.open(aead.INDEX, blob, where)
    except errors.Unsupported as error:
        raise errors.FormatError(where, f"is of a later version ({error.feature})") from error
    except errors.BackendError as error:
        if error.kind != "EIO":
            raise
        raise errors.IntegrityError(where, f"cannot be read: {error.message}") from error
    if sealing.blob_hash(blob) != name:
        raise errors.IntegrityError(where, "is stored under another name")
    return body


def _adopt(
    backend: protocol.Backend, seals: sealing.Sealing, found: index.Index, strangers: dict[str, int]
) -> dict[str, str]:
    """Take in packs that no index object names: left by an interrupted commit, or their index is lost.

    Returns those that cannot be read, with the reason.
    """
    unreadable = {}
    for name, size in sorted(strangers.items()):
        try:
            table, length = objects.load_table(backend, seals, name)
        except errors.IntegrityError as error:
            unreadable[name] = error.reason
            continue
        except (errors.BackendError, errors.Unsupported) as error:
            unreadable[name] = f"cannot be read: {error.message}"
            continue
        except errors.NotFound:
            continue
        segments, slots = table.places()
        found.add_pack(bytes.fromhex(name), size, length, table.kind, table.ids, segments, slots)
    return unreadable
