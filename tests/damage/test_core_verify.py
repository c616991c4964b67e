"""What verify must see that no flipped bit shows, say once, and survive."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import numpy as np
import pytest

from tests import repos
from tests.damage import damaged
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import aead, sealing, segment
from vimgvc.model import commit as commits
from vimgvc.model import encoding, geometry, manifest
from vimgvc.repo import check, repository
from vimgvc.store import catalog, index_object, objects, writer

KIB, MIB = 1 << 10, 1 << 20
LEVELS = ["quick", "default", "data"]


def _blobs(repo: repository.Repository) -> dict[str, bytes]:
    assert isinstance(repo.backend, memory.MemoryBackend)
    return repo.backend._blobs


def _problems(repo: repository.Repository, level: str) -> list[check.Problem]:
    return repos.reopen(repo).verify(level).problems


def _rewrite_index(repo: repository.Repository, change: Callable[[index_object.Rows], None]) -> None:
    """Replace the only index object by one with other places."""
    [name] = [name for name in _blobs(repo) if name.startswith("index")]
    body = index_object.decode(repo.seals.open(aead.INDEX, _blobs(repo).pop(name), name))
    places = body.places.copy()
    change(places)
    blob = repo.seals.seal(aead.INDEX, index_object.encode(index_object.IndexBody(body.packs, body.ids, places)))
    _blobs(repo)[f"index/{sealing.blob_hash(blob)}"] = blob


def _nowhere(places: index_object.Rows) -> None:
    places["segment"] = 60_000


def _no_slot(places: index_object.Rows) -> None:
    places["slot"] += 5000


def _swapped(places: index_object.Rows) -> None:
    slots = places["slot"].copy()
    places["slot"] = np.where(slots % 2 == 0, slots + 1, slots - 1)


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("change", [_nowhere, _no_slot, _swapped])
def test_r7_index_that_points_elsewhere(change: Callable[[index_object.Rows], None], level: str, seed: int) -> None:
    """Verify at any level reports a disk that an index with wrong places keeps from being restored."""
    repo = repos.create()
    repos.commit(repo, ("vm", repos.noise(seed, 3 * MIB)))
    kinds = {item.number: item.kind for item in repo.objects(repos.Collector()).index.packs()}
    data_packs = [number for number, kind in kinds.items() if kind == segment.DATA]

    def data_only(places: index_object.Rows) -> None:
        chosen = places[np.isin(places["pack"], data_packs)]
        change(chosen)
        places[np.isin(places["pack"], data_packs)] = chosen

    _rewrite_index(repo, data_only)
    problems = _problems(repo, level)
    assert [problem.kind for problem in problems] == ["disk"]
    with pytest.raises(errors.IntegrityError):
        repos.restore(repos.reopen(repo), "vm")


class _Forger:
    """Writes what no writer of ours would, with the key."""

    def __init__(self, repo: repository.Repository) -> None:
        self.repo = repo
        found = catalog.open_catalog(repo.backend, repo.seals, None, repos.Collector())
        self.out = writer.Writer(repo.backend, repo.seals, found.index)

    def put(self, kind: int, data: bytes) -> bytes:
        item_id = self.repo.seals.slot_id(kind, data)
        if self.out.claim([item_id]):
            sealer = self.repo.seals.sealer(level=3, verify=True, capacity=len(data))
            shape, stored = sealer.seal(kind, bytearray(data), len(data), item_id)
            self.out.add(shape, stored, item_id, [len(data)])
        return item_id

    def node(self, node: manifest.Leaf | manifest.Inner | manifest.Root) -> bytes:
        return self.put(segment.TREE, node.encode())

    def commit(self, *disks: tuple[int, bytes]) -> commits.Commit:
        """Of disks with these sizes and top nodes, called disk0, disk1 and so on."""
        roots = [self.node(manifest.Root(size, top)) for size, top in disks]
        self.out.finish()
        facts = tuple(
            commits.Disk(f"disk{number}", size, root.hex(), {"format": "raw"}, 0, 0, 0, 0, 0)
            for number, ((size, _), root) in enumerate(zip(disks, roots, strict=True))
        )
        draft = commits.Commit("", (), "vm", "", "", "", "2027-01-15T08:00:00Z", facts)
        return self.repo.graph.load(self.repo.graph.store(draft.encode()))


@pytest.mark.parametrize("level", LEVELS)
def test_chunk_of_another_length_than_its_run(level: str) -> None:
    """A leaf that gives a chunk another length than it has is reported, as restoring it is refused."""
    repo = repos.create()
    forger = _Forger(repo)
    chunk = forger.put(segment.DATA, repos.noise(1, 4096))
    leaf = forger.node(manifest.Leaf(((2, False),), chunk))
    made = forger.commit((8192, leaf))
    assert [problem.kind for problem in _problems(repo, level)] == ["disk"]
    with pytest.raises(errors.IntegrityError):
        repos.restore(repos.reopen(repo), made.id)


@pytest.mark.parametrize("order", [0, 1])
def test_node_that_fits_one_disk_only(order: int) -> None:
    """A node that is sound on one disk is still checked where another disk gives it another extent."""
    repo = repos.create()
    forger = _Forger(repo)
    chunk = forger.put(segment.DATA, repos.noise(1, 4096))
    leaf = forger.node(manifest.Leaf(((1, False), (1023, True)), chunk))
    sizes = [geometry.WINDOW, 4096]
    made = forger.commit((sizes[order], leaf), (sizes[1 - order], leaf))
    problems = _problems(repo, "quick")
    assert [problem.object for problem in problems] == [f"{made.id[:12]}:disk{1 - order}"]


def test_shared_subtrees_are_checked_once() -> None:
    """A few nodes that stand for 2^41 damaged windows are checked in no time, and reported in bounded space."""
    repo = repos.create()
    forger = _Forger(repo)
    lost = bytes(range(32))
    node = forger.node(manifest.Leaf(((1, False), (1022, True), (1, False)), lost * 2))
    size = (64**7 // 2) * geometry.WINDOW - 1
    for level in range(1, 7):
        node = forger.node(manifest.Inner(level, dict.fromkeys(range(64), node)))
    node = forger.node(manifest.Inner(7, dict.fromkeys(range(31), node)))
    forger.commit((size, node))
    [problem] = _problems(repo, "quick")
    assert len(problem.affected) <= 100
    starts = [item.split(" ")[1].split("+") for item in problem.affected]
    ranges = [(int(start), int(length)) for start, length in starts]
    assert ranges[0] == (0, 4096)
    assert ranges[1] == (geometry.WINDOW - 4096, 8192)
    assert all(one[0] + one[1] < two[0] for one, two in itertools.pairwise(ranges))
    assert sum(ranges[-1]) == 31 * 64**6 * geometry.WINDOW, "the last range reaches to the end of the damage"


def test_one_problem_is_told_once(seed: int) -> None:
    """A lost commit with two children, a damaged ref entry, and a pack without end are one problem each."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"0"))
    base = repos.commit(repo, ("vm", b"1")).commit
    repos.commit(repo, ("vm", b"2"))
    other = repo.graph.store(repo.resolve("vm").encode().replace(b"state of vm", b"the other"))
    assert repo.graph.load(other).parents == (base.id,)
    blobs = damaged.replace(_blobs(repo), f"commits/{base.id}", None)
    opened = damaged.open_repository(blobs, repo.unlocked)
    assert [(item.kind, item.object) for item in opened.verify().problems] == [("commit", base.id)]

    last = max(name for name in _blobs(repo) if name.startswith("refs"))
    opened = damaged.open_repository(damaged.flip(_blobs(repo), last, 50), repo.unlocked)
    assert [(item.kind, item.object) for item in opened.verify().problems] == [("ref", "vm")]

    packs = [item for item in repo.objects(repos.Collector()).index.packs() if item.kind == 1]
    name = f"packs/{packs[0].name[:2]}/{packs[0].name}"
    blob = _blobs(repo)[name]
    opened = damaged.open_repository(
        damaged.replace(_blobs(repo), name, blob[:24] + bytes(len(blob) - 24)), repo.unlocked
    )
    told = [(item.kind, item.object) for item in opened.verify().problems if item.kind == "pack"]
    assert told == [("pack", packs[0].name)]


