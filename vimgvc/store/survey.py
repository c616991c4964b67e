"""What to do with each pack once it is known which slots are needed."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np

from vimgvc import errors
from vimgvc.monitor import Monitor
from vimgvc.store import mark, objects, pack, pack_table

#: Packs below this size are merged when there are `_MANY` of a kind.
_SMALL = pack.TARGET_SIZE // 4
_MANY = 10


@dataclass(frozen=True, slots=True)
class Survey:
    """`dead` packs hold nothing that is needed, `rewritten` ones something that is; the others stay.

    Bytes: `unused` is what the packs hold that nobody needs, `total` what all of them take.
    """

    dead: tuple[pack_table.Pack, ...]
    rewritten: tuple[pack_table.Pack, ...]
    unused: int
    total: int


def survey(marker: mark.Marker, max_unused: float, monitor: Monitor, doubt: Collection[str] = ()) -> Survey:
    """At most `max_unused` (0 … 1) of what the packs take afterwards is unused.

    Packs of `doubt` (names) do not stay, whatever they hold: somebody may remove them.
    """
    dead: list[pack_table.Pack] = []
    whole: list[pack_table.Pack] = []
    partial: list[tuple[float, int, pack_table.Pack]] = []
    rewritten: list[pack_table.Pack] = []
    unused = total = 0
    for item in marker.layout.packs:
        total += item.size
        flags = marker.live[marker.layout.range(item.number)]
        if not flags.any():
            unused += item.size
            dead.append(item)
        elif item.name in doubt:
            unused += 0 if flags.all() else unused_bytes(marker, item, monitor)
            rewritten.append(item)
        elif flags.all():
            whole.append(item)
        else:
            wasted = unused_bytes(marker, item, monitor)
            unused += wasted
            partial.append((wasted / item.size, wasted, item))
    # Of what is needed, so that the same again finds nothing to do.
    allowed = max_unused * (total - unused)
    for _, wasted, item in sorted(partial, key=lambda one: (one[0], one[2].number)):
        allowed -= wasted
        (whole if allowed >= 0 else rewritten).append(item)
    rewritten += _small(whole)
    return Survey(tuple(dead), tuple(sorted(rewritten, key=lambda item: item.number)), unused, total)


def _small(kept: list[pack_table.Pack]) -> list[pack_table.Pack]:
    found = []
    for kind in pack.MAX_SLOT:
        small = [item for item in kept if item.kind == kind and item.size < _SMALL]
        found += small if len(small) >= _MANY else []
    return found


def unused_bytes(marker: mark.Marker, item: pack_table.Pack, monitor: Monitor) -> int:
    """What the slots that nobody needs take, compressed, in proportion to their plain bytes."""
    try:
        table = marker.store.table(item.number)
    except objects.UNREADABLE as error:
        monitor.problem(f"{error}; pack {item.name[:12]} stays as it is")
        return 0
    needed = flags_of(marker, item.number, table)
    lengths = np.where(needed, 0, table.lengths.astype(np.int64))
    wasted = np.add.reduceat(lengths, table.first_slot)
    return int((wasted * table.segments["stored"] // table.segments["plain"]).sum())


def flags_of(marker: mark.Marker, number: int, table: pack.Table) -> mark.Flags:
    """Which slots of a pack's table are needed.

    Raises `IntegrityError` where the index says that a needed slot holds something else than the table does.
    """
    flags = np.zeros(len(table.ids), np.bool_)
    for at, (first, count) in enumerate(zip(table.first_slot.tolist(), table.segments["slots"].tolist(), strict=True)):
        known = marker.live[marker.layout.segment_range(number, at)]
        flags[first : first + min(count, len(known))] = known[:count]
    if int(flags.sum()) != int(marker.live[marker.layout.range(number)].sum()):
        raise errors.IntegrityError(f"pack {marker.store.index.pack(number).name[:12]}", "lacks what the index says")
    _check_places(marker, number, table, flags)
    return flags


def _check_places(marker: mark.Marker, number: int, table: pack.Table, flags: mark.Flags) -> None:
    ids = table.ids[flags]
    places = marker.store.index.lookup(ids)
    segments, slots = (column[flags] for column in table.places())
    there = places.found & (marker.layout.canonical[np.where(places.found, places.pack, 0)] == number)
    there &= (places.segment == segments) & (places.slot == slots)
    for at in np.flatnonzero(~there).tolist():
        wanted = (number, int(segments[at]), int(slots[at]))
        listed = marker.store.index.lookup_all(ids[at].tobytes())
        if wanted not in {(int(marker.layout.canonical[one.pack]), one.segment, one.slot) for one in listed}:
            raise errors.IntegrityError(
                f"pack {marker.store.index.pack(number).name[:12]}", "is not what the index says"
            )
