"""`vimgvc clone`."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import typer

from vimgvc import errors
from vimgvc.cli import copies, documents, session, sources, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import clone as command_types

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc clone /mnt/usb/vms               into .vimgvc here
      vimgvc clone s3://bucket/vms disks      into the directory 'disks'
      vimgvc clone --branch vm /mnt/usb/vms   one branch only
      vimgvc clone --only-metadata sftp://h/vms   the history; data is read there
      vimgvc clone --rekey old new            the same history under another key

    It opens with the same passphrases, has the same branches, and calls the place
    it came from origin. After an interruption the same command goes on. A copy
    with --rekey is another repository: who had the old keys cannot read it.
    """,
)
def clone(
    run: session.Session,
    *,
    url: Annotated[str, typer.Argument(metavar="URL", help="A directory, or a URL.", show_default=False)],
    directory: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="Where to.  [default: .vimgvc here]", show_default=False)
    ] = None,
    branch: Annotated[
        list[str] | None,
        typer.Option("--branch", "-b", metavar="BRANCH", help="Only this one; repeatable.", show_default=False),
    ] = None,
    only_metadata: copies.OnlyMetadata = False,
    rekey: Annotated[
        bool, typer.Option("--rekey", help="Record everything anew under another key.", show_default=False)
    ] = False,
    new_password_file: Annotated[
        str | None,
        typer.Option("--new-password-file", metavar="FILE", help="With --rekey: its passphrase.", show_default=False),
    ] = None,
    new_password_command: Annotated[
        str | None,
        typer.Option("--new-password-command", metavar="COMMAND", help="The same, printed.", show_default=False),
    ] = None,
    kdf_memory: verb.KdfMemory = verb.KDF_MEMORY,
) -> None:
    """Make another place for a repository that is elsewhere."""
    from vimgvc.commands import clone as command

    request = command.Request(url, run.new_location(directory), tuple(branch or ()), run.wish(), only_metadata)
    if rekey and only_metadata:
        raise errors.UsageError(
            "--rekey and --only-metadata exclude each other", hint="a copy under another key is whole"
        )
    if rekey:
        _rekey(run, request, new_password_file, new_password_command, kdf_memory)
        return
    if new_password_file or new_password_command:
        raise errors.UsageError("a clone opens with the same keys", hint="give --rekey to make a copy under another")
    with run.progress() as monitor:
        given = sources.given(run.options, run.environment)
        done = command.run(request, run.environment, given, sources.asked, host=os.uname().nodename, monitor=monitor)
    facts = {
        "repository": done.location,
        "id": done.id,
        "remote": done.remote,
        "url": done.url,
        "resumed": done.resumed,
        "branches": list(done.branches),
        **copies.result_facts(done.done, dry_run=False),
    }
    del facts["dry_run"]
    names = ", ".join(text.escape(name) for name in done.branches)
    lines = [f"{'went on with' if done.resumed else 'made'} {text.escape(done.location)} from {text.escape(done.url)}"]
    lines += [f"  branches: {names}"] if names else []
    lines.append(copies.cost_line(done.done, dry_run=False, verb="cloned"))
    run.out.done(facts, lines)
    done.check()


def _rekey(
    run: session.Session, request: command_types.Request, file: str | None, words: str | None, kdf_memory: str
) -> None:
    from vimgvc.commands import access
    from vimgvc.commands import rekey as command

    profile = access.price(text.parse_option("--kdf-memory", kdf_memory))
    given = sources.given(run.options, run.environment)
    with run.progress() as monitor:
        made = command.run(
            request,
            run.environment,
            given,
            sources.asked,
            lambda: sources.passphrase(file, words) or sources.asked_twice("passphrase of the copy"),
            profile=profile,
            host=os.uname().nodename,
            monitor=monitor,
        )
    done = made.done
    facts = {
        "repository": made.location,
        "id": made.id,
        "fingerprint": made.fingerprint,
        "url": made.url,
        "resumed": made.resumed,
        "commits": done.commits,
        "branches": list(done.branches),
        "tags": list(done.tags),
        "ids": done.ids,
        "seconds": documents.rounded(done.seconds),
    }
    head = f"{'went on with' if made.resumed else 'made'} {text.escape(made.location)} from {text.escape(made.url)}"
    names = ", ".join(text.escape(name) for name in (*done.branches, *done.tags))
    told = f"recorded {text.count(done.commits, 'commit')} anew in {text.seconds(done.seconds)}"
    run.out.done(facts, [f"{head}, under another key", *([f"  {names}"] if names else []), told])
