"""Clone, fetch, pull and push with a place that is against its users (T12; rows C7, N13 to N20)."""

from __future__ import annotations

import pathlib
from typing import Any

import pytest

from tests.rigs import attacks
from tests.rigs.world import URL, Answered, Client, World, past, world

__all__ = ["past", "world"]

#: No command asks for more at once, whatever sizes it is shown.
LARGEST = 64 << 20


def run(client: Client, here: pathlib.Path, *arguments: str) -> Answered:
    return client.run_(client, [*arguments, "--repo", str(here), "--key-file", str(client.key)])


def restored(client: Client, here: pathlib.Path, revision: str) -> bytes | None:
    target = client.home / "restored.img"
    target.unlink(missing_ok=True)
    run(client, here, "restore", revision, str(target), "-q")
    return target.read_bytes() if target.exists() else None


def clone(client: Client, here: pathlib.Path, *options: str) -> Answered:
    return client.run_(client, ["clone", URL, str(here), "--key-file", str(client.key), "-q", *options])


@pytest.fixture
def cloned(world: World) -> tuple[Client, pathlib.Path]:
    """A client that cloned when `vm` had two states; since then the place has more."""
    client = world.client.fresh("cloner")
    here = client.home / "disks"
    world.place.show(world.states["web"])
    told = clone(client, here)
    assert told.code == 0, told.err
    world.place.honest()
    return client, here


#: By attack: exit codes of fetch by whoever cloned before, and of clone by a fresh client.
TABLE: list[tuple[attacks.Attack, int, int | None]] = [
    (attacks.rolled_back, 22, None),
    (attacks.rolled_back_to_nothing, 22, None),
    (attacks.newest_entry_withheld, 22, 22),
    (attacks.newest_entry_withheld_behind_a_decoy, 22, 22),
    (attacks.branch_withheld, 22, 22),
    (attacks.forked, 22, None),
    (attacks.forked_and_ahead, 22, None),
    (attacks.forks_joined, 22, 22),
    (attacks.another_repository, 22, None),
    (attacks.another_repository_of_somebody_else, 22, 12),
    (attacks.no_repository, 10, 10),
    (attacks.no_encryption, 0, 23),  # whoever has the key does not ask what there is to open it with
    (attacks.slots_withheld, 0, 12),
    (attacks.slots_flooded, 0, 20),
    (attacks.slot_copies_damaged, 0, 20),
    (attacks.slot_of_another_wrap, 0, 20),
    (attacks.slot_of_another_commitment, 0, 12),
    (attacks.config_changed, 0, 0),
    (attacks.config_bomb, 0, 0),
    (attacks.commit_withheld, 20, 20),
    (attacks.commits_swapped, 20, 20),
    (attacks.commit_damaged, 20, 20),
    (attacks.packs_withheld, 20, 20),
    (attacks.packs_swapped, 20, 20),
    (attacks.packs_damaged, 20, 20),
    (attacks.packs_cut, 20, 20),
    (attacks.index_withheld, 0, 0),
    (attacks.index_swapped, 0, 0),
    (attacks.newest_withheld, 20, 20),
    (attacks.newest_entry_damaged, 20, 20),
    (attacks.older_entry_for_newest, 20, 20),
    (attacks.middle_entry_withheld, 0, 0),
    (attacks.bombs("refs"), 22, 20),
    (attacks.bombs("commits"), 20, 20),
    (attacks.bombs("index"), 0, 0),
    (attacks.bombs("packs"), 20, 20),
    (attacks.bombs("keys"), 0, 20),
    (attacks.sizes_lie("packs", attacks.TIB), 20, 20),
    (attacks.sizes_lie("index", 0), 0, 0),
    (attacks.planted_bombs, 0, 0),
    (attacks.names_planted, 0, 0),
]


@pytest.mark.parametrize(("attack", "code"), [row[:2] for row in TABLE], ids=[row[0].__name__ for row in TABLE])
def test_t12_fetch(world: World, cloned: tuple[Client, pathlib.Path], attack: attacks.Attack, code: int) -> None:
    """A fetch brings what is right or nothing, leaves a sound repository, and works when the attack is over."""
    client, here = cloned
    attack(world)
    told = run(client, here, "fetch", "--prune")
    assert told.code == code, told.err
    assert restored(client, here, "origin/vm") == world.contents["vm3" if code == 0 else "vm2"]
    assert restored(client, here, "origin/web") == world.contents["web"]
    assert run(client, here, "verify").code == 0
    assert world.place.largest <= LARGEST
    world.place.honest()
    assert run(client, here, "fetch").code == 0
    assert restored(client, here, "origin/vm") == world.contents["vm3"]


def _clone(attack: attacks.Attack, fetched: int, code: int) -> Any:
    marks = [pytest.mark.deep] if fetched == code else []
    return pytest.param(attack, code, id=attack.__name__, marks=marks)


