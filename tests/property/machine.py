"""A repository that everything happens to, beside a dict of what it owes."""

from __future__ import annotations

import contextlib
import functools
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np

from tests import nonces, repos
from tests.crash import commits as crash_commits
from tests.crash import model
from tests.gc import past
from tests.property import power, promises
from vimgvc import errors, monitor
from vimgvc.backends import local
from vimgvc.disk import memory as disk_memory
from vimgvc.model import reflog
from vimgvc.repo import disk, forgetting, keyring, pins, repository
from vimgvc.store import objects

ROOT = crash_commits.ROOT
PIECE = 12_288
#: Damage to these costs no content: everything they say is said elsewhere, or costs names only.
SPARE = ("index", "gc", "refs", "forgotten")
T = TypeVar("T")


@functools.cache
def _template() -> tuple[model.ModelFiles, keyring.Unlocked]:
    """A repository without its 256 empty shards, which cost time to look through and come again as they are needed."""
    made = crash_commits.start()
    unlocked = crash_commits.create(made).unlocked
    made.drop_empty(f"{ROOT}/packs", keep=lambda _shard: False)
    return made, unlocked


@functools.cache
def piece(number: int) -> bytes:
    return repos.noise(number, PIECE) if number else bytes(PIECE)


@dataclass
class Unsure:
    """What may or may not have happened when an action did not end."""

    values: dict[promises.Key, str | None] = field(default_factory=dict)
    commit: tuple[promises.Key, str, promises.Commit] | None = None
    forgotten: set[str] = field(default_factory=set)
    collecting: bool = False

    @property
    def operations(self) -> int:
        """About how many operations that change files the action has."""
        return 50 if self.collecting or self.commit else 9


@dataclass(frozen=True)
class Damage:
    path: str
    before: bytes
    after: bytes | None


