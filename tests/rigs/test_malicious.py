"""The real commands at a place that is against its users (T12; rows C3 to C10, N13 to N18, N25, R13)."""

from __future__ import annotations

import contextlib
import pathlib
import tracemalloc
from collections.abc import Iterator
from typing import Any

import pytest

from tests import repos
from tests.rigs import attacks, malicious
from tests.rigs.world import World, past, world
from tests.suites import backend
from vimgvc.backends import protocol
from vimgvc.codec import keys, slots
from vimgvc.model import encoding

__all__ = ["past", "world"]

#: No command asks for more at once, whatever sizes it is shown.
LARGEST = 64 << 20
#: What tracing is allowed to find in memory at once.
MEMORY = 128 << 20
ALL_22, ALL_12, ALL_20 = (22,) * 4, (12,) * 4, (20,) * 4
#: By attack: exit codes of log, verify, restore and commit, of whoever has seen the place and of a fresh client.
TABLE: list[tuple[attacks.Attack, tuple[int, ...] | None, tuple[int, ...] | None]] = [
    (attacks.rolled_back, ALL_22, None),
    (attacks.rolled_back_to_nothing, ALL_22, None),
    (attacks.newest_entry_withheld, ALL_22, ALL_22),
    (attacks.newest_entry_withheld_behind_a_decoy, ALL_22, ALL_22),
    (attacks.branch_withheld, ALL_22, ALL_22),
    (attacks.tag_withheld, ALL_22, None),
    (attacks.forked, ALL_22, None),
    (attacks.forked_and_ahead, ALL_22, None),
    (attacks.forks_joined, ALL_22, ALL_22),
    (attacks.another_repository, ALL_22, None),
    (attacks.another_repository_of_somebody_else, ALL_22, ALL_12),
    (attacks.no_repository, (10,) * 4, (10,) * 4),
    (attacks.no_encryption, (23,) * 4, (23,) * 4),
    (attacks.slots_withheld, (0, 20, 0, 0), ALL_12),
    (attacks.slots_flooded, (0, 20, 0, 0), ALL_20),
    (attacks.slot_copy_damaged, (0, 20, 0, 0), (0, 20, 0, 0)),
    (attacks.slot_copies_damaged, (0, 20, 0, 0), ALL_20),
    (attacks.slot_of_another_wrap, (0, 0, 0, 0), ALL_20),
    (attacks.slot_of_another_commitment, (0, 0, 0, 0), ALL_12),
    (attacks.bombs("keys"), (0, 20, 0, 0), ALL_20),
    (attacks.sizes_lie("keys", attacks.TIB), (0, 20, 0, 0), ALL_20),
    (attacks.sizes_lie("keys", 0), (0, 0, 0, 0), (0, 0, 0, 0)),
]
#: The same for attacks that concern both alike.
ALIKE: list[tuple[attacks.Attack, tuple[int, ...]]] = [
    (attacks.config_withheld, (0, 20, 0, 0)),
    (attacks.config_changed, (0, 20, 0, 0)),
    (attacks.config_bomb, (0, 20, 0, 0)),
    (attacks.commit_withheld, (0, 20, 20, 0)),
    (attacks.commits_swapped, (0, 20, 20, 0)),
    (attacks.commit_damaged, (0, 20, 20, 0)),
    (attacks.packs_withheld, (0, 20, 20, 0)),
    (attacks.packs_swapped, (0, 20, 20, 0)),
    (attacks.packs_damaged, (0, 20, 20, 0)),
    (attacks.packs_cut, (0, 20, 20, 0)),
    (attacks.index_withheld, (0, 0, 0, 0)),
    (attacks.index_swapped, (0, 20, 0, 0)),
    (attacks.newest_withheld, (0, 20, 20, 0)),
    (attacks.newest_entry_damaged, (0, 20, 20, 0)),
    (attacks.older_entry_for_newest, (0, 20, 20, 0)),
    (attacks.middle_entry_withheld, (0, 20, 0, 0)),
    (attacks.middle_entry_swapped, (0, 20, 0, 0)),
    (attacks.bombs("refs"), (0, 20, 20, 20)),
    (attacks.bombs("commits"), (0, 20, 20, 0)),
    (attacks.bombs("index"), (0, 20, 0, 0)),
    (attacks.bombs("packs"), (0, 20, 20, 0)),
    (attacks.sizes_lie("refs", attacks.TIB), (0, 0, 0, 0)),
    (attacks.sizes_lie("commits", 0), (0, 0, 0, 0)),
    (attacks.sizes_lie("index", attacks.TIB), (0, 0, 0, 0)),
    (attacks.sizes_lie("packs", attacks.TIB), (0, 20, 20, 0)),
    (attacks.sizes_lie("packs", 0), (0, 20, 20, 0)),
    (attacks.planted_bombs, (0, 20, 0, 0)),
    (attacks.names_planted, (0, 20, 0, 0)),
]
_CASES = [
    (attack, who, codes) for attack, *both in TABLE for who, codes in zip(("seen", "fresh"), both, strict=True) if codes
] + [(attack, who, codes) for attack, codes in ALIKE for who in ("seen", "fresh")]
_BOTH = {attack for attack, _ in ALIKE}


