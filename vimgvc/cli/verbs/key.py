"""`vimgvc key ...`: who can open the repository."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from vimgvc import errors
from vimgvc.cli import progress, render, session, sources, text, verb

if TYPE_CHECKING:
    from vimgvc.commands import access
    from vimgvc.commands import key as command_types

app = verb.new_app()
verb.make_group(
    app,
    cls=verb.Group,
    help_text="Say who can open the repository, and how.",
    epilog="""
    Examples:
      vimgvc key list
      vimgvc key add --new-recovery-code --label 'paper in the safe'
      vimgvc key remember
    """,
)

_Label = Annotated[str, typer.Option("--label", metavar="TEXT", help="A name for it.", show_default=False)]
_NewPasswordFile = Annotated[
    str | None,
    typer.Option("--new-password-file", metavar="FILE", help="Read the new passphrase from FILE.", show_default=False),
]
_NewPasswordCommand = Annotated[
    str | None,
    typer.Option(
        "--new-password-command", metavar="COMMAND", help="Take it from COMMAND's output.", show_default=False
    ),
]


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key list
      vimgvc key list --json
    """,
    name="list",
)
def list_(run: session.Session) -> None:
    """List what opens the repository; needs no key."""
    from vimgvc.commands import key as command

    slots = command.list_slots(run.location(), run.environment, progress.Plain(run.out))
    if run.out.json:
        run.out.document({"slots": [_slot_facts(slot) for slot in slots]})
    else:
        run.out.lines(_slot_line(slot) for slot in slots)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key add                                another passphrase, asked for
      vimgvc key add --new-keyfile /root/disks.key  makes the file
      vimgvc key add --new-recovery-code            shows a code to be written down
      vimgvc key add --write-only web1.key --label web1

    The last is for a host that only adds, to branches web1/...: with a write key
    'vimgvc --key-file FILE commit' adds, and nothing can be read, not even what was
    added with it. 'vimgvc admit' makes commits of that.
    """,
)
def add(
    run: session.Session,
    *,
    label: _Label = "",
    new_password_file: _NewPasswordFile = None,
    new_password_command: _NewPasswordCommand = None,
    new_keyfile: Annotated[
        str | None, typer.Option("--new-keyfile", metavar="FILE", help="Make a key file.", show_default=False)
    ] = None,
    new_recovery_code: Annotated[
        bool, typer.Option("--new-recovery-code", help="Make a recovery code.", show_default=False)
    ] = False,
    write_only: Annotated[
        str | None,
        typer.Option("--write-only", metavar="FILE", help="Make a key that only adds.", show_default=False),
    ] = None,
    branch: Annotated[
        str | None,
        typer.Option(
            "--branch",
            metavar="NAME",
            help="Where it may write; NAME/ is all below.  [default: LABEL/]",
            show_default=False,
        ),
    ] = None,
    kdf_memory: verb.KdfMemory = verb.KDF_MEMORY,
) -> None:
    """Let another passphrase, key file or recovery code open the repository, or another host add to it."""
    from vimgvc.commands import key as command

    if sum(map(bool, (new_password_file, new_password_command, new_keyfile, new_recovery_code, write_only))) > 1:
        raise errors.UsageError("only one new key can be added at a time", hint="give one of the --new options")
    if branch is not None and write_only is None:
        raise errors.UsageError("--branch is about a key that only adds", hint="give it with --write-only FILE")
    profile = _price(kdf_memory)
    repository = run.repository()
    monitor = progress.Plain(run.out)
    if write_only:
        writer = command.add_write_only(
            repository, write_only, command.MayWrite(label, branch), run.environment, monitor
        )
        facts = {"slot": _slot_facts(writer.slot), "branch": writer.branch}
        run.out.done(
            facts, [f"added {_slot_line(writer.slot)}", f"  writes to {text.escape(_branches(writer.branch))}"]
        )
        return
    if new_recovery_code:
        made = command.add_recovery_code(repository, label, run.environment, monitor)
        # with --quiet too: it is shown this once
        lines = [*([] if run.out.quiet else ["write this recovery code down; it is not shown again:", ""]), made.code]
        _result(run, {"slot": _slot_facts(made.slot), "recovery_code": made.code}, lines)
        return
    if new_keyfile:
        added = command.add_key_file(repository, new_keyfile, label, run.environment, monitor)
    else:
        secret = _new_secret(new_password_file, new_password_command)
        added = command.add(repository, secret, label, run.environment, monitor, profile=profile)
    run.out.done({"slot": _slot_facts(added.slot)}, [f"added {_slot_line(added.slot)}"])


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key change                        the passphrase that opens it now
      vimgvc key change 3f2a                   another slot: see 'vimgvc key list'
    """,
)
def change(
    run: session.Session,
    slot: Annotated[
        str | None, typer.Argument(metavar="[SLOT]", help="The first digits of its identifier.", show_default=False)
    ] = None,
    new_password_file: _NewPasswordFile = None,
    new_password_command: _NewPasswordCommand = None,
    kdf_memory: verb.KdfMemory = verb.KDF_MEMORY,
) -> None:
    """Put a new passphrase in the place of another key."""
    from vimgvc.commands import key as command

    profile = _price(kdf_memory)
    repository = run.repository()
    secret = _new_secret(new_password_file, new_password_command)
    done = command.change(repository, slot, secret, run.environment, progress.Plain(run.out), profile=profile)
    document = {"slot": _slot_facts(done.slot), "removed": done.removed}
    run.out.done(document, [f"changed {str(done.removed)[:8]} to {_slot_line(done.slot)}"])


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key remove 3f2a    by the first digits that 'vimgvc key list' shows

    Whoever had this key, and copied the repository or the root key itself, can
    still read what was there. What waits of a write key is not admitted any more.
    """,
)
def remove(
    run: session.Session,
    slot: Annotated[str, typer.Argument(metavar="SLOT", help="The first digits of its identifier.")],
) -> None:
    """Take a passphrase, key file, recovery code or write key away; never the last one that opens."""
    from vimgvc.commands import key as command

    gone = command.remove(run.repository(), slot, run.environment, progress.Plain(run.out))
    run.out.done({"removed": gone}, [f"removed key slot {gone[:8]}"])


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key export disks.kit    to be kept somewhere else
      vimgvc key export > disks.kit

    The kit opens nothing by itself: it is what a passphrase, key file or code
    needs when the repository's own key slots are lost.
    """,
)
def export(
    run: session.Session,
    file: Annotated[
        str | None, typer.Argument(metavar="[FILE]", help="A new file.  [default: standard output]", show_default=False)
    ] = None,
) -> None:
    """Write a recovery kit: a copy of all key slots; needs no key."""
    from vimgvc.commands import key as command

    done = command.export(run.location(), file, run.environment, progress.Plain(run.out))
    if done.path is None:
        run.out.exactly(done.kit.decode())
        return
    lines = [f"wrote {text.count(done.slots, 'key slot')} to {text.escape(done.path)}"]
    run.out.done({"file": done.path, "slots": done.slots}, lines)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key import disks.kit
    """,
    name="import",
)
def import_(
    run: session.Session, file: Annotated[str, typer.Argument(metavar="FILE", help="What 'key export' wrote.")]
) -> None:
    """Put back key slots that are lost or damaged; needs no key."""
    from vimgvc.commands import key as command

    slots = command.import_kit(run.location(), file, run.environment, progress.Plain(run.out))
    lines = [f"put back {_slot_line(slot)}" for slot in slots] or ["every key slot of the kit is there already"]
    run.out.done({"slots": [_slot_facts(slot) for slot in slots]}, lines)


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key remember

    The unlocked key is kept in the system's keyring, or else in a file that only
    this user may read. From then on no passphrase is needed here, and commands
    start faster. Whoever can use this account can then open the repository.
    """,
)
def remember(run: session.Session) -> None:
    """Keep the key for this user, so that no passphrase is asked for."""
    from vimgvc.commands import key as command

    done = command.remember_key(run.repository(), run.environment)
    run.out.done({"remembered": done.where}, [f"the key is kept in {text.escape(done.where)}"])


