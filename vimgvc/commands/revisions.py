"""What REV, REV:DISK and A..B mean."""

from __future__ import annotations

import os
import pathlib

from vimgvc import errors
from vimgvc.model import commit as commits
from vimgvc.repo import forgetting, repository, revisions

split = revisions.split


def find_commit(repo: repository.Repository, typed: str) -> commits.Commit:
    """The commit that REV names, whose data is there. Raises `NotFound`, `UsageError`."""
    found = repo.resolve(typed)
    forgetting.check_there(repo, found)
    return found


def find_disk(repo: repository.Repository, typed: str) -> tuple[commits.Commit, commits.Disk]:
    """The disk that REV:DISK names, or REV if it is the only one. Raises `NotFound`, `UsageError`."""
    found, disk = repo.resolve_disk(typed)
    forgetting.check_there(repo, found)
    return found, disk


def find_stored(repo: repository.Repository, typed: str) -> tuple[commits.Commit, commits.Stored]:
    """As `find_disk`, but also an attachment of that name."""
    name, wanted = split(typed)
    found = find_commit(repo, name)
    if wanted is not None and any(item.name == wanted for item in found.attachments):
        return found, found.attachment(wanted)
    return found, found.disk(wanted)


def find_range(repo: repository.Repository, typed: str) -> list[commits.Commit]:
    """The commits from A to B of A..B, both of them, along first parents. Raises `NotFound`, `UsageError`."""
    first, dots, last = typed.partition("..")
    if not (first and dots and last):
        raise errors.UsageError(f"not a range of commits: {typed}", hint="write it like vm~3..vm")
    end, commit = repo.resolve(first).id, repo.resolve(last)
    found = [commit]
    while commit.id != end:
        if not commit.parents:
            raise errors.UsageError(f"{first} is no ancestor of {last}", hint="'vimgvc log' shows what came before")
        commit = repo.graph.load(commit.parents[0])
        found.append(commit)
    for commit in found:
        forgetting.check_there(repo, commit)
    return found[::-1]


def file_name(name: str, suffix: str) -> str:
    """A file name made of a disk's; what somebody else committed does not choose the directory."""
    full = f"{name}.{suffix}" if suffix else name
    if (
        pathlib.PurePath(full).name != full
        or full.startswith(".")
        or not full.isprintable()
        or len(os.fsencode(full)) > 255
    ):
        raise errors.UsageError(f"the disk's name is no file name: {name}", hint="say what to write it to")
    return full
