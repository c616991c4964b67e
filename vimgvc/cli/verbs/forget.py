"""`vimgvc forget`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import render, session, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import forget as command_types
    from vimgvc.model import commit as commits

app = verb.new_app()


def _count(name: str, what: str) -> Any:
    return typer.Option(name, metavar="N", min=1, max=1_000_000, help=f"Keep the newest {what}.", show_default=False)


@dataclass(frozen=True, slots=True)
class Keep:
    """What a policy keeps."""

    keep_last: Annotated[int | None, _count("--keep-last", "N commits")] = None
    keep_hourly: Annotated[int | None, _count("--keep-hourly", "of each of N hours")] = None
    keep_daily: Annotated[int | None, _count("--keep-daily", "of each of N days")] = None
    keep_weekly: Annotated[int | None, _count("--keep-weekly", "of each of N weeks")] = None
    keep_monthly: Annotated[int | None, _count("--keep-monthly", "of each of N months")] = None
    keep_yearly: Annotated[int | None, _count("--keep-yearly", "of each of N years")] = None
    keep_within: Annotated[
        str | None,
        typer.Option("--keep-within", metavar="TIME", help="Keep all of the last 14d, 2w, 1y6m.", show_default=False),
    ] = None
    keep_tag: Annotated[
        list[str] | None,
        typer.Option("--keep-tag", metavar="PATTERN", help="Keep what such a tag names.", show_default=False),
    ] = None
    utc_offset: Annotated[
        str | None,
        typer.Option("--utc-offset", metavar="+HH:MM", help="Where days begin.  [default: UTC]", show_default=False),
    ] = None

    def policy(self) -> command_types.Policy:
        """Raises `UsageError`."""
        from vimgvc.model import retention

        return retention.Policy(
            last=self.keep_last or 0,
            hourly=self.keep_hourly or 0,
            daily=self.keep_daily or 0,
            weekly=self.keep_weekly or 0,
            monthly=self.keep_monthly or 0,
            yearly=self.keep_yearly or 0,
            within=retention.parse_duration(self.keep_within) if self.keep_within is not None else None,
            tags=tuple(self.keep_tag or ()),
            **({"offset": retention.parse_offset(self.utc_offset)} if self.utc_offset is not None else {}),
        )


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc forget vm~3 vm~7
      vimgvc forget --keep-daily 7 --keep-weekly 5 --keep-monthly 12 --dry-run
      vimgvc forget --keep-within 30d --branch vm

    A policy is applied to each branch by itself, and there to what each host
    committed: what one host commits pushes out nothing of another's. What branches and
    tags name is always kept, and what is dated in the future.
    Forgotten commits leave 'vimgvc log'; their data goes with 'vimgvc gc', and until
    then a branch or tag at them brings them back.
    """,
)
def forget(
    run: session.Session,
    *,
    revisions: Annotated[
        list[str] | None, typer.Argument(metavar="[REV...]", help="Commits to forget.", show_default=False)
    ] = None,
    keep: Keep,
    branch: Annotated[
        list[str] | None,
        typer.Option("--branch", "-b", metavar="NAME", help="Only on this branch; again for more.", show_default=False),
    ] = None,
    host: Annotated[
        list[str] | None,
        typer.Option(
            "--host", metavar="NAME", help="Only what this host committed; again for more.", show_default=False
        ),
    ] = None,
    reason: Annotated[
        str, typer.Option("--reason", metavar="TEXT", help="Kept with the forgotten commits.", show_default=False)
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Say what would be forgotten and freed.", show_default=False)
    ] = False,
    force: Annotated[
        bool, typer.Option("--force", "-f", help="Also more than half of a branch.", show_default=False)
    ] = False,
) -> None:
    """Say which commits are not wanted any more."""
    from vimgvc.commands import forget as command

    policy = keep.policy()
    if revisions and (policy or branch or host or keep.utc_offset):
        raise errors.UsageError("commits and a policy exclude each other", hint="name commits, or say what to keep")
    repository = run.repository()
    if revisions:
        plan = command.by_name(repository, revisions)
    else:
        plan = command.by_policy(repository, policy, branch or (), host or ())
    if dry_run:
        with run.progress() as monitor:
            freed = command.would_free(repository, plan, monitor)
        if run.out.json:
            run.out.document(document(plan, freed))
        else:
            run.out.lines([*lines(plan), *_would(plan, freed, force=force)])
        return
    if plan.drastic and not force:
        _ask(run, plan)
    forgotten = command.carry_out(repository, plan, reason, os.uname().nodename)
    done = f"forgot {text.count(len(forgotten), 'commit')}"
    hint = "; 'vimgvc gc' removes what only they need" if forgotten else ""
    run.out.done(document(plan, None), [*lines(plan), f"{done}{hint}"])


def _ask(run: session.Session, plan: command_types.Plan) -> None:
    """Raises `UsageError` where there is nobody to ask, and when the answer is no."""
    from vimgvc.cli import prompt
    from vimgvc.commands import forget as command

    if run.out.json or not prompt.somebody_there():
        command.check_drastic(plan)
    questions = [f"{lost} of the {total} commits of '{text.escape(name)}'" for name, lost, total in plan.drastic]
    if not prompt.yes(f"forget {', '.join(questions)}?"):
        raise errors.VimgvcError("nothing was forgotten", hint="'vimgvc forget ... --dry-run' shows what would be")


def document(plan: command_types.Plan, freed: int | None) -> dict[str, Any]:
    return {
        "dry_run": freed is not None,
        "forgotten": [commit.id for commit in plan.forgotten],
        "branches": [
            {
                "branch": branch.name,
                "kept": [
                    {"id": kept.commit.id, "time": kept.commit.time, "reasons": list(kept.reasons)}
                    for kept in branch.kept
                ],
                "forgotten": [commit.id for commit in branch.forgotten],
            }
            for branch in plan.branches
        ],
        "needs_force": bool(plan.drastic),
        "freed_bytes": freed,
    }


def lines(plan: command_types.Plan) -> Iterator[str]:
    """Every commit that was looked at, by branch, with the reasons to keep it."""
    for branch in plan.branches:
        yield f"branch {text.escape(branch.name)}: {len(branch.kept)} kept, {len(branch.forgotten)} forgotten"
        for kept in branch.kept:
            yield _line("keep  ", kept.commit, f"({text.escape(', '.join(kept.reasons))})")
        for commit in branch.forgotten:
            yield _line("forget", commit, "")
    if not plan.branches:
        for commit in plan.forgotten:
            yield _line("forget", commit, "")


def _line(what: str, commit: commits.Commit, why: str) -> str:
    subject = text.subject(commit.message)
    return f"  {what}  {render.short(commit.id)}  {text.date(commit.time)}  {subject}  {why}".rstrip()


def _would(plan: command_types.Plan, freed: int, *, force: bool) -> Iterator[str]:
    yield f"would forget {text.count(len(plan.forgotten), 'commit')}; gc would then free {text.exact_size(freed)}"
    if plan.drastic and not force:
        for name, lost, total in plan.drastic:
            yield f"that is more than half of branch {text.escape(name)} ({lost} of {total}): it needs --force"