@verb.add(
    app,
    epilog="""
    Examples:
      vimgvc key forget
    """,
)
def forget(run: session.Session) -> None:
    """Forget the key that was kept for this user."""
    from vimgvc.commands import key as command

    forgotten = command.forget_key(run.location(), run.environment)
    run.out.done({"forgotten": forgotten}, ["the key is forgotten" if forgotten else "no key was kept"])


def _branches(name: str) -> str:
    return f"{name}..." if name.endswith("/") else name


def _new_secret(file: str | None, command: str | None) -> access.Secret:
    return sources.passphrase(file, command) or sources.asked_twice("new passphrase")


def _price(kdf_memory: str) -> access.KdfProfile:
    from vimgvc.commands import access

    return access.price(text.parse_option("--kdf-memory", kdf_memory))


def _result(run: session.Session, document: dict[str, Any], lines: list[str]) -> None:
    if run.out.json:
        run.out.document(document)
    else:
        run.out.lines(lines)


def _slot_facts(slot: command_types.Slot) -> dict[str, str]:
    return {"id": slot.id, "type": slot.type, "label": slot.label, "created": slot.created, "kdf": slot.kdf}


def _slot_line(slot: command_types.Slot) -> str:
    parts = [render.short(slot.id)[:8], slot.type, text.date(slot.created), slot.kdf, text.escape(slot.label)]
    return "  ".join(part for part in parts if part)
