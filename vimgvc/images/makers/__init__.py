"""Containers that are written here: a head with tables, and pieces of the disk in its order."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from vimgvc.images.makers import parallels, plan, qcow, qed, vdi, vhdx, vmdk, vpc

Maker = plan.Maker
Plan = plan.Plan
SECTOR = plan.SECTOR

_Make = Callable[[int, Mapping[str, str]], plan.Maker]

_MAKERS: dict[tuple[str, str | None], _Make] = {
    ("parallels", None): parallels.Parallels,
    ("qcow", None): qcow.Qcow,
    ("qed", None): qed.Qed,
    ("vdi", None): vdi.Vdi,
    ("vhdx", None): vhdx.Vhdx,
    ("vhdx", "dynamic"): vhdx.Vhdx,
    ("vhdx", "fixed"): vhdx.Vhdx,
    ("vmdk", None): vmdk.Vmdk,
    ("vmdk", "monolithicSparse"): vmdk.Vmdk,
    ("vpc", None): vpc.Dynamic,
    ("vpc", "dynamic"): vpc.Dynamic,
    ("vpc", "fixed"): vpc.Fixed,
}


def find(fmt: str, options: Mapping[str, str]) -> _Make | None:
    """What lays out such containers, of a size in whole sectors; None if it is not done here."""
    return _MAKERS.get((fmt, options.get("subformat")))