def test_log_without_a_readable_entry() -> None:
    """A ref log of which nothing can be read is a problem, not an absence."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"0"))
    [name] = [name for name in _blobs(repo) if name.startswith("refs")]
    opened = damaged.open_repository(damaged.flip(_blobs(repo), name, 50), repo.unlocked)
    [problem] = opened.verify().problems
    assert (problem.kind, problem.object) == ("ref", name.split("/")[1][:12])


def test_commit_of_a_later_version_is_reported() -> None:
    """A commit or a codec that only a later version knows is named, and everything else checked all the same."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"0"))
    body = encoding.dumps_canonical({"v": 2})
    later = repo.seals.commit_id(body)
    _blobs(repo)[f"commits/{later}"] = repo.seals.seal(aead.COMMIT, body, bytes.fromhex(later))
    result = repos.reopen(repo).verify()
    assert result.commits == 1
    [problem] = result.problems
    assert (problem.kind, problem.object) == ("commit", later)
    assert "version 2" in problem.detail


def test_codec_of_a_later_version_is_reported() -> None:
    """A segment in a codec that only a later version knows is a problem of its pack and disk; the rest is checked."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"0"))
    forger = _Forger(repo)
    data = repos.noise(1, 4096)
    chunk = repo.seals.chunk_id(data)
    assert forger.out.claim([chunk]) == [0]
    shape = segment.Shape(segment.DATA, 9, 4096, 4096 + segment.OVERHEAD)
    associated = shape.associated(repo.seals.repo, chunk)
    from blake3 import blake3

    out = bytearray(shape.stored_length)
    key = blake3(associated, key=repo.seals.keys.segment).digest()
    aead.seal_into(key, bytes(12), data, associated, memoryview(out)[12:])
    forger.out.add(shape, memoryview(out), chunk, [4096])
    made = forger.commit((4096, forger.node(manifest.Leaf(((1, False),), chunk))))
    problems = repos.reopen(repo).verify("data").problems
    assert [problem.kind for problem in problems] == ["pack", "disk"]
    assert "codec 9" in problems[0].detail
    assert problems[1].object == f"{made.id[:12]}:disk0"


class _BadRefs(memory.MemoryBackend):
    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        if name.startswith("refs"):
            raise errors.BackendError(name, "EIO", "input/output error")
        return super().get(name, offset, length)


def test_unreadable_ref_does_not_end_verify(seed: int) -> None:
    """When a ref cannot be read, verify says so and checks the rest."""
    repo = repos.create()
    repos.commit(repo, ("vm", repos.noise(seed, 5000)))
    place = _BadRefs()
    place._blobs = _blobs(repo)
    result = repository.Repository.open(place, unlocked=repo.unlocked).verify()
    assert [problem.kind for problem in result.problems] == ["ref"]
    assert result.commits == 1


def test_objects_do_not_trust_the_index(seed: int) -> None:
    """A chunk that the index places where there is no slot is not found, without any other error."""
    repo = repos.create()
    data = repos.noise(seed, 4096)
    repos.commit(repo, ("vm", data))
    _rewrite_index(repo, _no_slot)
    found = catalog.open_catalog(repo.backend, repo.seals, None, repos.Collector())
    assert objects.Objects(repo.backend, repo.seals, found.index).chunk(repo.seals.chunk_id(data)) is None


def test_r24_nodes_that_are_not_what_they_say(seed: int) -> None:
    """Manifest nodes sealed under each other's identifiers are refused, so that no disk is put together wrongly."""
    repo = repos.create()
    forger = _Forger(repo)
    leaves = [
        manifest.Leaf(((1, False), (1023, True)), forger.put(segment.DATA, repos.noise(seed + number, 4096))).encode()
        for number in range(2)
    ]
    ids = [repo.seals.node_id(leaf) for leaf in leaves]
    plain = bytearray(leaves[1] + leaves[0])
    sealer = repo.seals.sealer(level=3, verify=True, capacity=len(plain))
    shape, stored = sealer.seal(segment.TREE, plain, len(plain), b"".join(ids))
    forger.out.add(shape, stored, b"".join(ids), [len(leaf) for leaf in leaves])
    top = forger.node(manifest.Inner(1, dict(enumerate(ids))))
    made = forger.commit((2 * geometry.WINDOW, top))
    with pytest.raises(errors.IntegrityError):
        repos.restore(repos.reopen(repo), made.id)
    assert [problem.kind for problem in _problems(repo, "quick")] == ["disk"]