@contextlib.contextmanager
def bounded(*, traced: bool = True) -> Iterator[None]:
    """Nothing in here takes more than `MEMORY` at once; tracing takes time."""
    if not traced:
        yield
        return
    tracemalloc.start()
    try:
        yield
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MEMORY


class TestHonest(backend.BackendSuite):
    """Without an attack it is a Backend like any other."""

    def create(self, folder: pathlib.Path) -> malicious.Malicious:
        return malicious.Malicious()

    def aside(self, backend: protocol.Backend) -> dict[str, bytes]:
        assert isinstance(backend, malicious.Malicious)
        return backend.good.aside


def _case(attack: attacks.Attack, who: str, codes: tuple[int, ...]) -> Any:
    marks = [pytest.mark.deep] if attack in _BOTH and who == "fresh" else []
    return pytest.param(attack, who, codes, id=f"{attack.__name__}-{who}", marks=marks)


@pytest.mark.parametrize(("attack", "who", "codes"), [_case(*case) for case in _CASES])
def test_t12_attack(world: World, attack: attacks.Attack, who: str, codes: tuple[int, ...]) -> None:
    """Every command ends as specified, restores the right bytes or none, stays small, and does no harm to anybody."""
    client = world.client if who == "seen" else world.client.fresh()
    attack(world)
    with bounded(traced=attack.__name__.startswith(("bombs", "sizes", "planted", "config_bomb"))):
        told = [client.run("log").code, client.run("verify").code]
        code, written = client.restored()
        told += [code, world.commit(client, "vm", b"new" * 60_000).code]
    assert tuple(told) == codes
    assert written == (world.contents["vm3"] if code == 0 else None)
    assert world.place.largest <= LARGEST
    world.place.honest()
    assert client.run("log").code == 0
    for step in ("vm3", "vm1"):
        assert client.restored(world.ids[step]) == (0, world.contents[step])


def test_there_are_sixty_cases() -> None:
    """The rig has at least as many cases as the catalogue asks for."""
    assert len(_CASES) >= 60


def test_opening_reads_the_last_entries_and_no_others(world: World) -> None:
    """Comparing what entries tell costs nothing once it was done: of the logs only the ends are read."""
    names: list[str] = []
    assert world.client.run("log").code == 0
    world.place.hooks.append(names.append)
    assert world.client.run("log").code == 0
    last = {world.entries("vm")[-1], world.entries("web")[-1], world.entries("v1", "tag")[-1]}
    assert {name for name in names if name.startswith("refs/")} == last


@pytest.mark.parametrize("step", ["vm1", "vm2", "web", "vm3", "v1"])
def test_n17_a_fingerprint_from_any_time_holds(world: World, step: str) -> None:
    """A fresh client takes a fingerprint of any earlier state, and refuses whatever is behind it."""
    assert world.client.fresh("a").run("log", "--expect-head", world.heads[step]).code == 0
    steps = list(world.states)
    for number, earlier in enumerate(steps[: steps.index(step)]):
        world.place.show(world.states[earlier])
        client = world.client.fresh(f"fresh{number}")
        assert client.run("log", "--expect-head", world.heads[step]).code == 22
        assert client.run("log").code == 0, "nobody can know without"


