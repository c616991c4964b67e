"""Gates: our own strict reading of the headers of formats that a foreign program reads for us.

A gate decides from the header alone what an image is, and refuses what a program of that size should
never be given: fields that do not fit each other or the file, and everything that leads to other
files. What passes has tables that lead nowhere outside the file, because programs read what lies
behind the end of a file as zeros. Spec: specs/foreign-formats.md, "Gates".
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

from vimgvc import errors
from vimgvc.disk import protocol
from vimgvc.images.gates import bochs, cloop, dmg, judge, luks, parallels, qcow, qed, vdi, vhdx, vmdk, vpc

Facts = judge.Facts
MAX_SIZE = judge.MAX_SIZE

#: What `look` reads at most, twice.
_LOOK = 8 << 20

_Gate = Callable[[judge.Judge, bool], judge.Facts]

_GATES: dict[str, _Gate] = {
    "bochs": bochs.check,
    "cloop": cloop.check,
    "dmg": dmg.check,
    "luks": luks.check,
    "parallels": parallels.check,
    "qcow": qcow.check,
    "qed": qed.check,
    "vdi": vdi.check,
    "vhdx": vhdx.check,
    "vmdk": vmdk.check,
    "vpc": vpc.check,
}

#: The formats that have a gate.
FORMATS = tuple(sorted(_GATES))


def check(fmt: str, file: protocol.Source, name: str, *, tables: bool = True) -> Facts:
    """The facts of the open `file`, which messages call `name`, read as format `fmt`.

    `tables=False` reads the header only (a few KiB): enough to tell what an image is, not to read it.
    Raises `UnsafeImage` (a field, its value and its limit), `Unsupported`, `ImageDamaged` (a table
    leads out of the file) or what reading the file raises.
    """
    return _check(judge.Judge(file, name), fmt, tables=tables)


def look(fmt: str, file: protocol.Source, name: str) -> Facts:
    """As `check`, for telling and not for reading: a few MiB are read, and damage is a note.

    `data_bytes` is told when the tables are small enough and sound.
    """
    try:
        return _check(judge.Judge(file, name, most=_LOOK), fmt, tables=True)
    except judge.TooMuch:
        return check(fmt, file, name, tables=False)
    except (errors.ImageDamaged, errors.UnsafeImage, errors.Unsupported) as error:
        facts = check(fmt, file, name, tables=False)
        return dataclasses.replace(facts, notes=(*facts.notes, error.message))


def _check(j: judge.Judge, fmt: str, *, tables: bool) -> Facts:
    name = j.name
    gate = _GATES.get(fmt)
    if gate is None:
        raise errors.Unsupported(f"reading {fmt} images ({name})", hint=f"known are {', '.join(FORMATS)}")
    facts = gate(j, tables)
    if facts.size is not None and facts.size > MAX_SIZE:
        raise errors.UnsafeImage(f"{name}: the size of the disk is {facts.size}, allowed is up to {MAX_SIZE}")
    if not tables or j.data_bytes is None or facts.size is None:
        return facts
    return dataclasses.replace(facts, data_bytes=min(j.data_bytes, facts.size))
