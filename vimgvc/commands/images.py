"""How the user lets images be opened, and opening them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from vimgvc import errors
from vimgvc.images import detect, raw, registry

if TYPE_CHECKING:
    from vimgvc.images import qcow2_metadata

Access = registry.Access
Opened = registry.Opened


def access(
    declared: str | None,
    *,
    as_raw: bool = False,
    snapshot: str | None = None,
    allow_chain: bool = False,
    chain_roots: tuple[str, ...] = (),
    data_file: str | None = None,
    secret_file: str | None = None,
    force_read: bool = False,
    skip_bad: bool = False,
    allow_changing: bool = False,
) -> registry.Access:
    """What the options mean together. Raises `UsageError` for what excludes each other."""
    if as_raw:
        others = {
            "--format": declared not in (None, "raw"),
            "--snapshot": snapshot,
            "--allow-chain": allow_chain,
            "--chain-root": chain_roots,
            "--data-file": data_file,
            "--image-secret-file": secret_file,
        }
        for option in (name for name, given in others.items() if given):
            raise errors.UsageError(
                f"--as-raw and {option} exclude each other",
                hint="--as-raw takes the file itself; nothing in it is looked at",
            )
        declared = "raw"
    return registry.Access(
        declared,
        snapshot=snapshot,
        chain_roots=chain_roots if allow_chain or chain_roots else None,
        data_file=data_file,
        secret_file=secret_file,
        force_read=force_read,
        skip_bad=skip_bad,
        allow_changing=allow_changing,
    )


def snapshots(path: str, wanted: registry.Access) -> list[qcow2_metadata.Snapshot]:
    """The internal snapshots of an image, in its order; raises `UsageError` for a format without any."""
    file = raw.RawReader(path)
    try:
        found = detect.check_declared_reader(file, path, wanted.declared)
        if found != "qcow2":
            raise errors.UsageError(f"{path}: is {found}, which has no internal snapshots", hint="see 'vimgvc info'")
        from vimgvc.images import qcow2_metadata

        return qcow2_metadata.snapshots(file, path)
    finally:
        file.close()


def open_image(path: str, wanted: registry.Access) -> registry.Opened:
    """Raises what `registry.open_image` raises."""
    return registry.open_image(path, wanted)


def about(path: str, note: str) -> str:
    """A note about an image as the user is to read it."""
    return note if note.startswith(path) else f"{path}: {note}"
