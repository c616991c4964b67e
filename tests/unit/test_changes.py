"""What commits changed, by their manifests: against what the bytes say."""

from __future__ import annotations

import numpy as np
import pytest

from tests import repos
from vimgvc import errors
from vimgvc.disk import memory as disk_memory
from vimgvc.model import geometry
from vimgvc.repo import changes, repository, spans

BLOCK, WINDOW = geometry.BLOCK, geometry.WINDOW


def _spans(rng: np.random.Generator, size: int) -> tuple[spans.Spans, np.ndarray]:
    """A random set of parts of `size` places, and which places are in it."""
    places = rng.random(size) < rng.choice([0.05, 0.5, 0.9])
    numbers = np.flatnonzero(places)
    return spans.joined(numbers, numbers + 1), places


def test_spans_are_sets(seed: int) -> None:
    """Cutting, intersecting, subtracting and counting do what they do to sets of places."""
    rng = np.random.default_rng(seed)
    for _ in range(300):
        size = int(rng.integers(1, 60))
        one, in_one = _spans(rng, size)
        two, in_two = _spans(rng, size)
        start, end = sorted(rng.integers(0, size + 1, 2).tolist())
        inside = np.zeros(size, bool)
        inside[start:end] = True
        for found, wanted in (
            (one.intersect(two), in_one & in_two),
            (one.subtract(two), in_one & ~in_two),
            (one.cut(start, end), in_one & inside),
        ):
            told = np.zeros(size, bool)
            for at, length in found.pairs():
                assert not told[at : at + length].any()
                told[at : at + length] = True
            assert (told == wanted).all()
            assert (found.starts[1:] > found.ends[:-1]).all()
            assert found.total == wanted.sum()
        assert one.within(start, end) == in_one[start:end].sum()


