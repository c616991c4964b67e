"""Which kind of container is to be written: what the user says, else what the disk came in."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vimgvc import errors
from vimgvc.images import detect, foreign_options

#: What can be written.
FORMATS = ("raw", "qcow2", "qcow", "qed", "vmdk", "vdi", "vpc", "vhdx", "parallels", "luks", "ova")
#: What can be written into a pipe.
STREAMS = ("raw", "qcow2")
#: Where the result goes when it goes to standard output.
STDOUT = "-"

#: Of each format the recorded facts that are options under the same name.
_KEPT = {
    "raw": ("preallocation",),
    "qcow2": (
        "compat",
        "cluster_size",
        "lazy_refcounts",
        "extended_l2",
        "refcount_bits",
        "compression_type",
        "preallocation",
    ),
    "qed": ("cluster_size", "table_size"),
    "vmdk": ("subformat", "adapter_type", "hwversion"),
    "vdi": ("static",),
    "vpc": ("subformat",),
    "vhdx": ("subformat", "block_size"),
    "parallels": ("cluster_size",),
}
#: What only version 3 of qcow2 has.
_VERSION_3 = ("lazy_refcounts", "extended_l2", "refcount_bits", "compression_type")
_OPTION = re.compile(r"([A-Za-z][A-Za-z0-9_.-]*)=(.*)", re.DOTALL)

_SUFFIXES = {"raw": "img", "vpc": "vhd", "parallels": "hdd"}


@dataclass(frozen=True, slots=True)
class Kind:
    """A container to write: options as `qemu-img create -o` names them; `compressed` is its `-c`."""

    format: str
    options: Mapping[str, str] = field(default_factory=dict)
    compressed: bool = False


def choose(
    target: str, recorded: Mapping[str, Any], declared: str | None, given: Sequence[str], *, compressed: bool | None
) -> Kind:
    """What to write to `target`, which may be `-`, a disk that was `recorded` in some container.

    `declared`, `given` (each `KEY=VALUE[,KEY=VALUE]…`) and `compressed` are what the user said. Nothing
    said: the same kind of container again. Raises `UsageError` for what makes no sense.
    """
    options = parse_options(given)
    was = str(recorded.get("format", "raw"))
    wanted = writable(declared or was)
    if declared is None:
        _check_name(target, wanted)
    if target == STDOUT and wanted not in STREAMS:
        raise errors.UsageError(
            f"{wanted} cannot be written to standard output", hint=f"only {' and '.join(STREAMS)} can; name a file"
        )
    if compressed is None:
        compressed = wanted == was == "qcow2" and recorded.get("compressed") is True
    elif compressed and wanted != "qcow2":
        hint = "say -o subformat=streamOptimized" if wanted == "vmdk" else "only qcow2 is"
        raise errors.UsageError(f"{wanted} is not compressed by -c", hint=hint)
    kept = _kept(recorded, options, compressed=compressed) if wanted == was else {}
    return Kind(wanted, {**kept, **options}, compressed)


def writable(name: str) -> str:
    hint = f"choose with --format one of {', '.join(FORMATS)}"
    try:
        found = detect.canonical(name)
    except errors.UsageError as error:
        raise errors.UsageError(error.message, hint=hint) from None
    if found not in FORMATS:
        raise errors.UsageError(f"{found} can only be read, not written", hint=hint)
    return found


def suffix(format_name: str) -> str:
    """How files of a format are usually named, without the dot."""
    return _SUFFIXES.get(format_name, format_name)


def parse_options(given: Sequence[str]) -> dict[str, str]:
    """The options of `-o`, as with qemu-img: several in one, parted by commas; `,,` is a comma in a value."""
    found: dict[str, str] = {}
    for argument in given:
        for part in argument.replace(",,", "\0").split(","):
            match = _OPTION.fullmatch(part.replace("\0", ","))
            if not match:
                raise errors.UsageError(f"not an option for -o: {argument}", hint="write it like -o cluster_size=65536")
            found[match[1]] = match[2]
    return found


def _check_name(target: str, wanted: str) -> None:
    promised = detect.named_like(target)
    if promised not in (None, wanted):
        raise errors.UsageError(
            f"{target}: is named like {promised}, but without --format this disk is written as {wanted}",
            hint=f"say --format {promised}, or --format {wanted}",
        )


def _kept(recorded: Mapping[str, Any], given: Mapping[str, str], *, compressed: bool) -> dict[str, str]:
    """The options that make the recorded container again, but for what contradicts what is said."""
    names = _KEPT.get(str(recorded["format"]), ())
    dropped = _VERSION_3 if given.get("compat") in ("0.10", "v2") else ()
    if compressed or "backing" in given:
        dropped = (*dropped, "preallocation")
    names = tuple(name for name in names if name not in dropped and recorded.get(name) is not None)
    found = {name: _spelled(recorded[name]) for name in names} | _luks(recorded)
    return found if recorded["format"] in ("raw", "qcow2") else _known(str(recorded["format"]), found)


def _luks(recorded: Mapping[str, Any]) -> dict[str, str]:
    """The options that make the recorded cipher; Linux and QEMU have different words for it."""
    if recorded["format"] != "luks" or not isinstance(recorded.get("key_bytes"), int):
        return {}
    mode, _, vector = str(recorded.get("cipher_mode", "")).partition("-")
    vector, _, vector_hash = vector.partition(":")
    bits = recorded["key_bytes"] * 8 // (2 if mode == "xts" else 1)
    return {
        "cipher-alg": f"{recorded.get('cipher')}-{bits}",
        "cipher-mode": mode,
        "ivgen-alg": vector,
        **({"ivgen-hash-alg": vector_hash} if vector_hash else {}),
        "hash-alg": str(recorded.get("hash")),
    }


def opens(recorded: Mapping[str, Any], wanted: Kind) -> str | None:
    """What to tell the user whose disk came encrypted and leaves readable by everybody; None if it does not."""
    was = recorded.get("encryption") or (recorded.get("format") == "luks" and "luks")
    if not was or wanted.format == "luks":
        return None
    return f"the image that the disk came in was encrypted ({was}); the new one is not"


def _known(format_name: str, options: Mapping[str, str]) -> dict[str, str]:
    """Those that can be written: of some formats more is read."""
    found: dict[str, str] = {}
    for name, value in options.items():
        with contextlib.suppress(errors.UsageError):
            found |= foreign_options.parse_options(format_name, {name: value})
    return found


def _spelled(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)
