"""`vimgvc head`: where all branches and tags are, in one line to keep elsewhere."""

from __future__ import annotations

from dataclasses import dataclass

from vimgvc.repo import heads, refs, repository

Ref = refs.Ref


@dataclass(frozen=True, slots=True)
class Head:
    """`fingerprint` of the last entries of all ref logs, `ends`, by kind and name."""

    fingerprint: str
    ends: tuple[Ref, ...]


def run(repo: repository.Repository) -> Head:
    """Raises `IntegrityError` for a last entry that cannot be read."""
    ends = heads.read(repo)
    ordered = sorted(ends.values(), key=lambda ref: (ref.entry.kind, ref.entry.name))
    return Head(heads.fingerprint(repo.id, ends), tuple(ordered))
