"""Attacks on what is sealed: rows C9 to C11 of the catalogue of faults."""

from __future__ import annotations

import itertools
import pathlib

import pytest
from blake3 import blake3

from tests import nonces, repos
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import aead, keys, segment
from vimgvc.disk import memory as disk_memory
from vimgvc.model import manifest
from vimgvc.monitor import NullMonitor
from vimgvc.pipeline import ingest, tree
from vimgvc.repo import keyring, repository, trust
from vimgvc.store import pack

# --- C9: an object of one type served as another


def test_c9_content_that_equals_metadata(seed: int) -> None:
    """A disk that holds the bytes of commits, nodes, refs and packs is content: it has other identifiers."""
    repo = repos.create()
    first = repos.commit(repo, ("vm", repos.noise(seed, 100_000))).commit
    root = bytes.fromhex(first.disks[0].manifest)
    store = repo.objects(NullMonitor())
    nodes = [store.nodes([root])[0], store.nodes([manifest.decode_root(store.nodes([root])[0]).top])[0]]
    pieces = [first.encode(), *nodes, *(repo.backend.get(name) for name in _all(repo) if name != "config")]
    content = b"".join(piece + bytes(-len(piece) % 4096) for piece in pieces)
    second = repos.commit(repo, ("vm", content)).commit

    assert repos.restore(repo, second.id) == content
    assert repos.restore(repo, first.id) == repos.noise(seed, 100_000)
    padded = [piece + bytes(-len(piece) % 4096) for piece in (first.encode(), *nodes)]
    for body in [first.encode(), *nodes, *padded]:
        names = {repo.seals.chunk_id(body), repo.seals.node_id(body), bytes.fromhex(repo.seals.commit_id(body))}
        assert len(names) == 3


def _all(repo: repository.Repository) -> list[str]:
    return [
        "config",
        *(name for area in ("keys", "packs", "index", "commits", "refs") for name in repos.names(repo, area)),
    ]


def test_c9_chunk_named_as_node(seed: int) -> None:
    """A commit whose manifest names a chunk with the very bytes of a root node is an integrity error."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"payload"))
    root = manifest.Root(4096, bytes(32)).encode() + bytes(4096 - 48)
    made = repos.commit(repo, ("vm", root), branch="forged").commit
    chunk = repo.seals.chunk_id(root)
    store = repo.objects(NullMonitor())
    assert store.chunk(chunk) == root
    with pytest.raises(errors.IntegrityError):
        store.nodes([chunk])
    with pytest.raises(errors.IntegrityError):
        tree.Tree(store, chunk)
    node = bytes.fromhex(made.disks[0].manifest)
    assert store.chunk(node) is None


@pytest.mark.parametrize(("kind", "served"), list(itertools.permutations([b"C", b"I", b"R", b"T"], 2)))
@pytest.mark.parametrize("forged", [False, True])
def test_c9_sealed_object_as_another(kind: bytes, served: bytes, forged: bool) -> None:
    """An object of one type is refused as any other, also with its type byte and its checksum made to fit."""
    seals = repos.create().seals
    blob = bytearray(seals.seal(kind, b"{}"))
    if forged:
        blob[6:7] = served
        blob[-32:] = blake3(bytes(blob[:-32])).digest()
    with pytest.raises(errors.IntegrityError) as caught:
        seals.open(served, bytes(blob), "object")
    assert type(caught.value) is (errors.IntegrityError if forged else errors.FormatError)


def test_c9_blobs_in_each_others_areas(seed: int) -> None:
    """A commit in the place of a ref entry, an index object or a pack, and so on round: refused, never read as such."""
    repo = repos.create()
    made = repos.commit(repo, ("vm", repos.noise(seed, 50_000))).commit
    places = [repos.names(repo, area)[0] for area in ("commits", "refs", "index", "packs")]
    for place, other in itertools.permutations(places, 2):
        changed = repos.replaced(repo, {place: repo.backend.get(other)})
        problems = changed.verify("data").problems
        assert problems, f"{other} in the place of {place}"
        try:
            assert repos.restore(changed, made.id) == repos.noise(seed, 50_000)
        except (errors.IntegrityError, errors.NotFound):
            assert place.partition("/")[0] in ("commits", "packs")


# --- C10: an object served for another name, or an old one for a new one


def test_c10_commits_swapped() -> None:
    """A commit served under the name of another is an integrity error, both ways."""
    repo = repos.create()
    one, two = (repos.commit(repo, ("vm", content)).commit for content in (b"one", b"two"))
    first, second = f"commits/{one.id}", f"commits/{two.id}"
    swapped = repos.replaced(repo, {first: repo.backend.get(second), second: repo.backend.get(first)})
    for made in (one, two):
        with pytest.raises(errors.IntegrityError):
            swapped.graph.load(made.id)


def test_c10_refs_swapped() -> None:
    """An entry served for another branch is not believed: neither branch leads to the commit of the other."""
    repo = repos.create()
    ids = {name: repos.commit(repo, ("vm", name.encode()), branch=name).commit.id for name in ("one", "two")}
    first, second = repos.names(repo, "refs")
    swapped = repos.replaced(repo, {first: repo.backend.get(second), second: repo.backend.get(first)})
    monitor = repos.Collector()
    assert swapped.last_refs(monitor) == {}
    assert len(monitor.problems) == 2
    assert repo.branches() == ids


def test_c10_packs_and_index_objects_swapped(seed: int) -> None:
    """Packs, or index objects, under each other's names give the right bytes or an error, and are reported."""
    repo = repos.create()
    contents = [repos.noise(seed + number, 60_000) for number in range(2)]
    ids = [
        repos.commit(repo, ("vm", content), branch=f"b{number}").commit.id for number, content in enumerate(contents)
    ]
    for area in ("packs", "index"):
        for first, second in itertools.combinations(repos.names(repo, area), 2):
            changes: dict[str, bytes | None] = {first: repo.backend.get(second), second: repo.backend.get(first)}
            swapped = repos.replaced(repo, changes)
            assert swapped.verify("data").problems
            for made, content in zip(ids, contents, strict=True):
                try:
                    assert repos.restore(swapped, made) == content
                except errors.IntegrityError:
                    assert area == "packs"


