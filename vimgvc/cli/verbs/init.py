"""`vimgvc init`."""

from __future__ import annotations

from typing import Annotated

import typer

from vimgvc import errors
from vimgvc.cli import session, sources, text, verb

app = verb.new_app()


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc init                              in .vimgvc of this directory
      vimgvc init /srv/disks                   in /srv/disks
      vimgvc init --password-file /root/pass   without a question
      vimgvc init --key-file disks.key         32 to 1024 random bytes, mode 600

    Without the passphrase nobody can read the repository, nor can you: keep it,
    and see 'vimgvc key add --new-recovery-code' and 'vimgvc key export'.
    """,
)
def init(
    run: session.Session,
    *,
    directory: Annotated[
        str | None, typer.Argument(metavar="[DIR]", help="The directory.  [default: .vimgvc]", show_default=False)
    ] = None,
    remember: Annotated[
        bool, typer.Option("--remember", help="Keep the key for this user.", show_default=False)
    ] = False,
    label: Annotated[
        str, typer.Option("--label", metavar="TEXT", help="Name of the key slot.", show_default=False)
    ] = "",
    average: Annotated[
        str, typer.Option("--average", metavar="SIZE", help="Average size of a chunk: 16K, 32K or 64K.")
    ] = "64K",
    kdf_memory: verb.KdfMemory = verb.KDF_MEMORY,
) -> None:
    """Make an empty, encrypted repository."""
    from vimgvc.commands import access
    from vimgvc.commands import init as command

    chunk_size = text.parse_option("--average", average)
    command.check_average(chunk_size)
    profile = access.price(text.parse_option("--kdf-memory", kdf_memory))
    if run.options.recovery_code:
        raise errors.UsageError(
            "a new repository cannot begin with a recovery code",
            hint="begin with a passphrase, then 'vimgvc key add --new-recovery-code'",
        )
    secret = sources.given(run.options, run.environment) or sources.asked_twice("new passphrase")
    with run.progress() as monitor:
        made = command.run(
            run.new_location(directory),
            run.environment,
            secret,
            average=chunk_size,
            profile=profile,
            label=label,
            remembered=remember,
            monitor=monitor,
        )
    document = {
        "repository": made.location,
        "id": made.id,
        "fingerprint": made.fingerprint,
        "remembered": made.remembered or None,
    }
    lines = [f"made an empty repository in {text.escape(made.location)}"]
    run.out.done(document, lines + ([f"the key is kept in {text.escape(made.remembered)}"] if made.remembered else []))
