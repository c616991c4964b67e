"""What a push believes of a place that takes what it is given, or has it already."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import pytest

from tests.remote import places
from tests.remote.test_push import with_history
from vimgvc import errors
from vimgvc.backends import memory, protocol
from vimgvc.remote import seeding


def test_n5_read_back_nearby(seed: int) -> None:
    """N5: also of a place without round trips each pack is asked for by its size before anything names it."""
    source, _ = with_history(seed, 1)

    class Cutting(memory.MemoryBackend):
        def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
            whole = b"".join(parts)
            return super().put(name, [whole[:-1] if name.startswith("packs/") else whole])

    near = Cutting()
    seeding.seed(source, near)
    with pytest.raises(errors.IntegrityError, match="bytes instead of"):
        places.push_all(source, places.far(source, near))
    assert not [name for area in ("index", "commits", "refs") for name in near.list(area)]


@pytest.mark.parametrize("parallel", [1, 8])
def test_n9_a_taken_name_with_another_size(seed: int, parallel: int) -> None:
    """N9: a pack that is there when it is put, and was not listed before, is not relied on unless its size is right.

    What it holds goes into another pack; one with the right size counts as stored.
    """
    source, states = with_history(seed, 2)

    class Racing(places.Far):
        """Somebody is faster each time, the first time with less."""

        cuts = 1

        @property
        def capabilities(self) -> protocol.Capabilities:
            return dataclasses.replace(super().capabilities, parallel=parallel)

        def put(self, name: str, parts: object) -> bool:
            if name.startswith("packs/") and name not in self.content:
                whole = b"".join(parts)  # type: ignore[arg-type]
                self.replace(name, whole[:-1] if self.cuts else whole)
                self.cuts = 0
            return super().put(name, parts)

    far = Racing()
    seeding.seed(source, far)
    target = places.far(source, far)
    places.push_all(source, target)
    after = places.far(source, far)
    assert [places.restored(after, f"vm~{back}") for back in range(2)] == [bytes(state) for state in states[::-1]]
    assert [item.kind for item in after.verify("data").problems] == ["pack"]  # the one that somebody cut


def test_n9_a_taken_commit(seed: int) -> None:
    """N9: a commit that is there when it is put has to be that commit: else nothing comes to lead to it."""
    source, _ = with_history(seed, 1)
    far = places.Far()
    seeding.seed(source, far)
    far.replace(f"commits/{source.branches()['vm']}", b"something else")
    with pytest.raises(errors.IntegrityError, match="commit"):
        places.push_all(source, places.far(source, far))
    assert not list(far.list("refs"))
