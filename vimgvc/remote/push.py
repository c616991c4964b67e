"""Push: commits that branches and tags here lead to, and then these branches and tags, to another place."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.backends import ledger
from vimgvc.monitor import Monitor
from vimgvc.remote import copying, plan, refs
from vimgvc.repo import repository


@dataclass(frozen=True, slots=True)
class Options:
    """`everything`: compare with what is really there, to bring back what was lost there.

    `assumed`: commits that count as there with all they need.
    """

    dry_run: bool = False
    everything: bool = False
    host: str = ""
    assumed: tuple[str, ...] = ()


def push(
    source: repository.Repository,
    target: repository.Repository,
    wishes: Sequence[refs.Wish],
    options: Options,
    monitor: Monitor,
    *,
    look: Callable[[repository.Repository], copying.Look] | None = None,
) -> copying.Result:
    """Durable on return. What is rejected is told, the rest is done. `look` is another way to read ref logs there.

    Raises `RefMoved` when a name moved there after it was looked at, `IntegrityError` for what cannot be read here,
    and what the backends raise.
    """
    started = time.monotonic()
    far = copying.through(target, ledger.Ledger(target.backend, rehearse=options.dry_run))

    def decide(state: copying.State) -> copying.Decided:
        load = source.graph.load
        changes = [
            state.decide(wish, is_known=lambda commit_id: _is_known(source, commit_id), load=load) for wish in wishes
        ]
        tips = refs.tips(changes, unchanged=options.everything)
        request = plan.Request(source, far, source, tips, state.tips() | set(options.assumed), options.everything)
        return changes, plan.Commits.of(request, load)

    job = copying.Job(far, options.host, monitor, look)
    with source.writing(), target.writing():
        job.run(decide, "pushing")
    return copying.result(job, time.monotonic() - started)


def _is_known(source: repository.Repository, commit_id: str) -> bool:
    try:
        source.graph.load(commit_id)
    except (errors.NotFound, errors.IntegrityError, errors.Unsupported):
        return False
    return True