def _slots_exchanged(places: index_object.Rows) -> None:
    places["slot"] = 1 - places["slot"]


@pytest.mark.parametrize("level", LEVELS)
def test_r7_index_that_exchanges_equal_lengths(level: str, seed: int) -> None:
    """An index that gives two chunks of one length each other's place is noticed."""
    repo = repos.create()
    forger = _Forger(repo)
    chunks = [repos.noise(seed + number, 4096) for number in range(2)]
    ids = [repo.seals.chunk_id(chunk) for chunk in chunks]
    plain = bytearray(b"".join(chunks))
    sealer = repo.seals.sealer(level=3, verify=True, capacity=len(plain))
    assert forger.out.claim(ids) == [0, 1]
    shape, stored = sealer.seal(segment.DATA, plain, len(plain), b"".join(ids))
    forger.out.add(shape, stored, b"".join(ids), [4096, 4096])
    made = forger.commit((8192, forger.node(manifest.Leaf(((1, False), (1, False)), b"".join(ids)))))
    assert repos.restore(repos.reopen(repo), made.id) == b"".join(chunks)
    kinds = {item.number: item.kind for item in repo.objects(repos.Collector()).index.packs()}
    [number] = [number for number, kind in kinds.items() if kind == segment.DATA]

    def exchange(places: index_object.Rows) -> None:
        chosen = places[places["pack"] == number]
        _slots_exchanged(chosen)
        places[places["pack"] == number] = chosen

    _rewrite_index(repo, exchange)
    assert [problem.kind for problem in _problems(repo, level)] == ["disk"]
    with pytest.raises(errors.IntegrityError):
        repos.restore(repos.reopen(repo), made.id)