@pytest.mark.parametrize(
    ("attack", "code"), [_clone(attack, fetched, code) for attack, fetched, code in TABLE if code is not None]
)
def test_t12_clone(world: World, attack: attacks.Attack, code: int) -> None:
    """A clone holds what is right or nothing, and goes on when the attack is over."""
    client = world.client.fresh()
    here = client.home / "disks"
    attack(world)
    told = clone(client, here)
    assert told.code == code, told.err
    assert restored(client, here, "vm") == (world.contents["vm3"] if code == 0 else None)
    assert world.place.largest <= LARGEST
    world.place.honest()
    assert clone(client, here).code == 0
    assert restored(client, here, "origin/vm") == world.contents["vm3"]
    assert run(client, here, "verify").code == 0


def test_n17_clone_with_a_fingerprint(world: World) -> None:
    """A machine that never saw the place takes a fingerprint along, and does not clone what is behind it."""
    client = world.client.fresh()
    here = client.home / "disks"
    world.place.show(world.states["vm2"])
    refused = clone(client, here, "--expect-head", world.heads["vm3"])
    assert refused.code == 22
    assert not here.exists()
    world.place.honest()
    assert clone(client, here, "--expect-head", world.heads["vm3"]).code == 0
    assert restored(client, here, "vm") == world.contents["vm3"]


def test_n15_fetch_accepts_a_rollback_once(world: World, cloned: tuple[Client, pathlib.Path]) -> None:
    """The same word as for a repository accepts it for another place, and only what is there then."""
    client, here = cloned
    assert run(client, here, "fetch").code == 0
    world.place.show(world.states["web"])
    assert run(client, here, "fetch").code == 22
    assert run(client, here, "fetch", "--accept-rollback").code == 0
    assert run(client, here, "fetch").code == 0
    assert run(client, here, "verify").code == 0
    world.place.show(world.states["vm1"])
    assert run(client, here, "push").code == 22


PUSHES: list[tuple[attacks.Attack, int]] = [
    (attacks.rolled_back, 22),
    (attacks.forked, 22),
    (attacks.forks_joined, 22),
    (attacks.newest_entry_withheld, 22),
    (attacks.another_repository, 22),
    (attacks.no_repository, 10),
    (attacks.packs_withheld, 0),
    (attacks.packs_damaged, 0),
    (attacks.index_withheld, 0),
    (attacks.slots_withheld, 0),
    (attacks.newest_entry_damaged, 0),
    (attacks.planted_bombs, 0),
    (attacks.bombs("refs"), 22),
]


@pytest.mark.parametrize(("attack", "code"), PUSHES, ids=[attack.__name__ for attack, _ in PUSHES])
def test_t12_push(world: World, cloned: tuple[Client, pathlib.Path], attack: attacks.Attack, code: int) -> None:
    """A push of a new branch arrives whole, or is refused; what was there stays as it was."""
    client, here = cloned
    image = client.home / "db.img"
    image.write_bytes(b"data" * 60_000)
    assert run(client, here, "commit", str(image), "-q").code == 0
    attack(world)
    told = run(client, here, "push", "origin", "db")
    assert told.code == code, told.err
    if attack in (attacks.planted_bombs, attacks.newest_entry_damaged, attacks.packs_damaged, attacks.slots_withheld):
        world.place.honest()
    if code == 0:
        other = world.client.fresh("other")
        assert other.restored("db") == (0, image.read_bytes())
    world.place.honest()
    for step in ("vm3", "web"):
        assert world.client.restored(world.ids[step]) == (0, world.contents[step])


def test_n16_push_onto_a_damaged_entry_is_refused(world: World, cloned: tuple[Client, pathlib.Path]) -> None:
    """Where a branch is cannot be read at the place: nothing is put on top of it."""
    client, here = cloned
    image = client.home / "vm.img"
    image.write_bytes(b"data" * 60_000)
    assert run(client, here, "commit", str(image), "-q").code == 0
    before = len(list(world.place.good.list("refs")))
    attacks.newest_entry_damaged(world)
    assert run(client, here, "push", "origin", "vm").code == 20
    assert len(list(world.place.good.list("refs"))) == before


@pytest.mark.parametrize("data", [True, False], ids=["a commit", "a name"])
def test_n5_a_push_to_a_place_that_keeps_nothing(world: World, cloned: tuple[Client, pathlib.Path], data: bool) -> None:
    """A place that says yes and keeps nothing is noticed before the push is called done, also when data is there."""
    client, here = cloned
    if data:
        image = client.home / "db.img"
        image.write_bytes(b"data" * 60_000)
        assert run(client, here, "commit", str(image), "-q").code == 0
    else:
        assert run(client, here, "branch", "db", "vm").code == 0
    world.place.drops_puts = True
    told = run(client, here, "push", "origin", "db")
    assert told.code in (1, 20, 22), told.err


def test_n20_another_repository_is_not_mixed_in(world: World, cloned: tuple[Client, pathlib.Path]) -> None:
    """A place with other keys, though the secret is the same, gives nothing to a fetch; what is here stays as it is."""
    client, here = cloned
    before = sorted(str(path) for path in here.rglob("*") if path.is_file())
    attacks.another_repository(world)
    told = run(client, here, "fetch", "--accept-rollback")
    assert told.code == 22
    assert sorted(str(path) for path in here.rglob("*") if path.is_file()) == before
