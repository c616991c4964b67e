"""Whatever happens in whatever order: what was acknowledged and is still named comes back byte for byte.

Hypothesis draws the lives. Each step is a command, a power cut in the middle of the next one, damage from outside,
or a look; after each life everything is read. A failure prints the shortest life that fails, as Python.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import hypothesis
import numpy as np
import pytest
from cryptography.hazmat.primitives.ciphers import aead as library
from hypothesis import stateful
from hypothesis import strategies as st

from tests import depth
from tests.gc import past
from tests.property import machine, power, promises
from vimgvc import errors
from vimgvc.backends import local
from vimgvc.codec import aead
from vimgvc.model import reflog
from vimgvc.repo import names, repository

pytestmark = pytest.mark.long

PICK = st.integers(0, 999)
SEED = st.integers(0, 2**32 - 1)
BRANCH = st.sampled_from(promises.BRANCHES)
KEY = st.sampled_from(promises.KEYS)
#: A disk: which pieces it consists of (0: zeros), and how long what is left over is.
DISK = st.tuples(st.lists(st.integers(0, 9), min_size=1, max_size=5), st.sampled_from((0, 1, 513, 4096)))
DAMAGE = st.sampled_from(("flipped", "short", "empty", "gone"))
AREAS = ("packs", "packs", "index", "commits", "refs", "refs", "forgotten", "gc")
_repair: Callable[..., Any] | None = getattr(repository.Repository, "repair", None)


def disk(drawn: tuple[list[int], int]) -> bytes:
    numbers, tail = drawn
    return b"".join(machine.piece(number) for number in numbers) + machine.piece(numbers[0] + 1)[:tail]


class History(stateful.RuleBasedStateMachine):
    """One life; `self.world.owes` is the model."""

    def __init__(self) -> None:
        super().__init__()
        self.world = machine.World()
        self.owes = self.world.owes

    def teardown(self) -> None:
        try:
            self.world.check(everything=True)
            self._check_logs()
        finally:
            self.world.close()

    def _check_logs(self) -> None:
        """Every value of every name is in its log; nothing else is amiss either."""
        if self.world.scarred:
            return
        repo = self.world.open()
        for kind, name in self.owes.logs:
            values = [ref.entry.commit for ref in repo.reflog(kind, name)]
            assert values[::-1] == self.owes.logs[kind, name]
        if not self.world.hurt:
            assert repo.verify("quick").problems == []

    @stateful.initialize(drawn=st.lists(st.tuples(BRANCH, DISK), min_size=3, max_size=5), tag=st.booleans())
    def begin(self, drawn: list[tuple[str, tuple[list[int], int]]], tag: bool) -> None:
        """Rules are left out at random; without commits nothing else would mean anything."""
        for branch, content in drawn:
            self.world.commit(branch, {"vda": disk(content)}, allow_empty=True)
        older = sorted(self.owes.live() - self.owes.tips())
        if tag and older:
            self._forget(older[:1])
            self._name((reflog.TAG, promises.TAGS[0]), older[0])

    # --- commands ---------------------------------------------------------------------------------

    @stateful.rule(branch=BRANCH, first=DISK, second=st.none() | DISK, allow_empty=st.booleans())
    def commit(
        self, branch: str, first: tuple[list[int], int], second: tuple[list[int], int] | None, allow_empty: bool
    ) -> None:
        disks = {"vda": disk(first)} | ({"vdb": disk(second)} if second else {})
        self.world.commit(branch, disks, allow_empty=allow_empty)

    @stateful.precondition(lambda self: self.owes.tips())
    @stateful.rule(pick=PICK, at=PICK, number=st.integers(0, 9))
    def commit_change(self, pick: int, at: int, number: int) -> None:
        """A piece of the first disk of a branch or tag is another one: most is stored already."""
        key = _choose(self._living(), pick)
        disks = dict(self.owes.commits[str(self.owes.value(key))].disks)
        start = at * 4096 % len(disks["vda"])
        changed = bytearray(disks["vda"])
        changed[start : start + machine.PIECE] = machine.piece(number)
        branch = key[1] if key[0] == reflog.BRANCH else promises.BRANCHES[0]
        self.world.commit(branch, disks | {"vda": bytes(changed)}, allow_empty=False)

    @stateful.precondition(lambda self: self.owes.there())
    @stateful.rule(key=KEY, pick=PICK)
    def name(self, key: promises.Key, pick: int) -> None:
        """A branch or tag, new or moved, also for a commit that nothing names any more."""
        self._name(key, _choose(self.owes.there(), pick))

    @stateful.precondition(lambda self: self.owes.forgotten - self.owes.gone)
    @stateful.rule(key=KEY, pick=PICK)
    def name_forgotten(self, key: promises.Key, pick: int) -> None:
        """Until it is collected a name brings a forgotten commit back."""
        self._name(key, _choose([item for item in self.owes.there() if item in self.owes.forgotten], pick))

    def _name(self, key: promises.Key, commit_id: str) -> None:
        def done(change: names.Change) -> None:
            assert change.before == self.owes.value(key)
            if change.before != commit_id:
                self.owes.put(key, commit_id)

        self.world.act(
            lambda: names.create(self.world.repo, *key, commit_id, force=True, host="host"),
            done,
            machine.Unsure({key: commit_id}),
        )

    @stateful.precondition(lambda self: self.owes.tips())
    @stateful.rule(pick=PICK)
    def delete(self, pick: int) -> None:
        key = _choose(self._living(), pick)
        self.world.act(
            lambda: names.delete(self.world.repo, *key, host="host"),
            lambda _change: self.owes.put(key, None),
            machine.Unsure({key: None}),
        )

    @stateful.precondition(lambda self: self.owes.tips())
    @stateful.rule(pick=PICK, to=KEY)
    def rename(self, pick: int, to: promises.Key) -> None:
        key = _choose(self._living(), pick)
        new, commit_id = (key[0], to[1]), self.owes.value(key)
        if to[0] != key[0] or new == key:
            return

        def done(_changes: object) -> None:
            if self.owes.value(new) != commit_id:
                self.owes.put(new, commit_id)
            self.owes.put(key, None)

        self.world.act(
            lambda: names.rename(self.world.repo, key[0], key[1], new[1], force=True, host="host"),
            done,
            machine.Unsure({new: commit_id, key: None}),
        )

    def _living(self) -> list[promises.Key]:
        return [key for key in promises.KEYS if self.owes.value(key)]

    @stateful.precondition(lambda self: self._deleted() and not self.world.scarred)
    @stateful.rule(pick=PICK)
    def bring_back(self, pick: int) -> None:
        """What a deleted name was is found through its log."""
        key = _choose(self._deleted(), pick)
        commit_id = self.world.open().resolve(f"{key[1]}@{{1}}").id
        assert commit_id == self.owes.logs[key][-2]
        self._name(key, commit_id)

    def _deleted(self) -> list[promises.Key]:
        deleted = [key for key in promises.KEYS if key in self.owes.logs and not self.owes.value(key)]
        return [key for key in deleted if self.owes.logs[key][-2] in self.owes.there()]

    @stateful.precondition(lambda self: self.owes.there())
    @stateful.rule(picks=st.lists(PICK, min_size=1, max_size=4))
    def forget(self, picks: list[int]) -> None:
        """All of them, or none when a name is at one of them."""
        self._forget(list(dict.fromkeys(_choose(self.owes.there(), pick) for pick in picks)))

    @stateful.precondition(lambda self: self.owes.live() - self.owes.tips() - self.owes.gone)
    @stateful.rule(keep=PICK)
    def forget_but(self, keep: int) -> None:
        """Nearly all that may be forgotten, as a retention policy does it."""
        older = [item for item in self.owes.there() if item in self.owes.live() - self.owes.tips()]
        self._forget([item for item in older if item != _choose(older, keep)] or older)

    def _forget(self, ids: list[str]) -> None:
        if self.owes.tips() & set(ids):
            with pytest.raises(errors.VimgvcError):
                self.world.repo.forget(ids)
            assert self.world.forgotten() == self.owes.forgotten
            return

        def done(new: list[str]) -> None:
            assert set(new) == set(ids) - self.owes.forgotten
            self.owes.forgotten |= set(ids)

        self.world.act(lambda: self.world.repo.forget(ids, "test"), done, machine.Unsure(forgotten=set(ids)))

    @stateful.precondition(lambda self: self.world.changed)
    @stateful.rule(max_unused=st.sampled_from((0.0, 0.05, 1.0)))
    def collect(self, max_unused: float) -> None:
        self._collect(max_unused)

    @stateful.precondition(lambda self: self.owes.commits.keys() - self.owes.live() - self.owes.gone)
    @stateful.rule(operations=PICK, kind=st.sampled_from(power.KINDS), seed=SEED)
    def collect_and_cut_power(self, operations: int, kind: str, seed: int) -> None:
        self.world.plan(operations, kind, seed)
        self._collect(0.0)

    def _collect(self, max_unused: float) -> None:
        """Removes nothing that is owed, and all commits that no name and no pin of a dead writer leads to."""
        options = dataclasses.replace(past.FORCE, max_unused=max_unused)
        self.world.changed = False

        def done(_collected: object) -> None:
            assert not self.world.unreadable("refs"), "a collection went by names that cannot be read"
            recorded = set(self.owes.forgotten)
            self.owes.collected()
            self.world.check()
            if not self.world.hurt:
                kept = self.owes.reachable() | self.world.pinned()
                assert set(self.world.open().graph.ids()) == kept
                self.owes.forgotten = recorded & kept
                assert self.world.forgotten() == self.owes.forgotten

        self.world.act(lambda: self.world.repo.collect(options), done, machine.Unsure(collecting=True))

    @stateful.rule()
    def collect_in_use(self) -> None:
        """While somebody else works here a collection does nothing."""
        other = local.LocalBackend(machine.ROOT, self.world.fuse)
        before = self.world.files.tree(str(machine.ROOT))
        with other.lock_shared(), pytest.raises(errors.Busy):
            self.world.repo.collect(past.FORCE)
        assert self.world.files.tree(str(machine.ROOT)) == before

    if _repair is not None:

        @stateful.rule()
        def repair(self) -> None:
            """What could be read before can be read after."""
            assert _repair is not None
            self.world.act(lambda: _repair(self.world.repo), lambda _done: self.world.repaired(), machine.Unsure())

    # --- looking ----------------------------------------------------------------------------------

    @stateful.precondition(lambda self: self.owes.commits)
    @stateful.rule(pick=PICK)
    def restore(self, pick: int) -> None:
        """Any commit, wanted or not: the bytes that were committed; an error only where that is allowed."""
        commit_id = _choose(list(self.owes.commits), pick)
        if commit_id in self.owes.owed():
            self.world.check_commit(commit_id)
            return
        try:
            found = self.world.reader()(commit_id)
        except errors.VimgvcError:
            assert self.world.hurt or commit_id in self.owes.gone, f"{commit_id[:12]} could still be brought back"
        else:
            assert found == self.owes.commits[commit_id].disks

    @stateful.rule()
    def restart(self) -> None:
        self.world.start()

    # --- from outside -----------------------------------------------------------------------------

    @stateful.rule(operations=PICK, kind=st.sampled_from(power.KINDS), seed=SEED)
    def cut_power_soon(self, operations: int, kind: str, seed: int) -> None:
        self.world.plan(operations, kind, seed)

    @stateful.precondition(lambda self: not self.world.damage)
    @stateful.rule(area=st.sampled_from(AREAS), pick=PICK, kind=DAMAGE, seed=SEED, collect=st.booleans())
    def damage(self, area: str, pick: int, kind: str, seed: int, collect: bool) -> None:
        victims = self.world.victims(area)
        # Who removes ref entries rolls history back: the trust store is what tells.
        if not victims or (area, kind) == ("refs", "gone"):
            return
        path = _choose(victims, pick)
        blob = power.content(self.world.files, path)
        assert blob
        self.world.hit(area, path, _damaged(blob, kind, np.random.default_rng(seed)))
        if collect:
            self._collect(0.0)

    @stateful.precondition(lambda self: self.world.damage)
    @stateful.rule()
    def put_back(self) -> None:
        self.world.put_back()


def _choose(items: list[Any], pick: int) -> Any:
    return items[pick % len(items)]


def _damaged(blob: bytes, kind: str, rng: np.random.Generator) -> bytes | None:
    at = int(rng.integers(len(blob)))
    match kind:
        case "flipped":
            return blob[:at] + bytes([blob[at] ^ 1 << int(rng.integers(8))]) + blob[at + 1 :]
        case "short":
            return blob[:at]
        case "empty":
            return b""
    return None


def live(seed: int, runs: int, steps: int, phases: tuple[hypothesis.Phase, ...] = tuple(hypothesis.Phase)) -> None:
    """So many lives of so many steps; raises what the first one raises that fails."""
    kind = hypothesis.seed(seed)(type("History", (History,), {}))
    settings = hypothesis.settings(
        max_examples=runs,
        stateful_step_count=steps,
        derandomize=False,
        database=None,
        deadline=None,
        print_blob=True,
        report_multiple_bugs=False,
        phases=phases,
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    with pytest.MonkeyPatch.context() as patch:
        # Each life begins with the same key and random bytes, so that it can be lived again; it has a watch of its own.
        patch.setattr(aead, "AESGCM", library.AESGCM)
        stateful.run_state_machine_as_test(kind, settings=settings)


@pytest.mark.slow
def test_nothing_that_is_owed_is_lost(seed: int) -> None:
    """Lives of 40 steps, 200 with `--all`: no acknowledged state that a name reaches is lost, no wrong byte is read."""
    live(seed, 200 if depth.ALL else 40, 40)