class World:
    """The files, the repository in them, and the promises that were made."""

    def __init__(self) -> None:
        disk_files, self._unlocked = _template()
        self.files = disk_files.copy()
        self.owes = promises.Promises()
        self.damage: list[Damage] = []
        #: Something was damaged once; something happened since the last collection.
        self.scarred, self.changed = False, True
        self._scope = contextlib.ExitStack()
        self._scope.enter_context(nonces.watch())
        self._rng = np.random.default_rng(11).bytes
        self._clock = itertools.count(1_900_000_000)
        self._plan: tuple[int, str, int] | None = None
        self._count = 0
        self.start()

    def close(self) -> None:
        self._scope.close()

    def start(self) -> None:
        self.fuse = power.Fuse(self.files)
        self.repo = self.open()

    def open(self) -> repository.Repository:
        backend = local.LocalBackend(ROOT, self.fuse, rng=self._rng)
        return repository.Repository.open(
            backend, unlocked=self._unlocked, clock=lambda: float(next(self._clock)), rng=self._rng
        )

    def plan(self, operations: int, kind: str, seed: int) -> None:
        """The power is cut in the next action, after some number of its operations, or when it has ended."""
        self._plan = operations, kind, seed

    @property
    def hurt(self) -> bool:
        """Whether anything may be refused for what was done to the files."""
        owes = self.owes
        return bool(self.damage or owes.excused or owes.live() & owes.gone)

    # --- actions ----------------------------------------------------------------------------------

    def act(self, do: Callable[[], T], done: Callable[[T], None], unsure: Unsure) -> None:
        plan, self._plan = self._plan, None
        self.fuse.burn(plan[0] % unsure.operations if plan else None)
        self.changed |= not unsure.collecting
        try:
            result = do()
        except power.PowerCut:
            assert plan is not None
            self.cut(plan[1], plan[2], unsure)
            return
        except errors.VimgvcError:
            if not self.hurt:
                raise
            self._settle(unsure)
            self.check()
        else:
            done(result)
        self.fuse.burn(None)
        if plan:
            self.cut(plan[1], plan[2], Unsure())

    def cut(self, kind: str, seed: int, unsure: Unsure) -> None:
        self.files, self.changed = power.after(self.files, kind, seed), True
        self.start()
        if unsure.collecting:
            recorded = set(self.owes.forgotten)
            self.owes.collected()
            unsure.forgotten |= recorded
        self._settle(unsure)
        self.check()

    def _settle(self, unsure: Unsure) -> None:
        """What is there is what was acknowledged, or in part what was about to be."""
        owes, there = self.owes, self.names()
        for key in promises.KEYS:
            found = there.get(key)
            if found == owes.value(key):
                continue
            if unsure.commit and unsure.commit[0] == key and found is not None:
                self._adopt(found, unsure.commit)
            else:
                assert key in unsure.values, f"{key} became {found}"
                assert found == unsure.values[key], f"{key} became {found}"
            owes.put(key, found)
        found_records = self.forgotten()
        assert owes.forgotten <= found_records <= owes.forgotten | unsure.forgotten
        owes.forgotten = found_records

    def _adopt(self, commit_id: str, expected: tuple[promises.Key, str, promises.Commit]) -> None:
        _, message, commit = expected
        found = self.open().graph.load(commit_id)
        assert (found.message, found.parents) == (message, commit.parents)
        self.owes.commits[commit_id] = commit

    def commit(self, branch: str, disks: promises.Disks, *, allow_empty: bool) -> None:
        key = (reflog.BRANCH, branch)
        tip = self.owes.value(key)
        made = promises.Commit(disks, (tip,) if tip else ())
        self._count += 1
        message = f"commit {self._count}"
        request = repository.CommitRequest(branch, message, "tester", "host", allow_empty=allow_empty)

        def done(result: repository.CommitResult) -> None:
            if not self.hurt:
                same = tip is not None and self.owes.commits[tip].disks == disks
                assert result.created == (allow_empty or not same)
            if result.created:
                self.owes.commits[result.commit.id] = made
                self.owes.put(key, result.commit.id)
            assert result.commit.id == self.owes.value(key)
            if self.hurt:  # it may share what is damaged
                self.owes.excused |= self._lost([result.commit.id])
            else:
                self.check_commit(result.commit.id)

        effort = repository.Effort(threads=1)
        self.act(
            lambda: self.repo.commit(past._sources(disks), request, effort), done, Unsure(commit=(key, message, made))
        )

    def repaired(self) -> None:
        """Records that could not be read are set aside: what they said is not said any more."""
        self.start()
        self._look_again()
        self.check()

    # --- looking ----------------------------------------------------------------------------------

    def names(self) -> dict[promises.Key, str]:
        repo = self.open()
        return {(reflog.BRANCH, name): value for name, value in repo.branches().items()} | {
            (reflog.TAG, name): value for name, value in repo.tags().items()
        }

    def forgotten(self) -> set[str]:
        """The commits that have a record, also one that cannot be read."""
        repo = self.open()
        return set(forgetting.Records(repo.backend, repo.seals).ids())

    def pinned(self) -> set[str]:
        """The commits that writers were cut off from naming, and those before them, as far as they are there."""
        repo = self.open()
        known, all_pins = set(repo.graph.ids()), pins.Pins(repo.backend, repo.seals)
        waiting, found = [all_pins.read(pin_id).commit for pin_id in all_pins.ids()], set[str]()
        while waiting:
            item = waiting.pop()
            if item in known - found:
                found.add(item)
                waiting += repo.graph.load(item).parents
        return found

    def reader(self) -> Callable[[str], promises.Disks]:
        """Reads commits by identifier, from the index as it is now."""
        repo = self.open()
        store = repo.objects(monitor.NullMonitor())
        return lambda commit_id: _read(repo, store, commit_id)

    def check_commit(self, commit_id: str) -> None:
        assert self.reader()(commit_id) == self.owes.commits[commit_id].disks, f"wrong bytes in {commit_id[:12]}"

    def check(self, *, everything: bool = False) -> None:
        """All names are where they were, all that is owed restores; of the rest no wrong byte is returned."""
        assert self.names() == self._expected_names()
        read = self.reader()
        owed = self.owes.owed()
        for commit_id in owed:
            assert read(commit_id) == self.owes.commits[commit_id].disks, f"wrong bytes in {commit_id[:12]}"
        for commit_id in sorted(self.owes.commits.keys() - owed) if everything else ():
            with contextlib.suppress(errors.VimgvcError):
                assert read(commit_id) == self.owes.commits[commit_id].disks, f"wrong bytes in {commit_id[:12]}"

    def _expected_names(self) -> dict[promises.Key, str]:
        values = {key: self.owes.value(key) for key in promises.KEYS}
        return {key: value for key, value in values.items() if value}

    # --- damage -----------------------------------------------------------------------------------

    def victims(self, area: str) -> list[str]:
        names = [item.name for item in self.repo.backend.list(area)]
        return sorted((f"{ROOT}/{name}" for name in names), key=lambda path: power.age(self.files, path))

    def hit(self, area: str, path: str, after: bytes | None) -> None:
        before = power.content(self.files, path)
        assert before is not None
        there = [item for item in self.owes.there() if item not in self.owes.excused]
        power.replace(self.files, path, after)
        self.damage.append(Damage(path, before, after))
        self.scarred = self.changed = True
        self.start()
        self._look_again()
        lost = self._lost(there)
        assert not lost or area not in SPARE, f"{len(lost)} commits were lost with one blob of {area}"
        assert area != "commits" or lost <= {path.rpartition("/")[2]}
        self.owes.excused |= lost

    def unreadable(self, area: str) -> bool:
        """Whether a blob of an area is still as it was damaged."""
        below = [item for item in self.damage if item.path.startswith(f"{ROOT}/{area}/")]
        return any(power.content(self.files, item.path) == item.after for item in below)

    def put_back(self) -> None:
        """The bytes that were damaged are as before, where nobody has replaced or removed the blob meanwhile."""
        for item in self.damage:
            if power.content(self.files, item.path) == item.after:
                power.replace(self.files, item.path, item.before)
        self.damage.clear()
        self.changed = True
        self.start()
        self._look_again()
        self.owes.excused = self._lost(self.owes.there())
        self.check()

    def _look_again(self) -> None:
        """Names and records as they are now: whoever can change files can take those."""
        there = self.names()
        for key in promises.KEYS:
            if there.get(key) != self.owes.value(key):
                assert there.get(key) in {None, *self.owes.logs[key]}
                self.owes.put(key, there.get(key))
        self.owes.forgotten = self.forgotten()

    def _lost(self, ids: list[str]) -> set[str]:
        read, lost = self.reader(), set()
        for commit_id in ids:
            try:
                found = read(commit_id)
            except errors.VimgvcError:
                lost.add(commit_id)
            else:
                assert found == self.owes.commits[commit_id].disks, f"wrong bytes in {commit_id[:12]}"
        return lost


def _read(repo: repository.Repository, store: objects.Objects, commit_id: str) -> promises.Disks:
    found = {}
    for item in repo.graph.load(commit_id).stored():
        target = disk_memory.MemoryDisk(item.size)
        disk.StoredDisk(store, item).restore(target, monitor.NullMonitor(), threads=1)
        found[item.name] = target.content()
    return found