class Machine:
    """A repository with one disk that is changed block by block, and what every commit had."""

    def __init__(self, rng: np.random.Generator, size: int) -> None:
        self.rng, self.repo = rng, repos.create()
        self.states: list[bytes] = []
        self.state = bytearray(size)

    def step(self, size: int, count: int) -> None:
        """Write or zero some blocks, then commit."""
        self.state = self.state[:size].ljust(size, b"\0")
        for _ in range(count):
            at = int(self.rng.integers(max(1, size // BLOCK))) * BLOCK
            part = b"" if self.rng.integers(3) == 0 else self.rng.bytes(BLOCK)
            self.state[at : at + BLOCK] = part.ljust(BLOCK, b"\0")
        del self.state[size:]
        repos.commit(self.repo, ("vm", bytes(self.state)), allow_empty=True)
        self.states.append(bytes(self.state))

    def changes(self) -> changes.Changes:
        return changes.Changes(self.repo, repos.Collector())


def _blocks(data: bytes, count: int) -> np.ndarray:
    return np.frombuffer(data.ljust(count * BLOCK, b"\0"), np.uint64).reshape(count, -1)


def _changed(new: bytes, old: bytes) -> np.ndarray:
    """Which blocks of `new` differ from `old`."""
    count = -(-len(new) // BLOCK)
    differs: np.ndarray = (_blocks(new, count) != _blocks(old[: count * BLOCK], count)).any(axis=1)
    return differs


def _named(found: spans.Spans, size: int) -> np.ndarray:
    told = np.zeros(-(-size // BLOCK), bool)
    for start, length in found.pairs():
        assert start % BLOCK == 0
        assert start + length <= size
        told[start // BLOCK : -(-(start + length) // BLOCK)] = True
    return told


_SIZES = (9 * WINDOW + 100, 9 * WINDOW + 100, 5 * WINDOW + 7 * BLOCK, 11 * WINDOW, 11 * WINDOW)


def test_an_image_is_compared_as_a_commit_is(seed: int) -> None:
    """Every block that differs is named, of images that grew and shrank; equal ones have no difference."""
    machine = Machine(np.random.default_rng(seed), _SIZES[0])
    for size in _SIZES:
        machine.step(size, 60)
    found = machine.changes()
    commits = list(machine.repo.history("vm"))[::-1]
    for at, image in enumerate(machine.states):
        reader = disk_memory.MemoryDisk.of(image)
        for base, old in zip(commits, machine.states, strict=True):
            difference = found.with_image(reader, base.disk(), threads=2)
            told, wanted = _named(difference.changed, len(image)), _changed(image, old)
            assert (told >= wanted).all()
            between = _named(found.between(commits[at].disk(), base.disk()).changed, len(image))
            assert (between >= wanted).all()
            if image == old:
                assert difference == changes.Difference(difference.changed, 0)
                assert not len(difference.changed)


class Holes(disk_memory.MemoryDisk):
    """A disk that must not be read where it says to have a hole."""

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        for item in self.extents(offset, len(buffer)):
            assert item.kind.value == "data"
        super().pread_into(offset, buffer)


def test_holes_are_not_read(seed: int) -> None:
    """Of an image with a hole where the commit had data the hole is zeroed bytes, and was not read."""
    rng = np.random.default_rng(seed)
    repo = repos.create()
    content = rng.bytes(2 * WINDOW)
    found = repos.commit(repo, ("vm", content)).commit
    image = Holes(2 * WINDOW)
    image.pwrite(0, memoryview(content[: WINDOW // 2]))
    told = changes.Changes(repo, repos.Collector()).with_image(image, found.disk(), threads=2)
    assert told.changed.ends.tolist() == [2 * WINDOW]
    assert told.zeroed_bytes == WINDOW + WINDOW // 2
    assert WINDOW // 4 < told.changed.starts[0] <= WINDOW // 2


def test_stat_and_touched(seed: int) -> None:
    """What a commit says to have changed is what differs from its parent; ranges outside are not touched."""
    machine = Machine(np.random.default_rng(seed), 6 * WINDOW)
    for _ in range(6):
        machine.step(6 * WINDOW, 3)
    found = machine.changes()
    commits = list(machine.repo.history("vm"))[::-1]
    before = b""
    for commit, state in zip(commits, machine.states, strict=True):
        parents = [machine.repo.graph.load(parent) for parent in commit.parents]
        told = found.between(commit.disk(), parents[0].disk() if parents else None).changed
        [stat] = found.stat(commit, parents[0] if parents else None)
        assert (stat.name, stat.size, stat.changed_bytes, stat.places) == ("vm", len(state), told.total, len(told))
        for start in range(0, 6 * WINDOW, WINDOW // 2):
            end = start + WINDOW // 2
            wanted = not commit.parents or bool(told.within(start, end))
            assert found.touched(commit, parents, "vm", start, end) == wanted
        assert (_named(told, len(state)) >= _changed(state, before)).all()
        before = state
    assert not found.touched(commits[2], [commits[1]], "other", 0, None)
    assert not found.touched(commits[2], [commits[1], commits[2]], "vm", 0, None)


def test_a_size_is_a_change_where_the_disk_ends() -> None:
    """A disk that grew by zeros touches what was beyond its end, and nothing before."""
    repo = repos.create()
    small = repos.commit(repo, ("vm", bytes(WINDOW))).commit
    grown = repos.commit(repo, ("vm", bytes(2 * WINDOW))).commit
    found = changes.Changes(repo, repos.Collector())
    assert found.touched(grown, [small], "vm", WINDOW + 5, WINDOW + 6)
    assert not found.touched(grown, [small], "vm", 0, WINDOW)
    assert not found.touched(grown, [small], "vm", 2 * WINDOW, 3 * WINDOW)


def test_blame_covers_and_names_the_last_writer(seed: int) -> None:
    """Every byte has one owner; the content of each range has been the same since, and was another before."""
    machine = Machine(np.random.default_rng(seed), _SIZES[0])
    for size in (*_SIZES, _SIZES[-1]):
        machine.step(size, 12)
    commits = {commit.id: at for at, commit in enumerate(list(machine.repo.history("vm"))[::-1])}
    last = machine.states[-1]
    owners = machine.changes().blame(machine.repo.history("vm"), "vm")
    position = 0
    for part in owners:
        assert part.start == position
        position += part.length
        end = position
        if part.commit is None:
            assert not any(last[part.start : end])
            continue
        since = machine.states[commits[part.commit.id] :]
        assert all(state[part.start : end].ljust(part.length, b"\0") == last[part.start : end] for state in since)
    assert position == len(last)
    part = owners[len(owners) // 2]
    some = machine.changes().blame(machine.repo.history("vm"), "vm", part.start, part.start + part.length)
    assert some == [part]


def test_blame_forgets_what_a_shorter_disk_cut_off() -> None:
    """Data that a disk lost by shrinking is not what its zeros after growing came from."""
    repo = repos.create()
    repos.commit(repo, ("vm", bytes(WINDOW) + repos.noise(1, WINDOW)))
    repos.commit(repo, ("vm", repos.noise(2, WINDOW)))
    repos.commit(repo, ("vm", repos.noise(2, WINDOW) + bytes(WINDOW)))
    first, second = changes.Changes(repo, repos.Collector()).blame(repo.history("vm"), "vm")
    assert (first.start, first.length, first.commit) == (0, WINDOW, repo.resolve("vm~1"))
    assert (second.start, second.length, second.commit) == (WINDOW, WINDOW, None)


def test_damage_is_no_equality(seed: int) -> None:
    """A manifest whose packs are gone raises; a range of it is not said to be untouched."""
    machine = Machine(np.random.default_rng(seed), 2 * WINDOW)
    machine.step(2 * WINDOW, 9)
    machine.step(2 * WINDOW, 9)
    commit, parent = machine.repo.history("vm")
    found = changes.Changes(machine.repo, repos.Collector())
    _lose_packs(machine.repo)
    for work in (
        lambda: found.stat(commit, parent),
        lambda: found.blame([commit, parent], "vm"),
        lambda: found.touched(commit, [parent], "vm", 0, WINDOW),
        lambda: found.with_image(disk_memory.MemoryDisk.of(machine.states[0]), commit.disk(), 1),
    ):
        with pytest.raises(errors.VimgvcError):
            work()


def _lose_packs(repo: repository.Repository) -> None:
    for item in list(repo.backend.list("packs")):
        repo.backend.delete(item.name)
