"""All cases: name -> row -> what `commit` must answer."""

from __future__ import annotations

import functools

from tests.hostile import case, chains, others, ova, plain, qcow2_bad, qcow2_good, vbox_and_vpc, vhdx, vmdk

_PARTS = (qcow2_good, qcow2_bad, chains, plain, vmdk, vbox_and_vpc, vhdx, others, ova)


@functools.cache
def cases() -> list[case.Case]:
    found = [item for part in _PARTS for item in part.cases()]
    names = [item.name for item in found]
    assert len(set(names)) == len(names), sorted(name for name in names if names.count(name) > 1)
    return found
