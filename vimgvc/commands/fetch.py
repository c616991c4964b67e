"""`vimgvc fetch` and `vimgvc pull`: what another place has, into this one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import bundle
from vimgvc.commands import connect
from vimgvc.model import reflog
from vimgvc.remote import copying, fetch, graph, reading, refs
from vimgvc.repo import remotes

Here = connect.Here
Options = fetch.Options
#: What a place without a name is called by the branches that follow it.
UNNAMED = remotes.FETCHED


@dataclass(frozen=True, slots=True)
class Fetched:
    """`forwarded`: what became of the branches here that were to go forward; `others`: branches there, not here."""

    remote: str
    url: str
    done: copying.Result
    forwarded: tuple[refs.Change, ...] = ()
    others: tuple[str, ...] = ()
    found: fetch.Fetched | None = None

    @property
    def label(self) -> str:
        return self.remote or self.url

    def check(self) -> None:
        """Raises `RefMoved` for the first branch or tag that was not changed although it was to be.

        `IntegrityError` where it cannot be read what one is there.
        """
        if self.found:
            self.found.check(self.url)
        self.done.check(self.label)
        for change in self.forwarded:
            if change.state is refs.State.REJECTED:
                raise errors.RefMoved(
                    change.name,
                    change.after or "",
                    message=f"branch '{change.name}' does not go forward to {change.source}: it has commits of its own",
                    hint=f"both are kept: look with 'vimgvc log --graph'; to give yours up: "
                    f"vimgvc branch -f {change.name} {change.source}",
                )


def run(here: Here, given: str | None, branches: Sequence[str], options: fetch.Options) -> Fetched:
    """Branches that follow the place, and tags. Raises as `connect.connect` and `remote.fetch.fetch`."""
    return _fetch(here, connect.connect(here, given, looks=True), branches, options)[0]


def pull(here: Here, given: str | None, branches: Sequence[str], options: fetch.Options) -> Fetched:
    """The same, and then the branches here go forward: the named ones, else those that are here.

    What does not go forward is told by `Fetched.check`.
    """
    there = connect.connect(here, given, looks=True)
    fetched, tips = _fetch(here, there, branches, options)
    own = here.repo.branches()
    chosen = {name: tip for name, tip in tips.items() if name in branches or name in own}
    follows = there.name or UNNAMED
    wishes = [refs.Wish(reflog.BRANCH, remotes.tracking(follows, name), name, tip) for name, tip in chosen.items()]
    changes = tuple([_forward(here, there, wish, own.get(wish.name), dry_run=options.dry_run) for wish in wishes])
    others = tuple(sorted(tips.keys() - chosen.keys()))
    return Fetched(fetched.remote, fetched.url, fetched.done, changes, others, fetched.found)


def _fetch(
    here: Here, there: connect.There, branches: Sequence[str], options: fetch.Options
) -> tuple[Fetched, dict[str, str]]:
    if options.metadata and not there.name:
        raise errors.UsageError(
            f"data can only be left in a remote that has a name, and {there.url} has none",
            hint="add it first: vimgvc remote add NAME URL",
        )
    wanted = fetch.Wanted(there.name or UNNAMED, list(dict.fromkeys(branches)) or None)
    look = connect.look(here, there.repo)
    found = bring(here, there, wanted, options, look)
    if not options.dry_run:
        connect.note_here(here)
    return Fetched(there.name, there.url, found.result, found=found), found.tips


def bring(
    here: Here, there: connect.There, wanted: fetch.Wanted, options: fetch.Options, look: copying.Look | None = None
) -> fetch.Fetched:
    """`remote.fetch.fetch`; what a bundle builds on and is not here is told in its words."""
    try:
        return fetch.fetch(there.repo, here.repo, wanted, options, here.monitor, look=look)
    except graph.Missing as error:
        if not isinstance(there.repo.backend, bundle.BundleBackend):
            raise
        raise errors.NotFound(
            "commit",
            error.commit[:12],
            hint=f"{there.label} builds on it: pull first what brings it here, such as the bundle before this one",
        ) from error


def _forward(here: Here, there: connect.There, wish: refs.Wish, before: str | None, *, dry_run: bool) -> refs.Change:
    load = reading.Loader(here.repo, there.repo).load
    change = refs.decide(
        wish,
        before,
        other=wish.name in here.repo.tags(),
        is_known=bool,
        builds=lambda old, new: graph.is_ancestor(load, old, new),
    )
    if change.is_made and not dry_run:
        here.repo.set_ref(reflog.BRANCH, wish.name, wish.after, expect=before, host=here.host)
    return change