def test_commit_that_gives_a_disk_another_size() -> None:
    """A commit whose disk is not as long as the manifest says is a problem, and the disk is not restored."""
    repo = repos.create()
    body = repos.commit(repo, ("vm", b"x" * 9999)).commit.encode().replace(b'"size":9999', b'"size":9998')
    forged = repo.graph.load(repo.graph.store(body))
    assert [problem.object for problem in _problems(repo, "quick")] == [f"{forged.id[:12]}:vm"]
    with pytest.raises(errors.IntegrityError):
        repos.restore(repos.reopen(repo), forged.id)


def test_r14_branch_that_leads_nowhere() -> None:
    """A branch whose commit is missing is a problem of that branch; the others are usable."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"one"))
    lost = repos.commit(repo, ("other", b"two"), branch="other").commit.id
    opened = damaged.open_repository(damaged.replace(_blobs(repo), f"commits/{lost}", None), repo.unlocked)
    [problem] = opened.verify("quick").problems
    assert (problem.kind, problem.object) == ("ref", "other")
    assert lost[:12] in problem.detail
    assert repos.restore(opened, "vm") == b"one"


def test_history_with_one_base_of_many() -> None:
    """What many branches have in common is shown once, and so is everything before it."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"0"))
    base = repos.commit(repo, ("vm", b"1")).commit
    body = base.encode().replace(base.parents[0].encode(), base.id.encode())
    tips = [repo.graph.store(body.replace(b"state of vm", b"number %d" % number)) for number in range(4)]
    shown = [commit.id for commit in repo.graph.walk(tips)]
    assert sorted(shown[:4]) == sorted(tips)
    assert shown[4:] == [base.id, base.parents[0]]


def test_history_of_a_merge_with_its_own_base() -> None:
    """A merge of a commit and its child shows every commit once, up to the first."""
    repo = repos.create()
    root = repos.commit(repo, ("vm", b"0")).commit
    base = repos.commit(repo, ("vm", b"1")).commit
    child = repos.commit(repo, ("vm", b"2")).commit
    body = child.encode().replace(f'"{base.id}"'.encode(), f'"{base.id}","{child.id}"'.encode())
    merge = repo.graph.store(body)
    assert repo.graph.load(merge).parents == (base.id, child.id)
    assert [commit.id for commit in repo.graph.walk([merge])] == [merge, child.id, base.id, root.id]