def test_c10_segments_moved(seed: int) -> None:
    """A segment in the place of another one of the same lengths, table and names left alone, does not open."""
    repo = repos.create()
    made = repos.commit(repo, ("vm", repos.noise(seed, 4096))).commit
    repos.commit(repo, ("vm", repos.noise(seed + 1, 4096)))
    packs = {name: repo.backend.get(name) for name in repos.names(repo, "packs")}
    one, two = (name for name, blob in packs.items() if _shape(repo, blob).kind == segment.DATA)
    length = _shape(repo, packs[one]).stored_length
    assert _shape(repo, packs[one]) == _shape(repo, packs[two])
    moved = packs[one][:24] + packs[two][24 : 24 + length] + packs[one][24 + length :]
    other = packs[two][:24] + packs[one][24 : 24 + length] + packs[two][24 + length :]
    with pytest.raises(errors.IntegrityError):
        repos.restore(repos.replaced(repo, {one: moved, two: other}), made.id)


def _shape(repo: repository.Repository, blob: bytes) -> segment.Shape:
    """That of the first segment of a pack."""
    table, _ = pack.read_table(
        "ab" * 32,
        len(blob),
        lambda offset, length: blob[offset : offset + length],
        lambda data, where: repo.seals.open(aead.TABLE, data, where),
    )
    return table.shape(0)[1]


def _heads(repo: repository.Repository) -> dict[str, trust.Now]:
    there: dict[str, trust.Now] = {blind: (seq, None) for blind, seq in repo.logs.ends().items()}
    return there | {blind: ref.head for blind, ref in repo.last_refs().items()}


def _check(store: trust.TrustStore, repo: repository.Repository) -> None:
    store.check(repo.fingerprint, _heads(repo), lambda blind, seq: repo.logs.read(blind, seq).hash)


@pytest.mark.parametrize("attack", ["removed", "old for new", "old renumbered", "forked"])
def test_c10_old_entry_for_new(attack: str, tmp_path: pathlib.Path) -> None:
    """A client that has seen three entries is told of a log that ends earlier, repeats itself or was written anew."""
    repo = repos.create()
    made = [repos.commit(repo, ("vm", bytes([number]))).commit for number in range(3)]
    store = trust.TrustStore(tmp_path, repo.id, "place")
    store.update(repo.fingerprint, _heads(repo))
    _check(store, repo)
    names = repos.names(repo, "refs")
    blobs = [repo.backend.get(name) for name in names]
    if attack == "removed":
        changed = repos.replaced(repo, {names[2]: None})
        assert changed.resolve("vm").id == made[1].id
        with pytest.raises(errors.Rollback, match="ends with entry 2"):
            _check(store, changed)
    elif attack == "forked":
        changed = repos.replaced(repo, {names[2]: None})
        repos.commit(changed, ("vm", b"another third"))
        with pytest.raises(errors.Rollback, match="another entry 3"):
            _check(store, changed)
    else:
        forged = blobs[1] if attack == "old for new" else _renumbered(repo, names[1], blobs[1])
        changed = repos.replaced(repo, {names[2]: forged})
        blind = names[2].split("/")[1]
        with pytest.raises(errors.IntegrityError):
            changed.logs.read(blind, 3)
        with pytest.raises(errors.IntegrityError):
            list(changed.logs.walk(blind))
        assert changed.verify("quick").problems


