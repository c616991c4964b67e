"""What is left of a damaged repository."""

from __future__ import annotations

from tests import repos
from vimgvc import errors
from vimgvc.repo import repository


def readable(repo: repository.Repository) -> set[bytes]:
    """The identifiers of all chunks and nodes that can be read from some pack."""
    store = repo.objects(repos.Collector())
    found: set[bytes] = set()
    for item in store.index.packs():
        try:
            table = store.table(item.number)
        except errors.VimgvcError:
            continue
        for number in range(len(table.segments)):
            try:
                _, plain = store.read_segment(item.number, number)
            except errors.VimgvcError:
                continue
            ids, offsets, lengths = table.slots(number)
            for slot, (start, length) in enumerate(zip(offsets.tolist(), lengths.tolist(), strict=True)):
                if store.seals.slot_id(table.kind, plain[start : start + length]) == ids[32 * slot :][:32]:
                    found.add(ids[32 * slot :][:32])
    return found
