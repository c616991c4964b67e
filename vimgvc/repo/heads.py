"""A fingerprint of where all ref logs end, short enough to be noted on paper (specs/repository.md §11).

It names, by number and hash, the last entries that no other last entry tells of: those that were made last, one as a
rule. What they tell, and what the entries tell that they tell of, is everything. So whoever finds these entries again,
and all that they tell, has a repository that holds at least what it held when the fingerprint was made.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.repo import refs

if TYPE_CHECKING:
    from vimgvc.repo.repository import Repository

_DIGITS = 20
_PART = re.compile(r"(0|[1-9][0-9]{0,18})-([0-9a-f]{20})", re.ASCII)
#: Number and first digits of the hash of each entry.
Wanted = tuple[tuple[int, str], ...]


def read(repo: Repository) -> dict[str, refs.Ref]:
    """The last entry of every log; raises `IntegrityError` for one that cannot be read."""
    return {ref.blind: ref for ref in repo.logs.read_all(sorted(repo.logs.ends().items()))}


def fingerprint(repo_id: str, ends: Mapping[str, refs.Ref]) -> str:
    """Of the last entries `ends`; of a repository that has none yet its identifier."""
    told = {(blind, *map(str, end)) for ref in ends.values() for blind, end in ref.entry.seen.items()}
    last = sorted((ref.seq, ref.hash) for ref in ends.values() if (ref.blind, str(ref.seq), ref.hash) not in told)
    return "+".join(f"{seq}-{text[:_DIGITS]}" for seq, text in last or [(0, repo_id)])


def parse(typed: str) -> Wanted:
    """Raises `UsageError`."""
    matches = [_PART.fullmatch(part) for part in typed.strip().lower().split("+")]
    found = tuple([(int(match[1]), match[2]) for match in matches if match])
    if len(found) != len(matches):
        raise errors.UsageError(
            f"not what 'vimgvc head' prints: {typed!r}", hint="it looks like 12-0123456789abcdef0123"
        )
    return found


def check(repo: Repository, wanted: Wanted) -> None:
    """Raise `Rollback` unless the repository holds what was noted, and all that it tells.

    Reads what was added since. Raises `IntegrityError` for an entry on the way that is damaged.
    """
    if any(seq == 0 and not repo.id.startswith(digits) for seq, digits in wanted):
        raise _behind(repo, wanted)
    try:
        if not _holds(repo, wanted):
            raise _behind(repo, wanted)
    except refs.Broken as error:
        raise _behind(repo, wanted) from error


def _holds(repo: Repository, wanted: Wanted) -> bool:
    logs = _Logs(repo.logs)
    todo = [_find(repo, logs, seq, digits) for seq, digits in wanted if seq]
    done: set[tuple[str, int]] = set()
    while todo:
        ref = todo.pop()
        if ref is None:
            return False
        if (ref.blind, ref.seq) not in done:
            done.add((ref.blind, ref.seq))
            todo += [logs.holds(blind, int(seq), str(text)) for blind, (seq, text) in ref.entry.seen.items()]
    return True


def _find(repo: Repository, logs: _Logs, seq: int, digits: str) -> refs.Ref | None:
    damaged = None
    for blind, end in sorted(repo.logs.ends().items()):
        try:
            if end >= seq and repo.logs.read(blind, seq).hash.startswith(digits):
                return logs.holds(blind, seq, digits)
        except errors.NotFound:
            pass  # a gap in a log is not what is looked for
        except errors.IntegrityError as error:
            damaged = error
    if damaged is not None:
        raise damaged  # it may have been that one
    return None


class _Logs:
    """Entries of logs, each read once, from the last one back: so it is known that they follow each other."""

    def __init__(self, logs: refs.Refs) -> None:
        self._logs = logs
        self._readers: dict[str, Iterator[refs.Ref]] = {}
        self._read: dict[str, dict[int, refs.Ref]] = {}

    def holds(self, blind: str, seq: int, start: str) -> refs.Ref | None:
        """Entry `seq` of a log, if there is one, and its hash starts like that."""
        reader = self._readers.setdefault(blind, self._logs.back(blind))
        read = self._read.setdefault(blind, {})
        while seq not in read:
            ref = next(reader, None)
            if ref is None or ref.seq < seq:
                return None
            read[ref.seq] = ref
        return read[seq] if read[seq].hash.startswith(start) else None


def _behind(repo: Repository, wanted: Wanted) -> errors.Rollback:
    noted = "+".join(f"{seq}-{digits}" for seq, digits in wanted)
    return errors.Rollback(
        f"{repo.backend.url} does not hold what {noted} was noted of",
        hint="the newest entries are withheld, or an older copy lies there: look for another copy before you write",
    )
