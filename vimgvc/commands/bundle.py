"""`vimgvc bundle`: commits as one file, for where no network leads."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from dataclasses import dataclass

from blake3 import blake3

from vimgvc import errors
from vimgvc.backends import bundle
from vimgvc.commands import connect
from vimgvc.model import reflog
from vimgvc.remote import copying, push, refs, seeding
from vimgvc.repo import remotes, repository

Here = connect.Here


@dataclass(frozen=True, slots=True)
class Bundled:
    """`bases`: commits that have to be there where the bundle is read; `size` of the file in bytes."""

    file: str
    bases: tuple[str, ...]
    size: int
    done: copying.Result


def create(here: Here, file: str, revisions: Sequence[str]) -> Bundled:
    """A new file; an interrupted run of the same words is gone on with.

    `revisions`: REV or A..B, where B, or REV, is a branch or tag, or stands for the branch it was made on; none: all
    own branches and all tags. Raises `UsageError`, `NotFound`, and what reading here and writing there raises.
    """
    repo = here.repo
    wishes, bases = _wishes(here, revisions)
    path = pathlib.Path(file).absolute()
    words = [f"{wish.kind} {wish.name} {wish.after}" for wish in wishes] + bases
    tag = blake3("\n".join(words).encode()).hexdigest(6)
    writer = bundle.BundleWriter.begin(path, bytes.fromhex(repo.id), tag)
    try:
        seeding.seed(repo, writer)
        far = repository.Repository(writer, repo.config, repo.unlocked, None, repo.clock, repo.rng)
        options = push.Options(host=here.host, assumed=tuple(bases))
        done = push.push(repo, far, wishes, options, here.monitor)
        done.check(file)
        size = writer.finish()
    finally:
        writer.close()
    return Bundled(str(path), tuple(bases), size, done)


def _wishes(here: Here, revisions: Sequence[str]) -> tuple[list[refs.Wish], list[str]]:
    branches, tags = here.repo.branches(), here.repo.tags()
    if not revisions:
        own = {name: tip for name, tip in branches.items() if not remotes.is_tracking(name, here.remotes.names())}
        found = [refs.Wish(reflog.BRANCH, name, name, tip) for name, tip in own.items()]
        return found + [refs.Wish(reflog.TAG, name, name, tip) for name, tip in tags.items()], []
    found, bases = [], []
    for given in revisions:
        base, dots, name = given.rpartition("..")
        if dots:
            bases.append(here.repo.resolve(base).id)
        commit = here.repo.resolve(name)
        if commit.id in bases:
            raise errors.UsageError(f"there is no commit in {given}", hint="name a later one behind the dots")
        kind = reflog.TAG if name in tags and name not in branches else reflog.BRANCH
        called = name if name in branches or name in tags else commit.branch
        found.append(refs.Wish(kind, name, called, commit.id))
    names = [(wish.kind, wish.name) for wish in found]
    if len(set(names)) < len(names):
        raise errors.UsageError("a branch or tag is named twice", hint="name it once")
    return found, sorted(set(bases))