def test_n15_an_accepted_rollback_is_accepted_once(world: World) -> None:
    """`--accept-rollback` lets every command go on from there, and nothing older than that."""
    world.place.show(world.states["vm2"])
    refused = world.client.run("log")
    assert refused.code == 22
    for told in ("branch 'vm' ends with entry 2, it had 3 entries", "branch 'web' is gone", "tag 'v1' is gone"):
        assert told in refused.err
    assert "--accept-rollback" in refused.err
    assert world.client.run("log", "--accept-rollback").code == 0
    assert world.client.run("log").code == 0
    assert world.client.restored() == (0, world.contents["vm2"])
    assert world.client.run("verify").code == 0
    assert world.commit(world.client, "vm", b"new" * 50_000).code == 0
    world.place.show(world.states["vm1"])
    assert world.client.run("log").code == 22


def test_n15_an_accepted_loss_stops_neither_verify_nor_gc(world: World) -> None:
    """What was accepted to be missing is missing from then on: though others' entries tell of it for ever."""
    last = world.entries("vm")[-1]
    world.place.withhold(last)
    assert world.client.run("log", "--accept-rollback").code == 0
    assert world.client.run("verify").code == 0
    assert world.client.run("gc", "-q").code == 0
    assert world.client.restored() == (0, world.contents["vm2"])
    assert world.commit(world.client, "web", b"more" * 50_000).code == 0
    assert world.client.run("verify").code == 0
    assert world.client.fresh().run("log").code == 22, "whoever has not accepted it is told"


@pytest.mark.parametrize("attack", [attacks.rolled_back, attacks.forked, attacks.newest_entry_withheld])
def test_n15_a_rollback_in_the_middle_of_a_commit(world: World, attack: attacks.Attack) -> None:
    """A place that shows what it should until it was opened, and then something older, gets no entry on top of that."""
    before = len(list(world.place.good.list("refs")))

    def begin(name: str) -> None:
        if name == "gc":
            world.place.hooks.clear()
            attack(world)

    world.place.hooks.append(begin)
    told = world.commit(world.client, "vm", b"new" * 50_000)
    assert told.code == 22, told.err
    assert len(list(world.place.good.list("refs"))) == before


def test_n16_two_clients_that_were_shown_two_histories(world: World) -> None:
    """Each goes on in a view of his own and sees nothing; an entry of one that reaches the other gives it away."""
    other = world.place.fork()
    one, two = world.client, world.client.fresh("two")
    assert world.commit(one, "vm", b"one" * 50_000).code == 0
    world.places[world.place.url] = other
    assert world.commit(two, "vm", b"two" * 50_000).code == 0
    assert world.commit(two, "web", b"two" * 60_000).code == 0
    joined = [item.name for item in other.good.list("refs") if item.name not in world.place.snapshot()]
    assert len(joined) == 1, "the entry of web; that of vm has the same name on either side"
    world.places[world.place.url] = world.place
    world.place.answers[joined[0]] = other.good.get(joined[0])
    for client in (one, two, world.client.fresh("three")):
        told = client.run("log")
        assert told.code == 22
        assert "has another entry" in told.err
    world.place.honest()
    assert one.run("log").code == 0


def test_n5_a_place_that_keeps_nothing_is_told_nothing(world: World) -> None:
    """A place that says yes to everything and keeps nothing: the commit fails before a branch would lead to it."""
    world.place.drops_puts = True
    told = world.commit(world.client, "vm", b"new" * 50_000)
    assert told.code in (1, 20), told.err
    world.place.honest()
    assert world.client.restored() == (0, world.contents["vm3"])


def test_r13_a_log_with_a_hole(world: World) -> None:
    """What a branch was is not told through a hole (22), unless that is asked for; commits are found by identifier."""
    attacks.middle_entry_withheld(world)
    for arguments in (["reflog", "vm"], ["show", "vm@{2}"]):
        assert world.client.run(*arguments).code == 22
    assert world.client.run("reflog", "vm", "--accept").code == 0
    assert world.client.restored(world.ids["vm1"]) == (0, world.contents["vm1"])


