"""`vimgvc push`: branches and tags, and what they lead to, to another place."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.commands import connect
from vimgvc.model import reflog
from vimgvc.remote import copying, push, refs
from vimgvc.repo import names, remotes

Here = connect.Here
State = refs.State
Change = refs.Change


@dataclass(frozen=True, slots=True)
class Which:
    """What to push: `names` are BRANCH, TAG, SRC:DST, :DST, each with a + before it to force."""

    names: Sequence[str] = ()
    all_: bool = False
    tags: bool = False
    delete: bool = False
    force: bool = False


@dataclass(frozen=True, slots=True)
class Pushed:
    """`chosen`: all own branches, because none was named."""

    remote: str
    url: str
    chosen: bool
    done: copying.Result

    @property
    def label(self) -> str:
        return self.remote or self.url


def run(here: Here, given: str | None, which: Which, *, dry_run: bool, everything: bool = False) -> Pushed:
    """Raises `UsageError`, `NotFound`, `RefMoved` for a name that moved meanwhile, and what connecting raises.

    What was rejected is told by `Pushed.done.check`.
    """
    there = connect.connect(here, given, looks=True)
    wishes = _wishes(here, which)
    options = push.Options(dry_run=dry_run, everything=everything, host=here.host)
    done = push.push(here.repo, there.repo, wishes, options, here.monitor, look=lambda far: connect.look(here, far))
    if not dry_run:
        _check_kept(there, done)
        connect.note_there(here, there.repo, done.known)
        _follow(here, there.name, done.changes)
        connect.note_here(here)
    return Pushed(there.name, there.url, which.all_ or not (which.names or which.tags), done)


def _check_kept(there: connect.There, done: copying.Result) -> None:
    """Raises `IntegrityError` where the last entry that was put is not there: the place keeps nothing (N5).

    Where packs were put they were looked for.
    """
    if done.packs:
        return
    made = [there.repo.seals.blind(change.kind, change.name) for change in done.changes if change.is_made]
    if made and not there.repo.logs.is_there(done.known[made[-1]]):
        raise errors.IntegrityError(
            there.url, "does not keep what it says it has kept", hint="do not rely on it, and look at it with 'verify'"
        )


def _wishes(here: Here, which: Which) -> list[refs.Wish]:
    branches, tags = here.repo.branches(), here.repo.tags()
    if which.delete:
        if not which.names or which.all_ or which.tags:
            raise errors.UsageError("--delete needs the names of what to delete", hint="see 'vimgvc push --help'")
        return [_deletion(here, name) for name in which.names]
    found = [_wish(here, name, branches, tags, force=which.force) for name in which.names]
    if which.tags:
        found += [refs.Wish(reflog.TAG, name, name, commit, which.force) for name, commit in tags.items()]
    if which.all_ or not (which.names or which.tags):
        known = here.remotes.names()
        own = {name: commit for name, commit in branches.items() if not remotes.is_tracking(name, known)}
        found += [refs.Wish(reflog.BRANCH, name, name, commit, which.force) for name, commit in own.items()]
    twice = [wish.name for at, wish in enumerate(found) if wish.name in [other.name for other in found[:at]]]
    if twice:
        raise errors.UsageError(f"'{twice[0]}' is named twice", hint="name it once")
    return found


def _deletion(here: Here, name: str) -> refs.Wish:
    kind = reflog.TAG if name in here.repo.tags() and name not in here.repo.branches() else reflog.BRANCH
    return refs.Wish(kind, "", reflog.check_name(name), None)


def _wish(here: Here, given: str, branches: dict[str, str], tags: dict[str, str], *, force: bool) -> refs.Wish:
    force = force or given.startswith("+")
    source, colon, target = given.removeprefix("+").partition(":")
    if colon and not source:
        return _deletion(here, target)
    kind = reflog.TAG if source in tags and source not in branches else reflog.BRANCH
    commit = (branches if kind == reflog.BRANCH else tags).get(source)
    if commit is None:
        if not colon:
            there = ", ".join([*branches][:10])
            raise errors.NotFound(
                "branch or tag", source, hint=f"there are: {there}" if there else "commit something first"
            )
        commit = here.repo.resolve(source).id
    return refs.Wish(kind, source, reflog.check_name(target if colon else source, kind), commit, force)


def _follow(here: Here, remote: str, changes: Sequence[refs.Change]) -> None:
    """Let the branches that follow the remote be where its own are now."""
    for change in changes:
        if remote and change.kind == reflog.BRANCH and change.state is not State.REJECTED:
            follow(here, remote, change.name, change.after)


def follow(here: Here, remote: str, branch: str, commit_id: str | None) -> None:
    name = remotes.tracking(remote, branch)
    before = here.repo.branches().get(name)
    if before != commit_id:
        names.set_value(here.repo, reflog.BRANCH, name, commit_id, expect=before, host=here.host)