def _renumbered(repo: repository.Repository, name: str, blob: bytes) -> bytes:
    """Entry 2 sealed for place 3 by somebody with the key, its content left alone."""
    blind = bytes.fromhex(name.split("/")[1])
    body = repo.seals.open(aead.REF, blob, "entry", blind + bytes([2, 0, 0, 0, 0, 0, 0, 0]))
    return repo.seals.seal(aead.REF, body, blind + bytes([3, 0, 0, 0, 0, 0, 0, 0]))


def test_c10_objects_of_another_repository() -> None:
    """With the same root key, what another repository sealed is refused."""
    one, two = repos.create(), repos.create()
    assert one.id != two.id
    twin = repository.Repository.open(
        two.backend, unlocked=keyring.Unlocked(one.unlocked.root, two.unlocked.config), clock=two.clock
    )
    made = repos.commit(one, ("vm", b"content")).commit
    for area in ("packs", "index", "commits", "refs"):
        for name in repos.names(one, area):
            twin.backend.put(name, [one.backend.get(name)])
    assert twin.last_refs() == {}
    with pytest.raises(errors.IntegrityError, match="authentication"):
        twin.graph.load(made.id)
    assert len(list(twin.objects(NullMonitor()).index.packs())) == 0


# --- C11: keys and nonces, whatever the generator gives


def _stuck(length: int) -> bytes:
    return b"\x55" * length


def _stuck_repository() -> repository.Repository:
    return repository.Repository.create(
        memory.MemoryBackend(), repos.SECRET, profile=keys.CHEAPEST, clock=lambda: 1_800_000_000.0, rng=_stuck
    )


def _clone(repo: repository.Repository) -> repository.Repository:
    """The same repository and the same machine, a moment later, twice."""
    place = memory.MemoryBackend()
    for name in _all(repo):
        place.put(name, [repo.backend.get(name)])
    return repository.Repository.open(place, [repos.SECRET], clock=repo.clock, rng=_stuck)


def _level(repo: repository.Repository, content: bytes, level: int) -> None:
    source = ingest.Source("vm", disk_memory.MemoryDisk.of(content), {"format": "raw"})
    repo.commit([source], repository.CommitRequest("vm", "m", "a", "h"), repository.Effort(level=level))


@pytest.mark.slow
def test_c11_stuck_generator(seed: int) -> None:
    """With a generator that always gives the same, and clones that go apart, no two messages share key and nonce."""
    with nonces.watch() as watch:
        content = repos.text(seed, 600_000)
        repo = _stuck_repository()
        repos.commit(repo, ("vm", content))
        clones = [_clone(repo) for _ in range(3)]
        for number, clone in enumerate(clones):
            changed = content[:300_000] + repos.text(seed + 1 + number // 2, 300_000)
            repos.commit(clone, ("vm", changed))
            repos.commit(clone, ("vm", changed[:-4096]), branch=f"b{number}")
        for level in (1, 3, 9):
            _level(_stuck_repository(), content, level)
        for label in ("a", "b"):
            secret = keys.Secret(keys.KEYFILE, label.encode() * 32)
            repo.keyring.add(repo.unlocked, secret, label=label, created="2026-01-02T03:04:05Z", rng=_stuck)
    assert watch.sealed > 50
    assert watch.repeated > 10, "clones that do the same seal the same again: the watch sees repetitions"


def test_c11_watch_sees_a_reuse() -> None:
    """The watch that the tests of C11 rely on tells two messages under one key and nonce, data or associated data."""
    out = memoryview(bytearray(20))
    for first, second in (((b"data", b""), (b"Data", b"")), ((b"data", b""), (b"data", b"a"))):
        with nonces.watch() as watch:
            aead.seal_into(b"k" * 32, bytes(12), *first, out)
            aead.seal_into(b"k" * 32, bytes(12), *first, out)
            assert (watch.sealed, watch.repeated) == (2, 1)
            with pytest.raises(nonces.NonceReused):
                aead.seal_into(b"k" * 32, bytes(12), *second, out)


def test_c11_working_generator(seed: int) -> None:
    """With a generator that works nothing is sealed twice in the same way, not even the same content."""
    with nonces.watch() as watch:
        for _ in range(2):
            repo = repos.create()
            for number in range(3):
                repos.commit(repo, ("vm", repos.text(seed, 100_000) + bytes([number])), allow_empty=True)
    assert watch.sealed > 20
    assert watch.repeated == 0