def test_n18_missing_packs_are_found_without_reading_any(world: World) -> None:
    """`verify --quick` finds packs that are gone or cut by listing, and reads no byte of any."""
    attacks.packs_withheld(world)
    names: list[str] = []
    world.place.hooks.append(names.append)
    assert world.client.run("verify", "--quick").code == 20
    known = {f"packs/{name[6:8]}/{name[-64:]}" for name in names if name.startswith("packs/")}
    assert known <= {item.name for item in world.place.good.list("packs")}
    assert world.place.largest < 1 << 20


@pytest.mark.parametrize(
    ("row", "kdf"),
    [
        ("c3", {"m": 64 << 20}),
        ("c3", {"t": 1 << 31}),
        ("c3", {"p": 0}),
        ("c3", {"p": 1 << 20}),
        ("c4", {"m": 8}),
        ("c4", {"t": 0}),
    ],
    ids=str,
)
def test_c3_c4_a_slot_with_another_price(world: World, row: str, kdf: dict[str, int]) -> None:
    """A slot that would cost too much, or too little, is refused before any work; a sound one beside it still opens."""
    secret = keys.Secret(keys.PASSPHRASE, b"correct horse")
    blob = slots.make_slot(
        secret,
        world.root.root,
        world.root.config,
        label="",
        created="2026-01-02T03:04:05Z",
        rng=lambda size: b"\7" * size,
        profile=keys.CHEAPEST,
    )
    slot = encoding.loads_canonical(blob, row)
    changed = attacks.resummed({**slot, "kdf": {**slot["kdf"], **kdf}})
    for copy in (0, 1):
        world.place.plant(f"keys/{slot['id']}-{copy}", changed)
    passphrase = world.client.home / "pass"
    passphrase.write_text("correct horse")
    client = world.client.fresh()
    with bounded():
        told = client.run_(client, ["log", "--repo", world.place.url, "--password-file", str(passphrase)])
    assert told.code == 20, told.err
    assert client.run("log").code == 0


def test_c6_a_kit_reopens_a_place_without_slots(world: World) -> None:
    """After the place has dropped all key slots a recovery kit brings them back, also to a fresh client."""
    kit = world.client.home / "kit"
    assert world.client.run("key", "export", str(kit)).code == 0
    attacks.slots_withheld(world)
    client = world.client.fresh()
    refused = client.run("log")
    assert refused.code == 12
    assert "no key slots" in refused.err
    assert client.run("key", "import", str(kit)).code == 0
    assert client.restored() == (0, world.contents["vm3"])


def test_c6_another_slot_in_place_of_a_known_one_does_not_stick(world: World) -> None:
    """However often a client sees a slot that was exchanged, its own copy stays what it was."""
    attacks.slot_of_another_wrap(world)
    for _ in range(3):
        assert world.client.run("log").code == 0
    attacks.slots_withheld(world)
    assert world.client.restored() == (0, world.contents["vm3"])


def test_c6_a_flood_of_slots_does_not_stop_what_was_seen(world: World) -> None:
    """New slots with every opening neither push out what opens nor make the trust store too large to be believed."""
    template = encoding.loads_canonical(world.place.good.get(attacks.slots(world)[0]), "slot")
    for opening in range(3):
        for number in range(40):
            slot_id = f"{opening:02x}{number:030x}"
            blob = attacks.resummed({**template, "id": slot_id, "label": "x" * 60})
            world.place.plant(f"keys/{slot_id}-0", blob)
            world.place.plant(f"keys/{slot_id}-1", blob)
        assert world.client.run("log").code == 0
    world.place.planted.clear()
    attacks.rolled_back(world)
    assert world.client.run("log").code == 22
    world.place.honest()
    attacks.slots_withheld(world)
    assert world.client.restored() == (0, world.contents["vm3"])


def test_n25_a_flood_of_commits(world: World) -> None:
    """What another host adds, however much, pushes nothing of this one's out of a policy."""
    repo = world.repo()
    for number in range(30):
        repos.commit(repo, ("vm", bytes([number]) * 5000))
    told = world.client.run("forget", "--keep-last", "2", "--force")
    assert told.code == 0, told.err
    assert world.client.run("gc", "-q").code in (0, 1)
    for step in ("vm3", "vm2"):
        assert world.client.restored(world.ids[step]) == (0, world.contents[step])
