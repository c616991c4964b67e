"""The corruption matrix: every kind of object, damaged in every way."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import numpy as np
import pytest

from tests import depth, repos
from tests.damage import damaged
from vimgvc import errors

pytestmark = pytest.mark.long

KINDS = ["data", "tree", "index", "commits", "refs", "keys", "config"]
#: Bytes at the start of each kind that are a header; JSON has none, so all of a small one is tried.
HEADER = {"data": 24, "tree": 24, "index": 44, "commits": 44, "refs": 44, "keys": 700, "config": 200}
BITS = 200


@pytest.fixture(scope="module")
def healthy() -> damaged.Healthy:
    return damaged.build()


def _assert_contained(  # noqa: PLR0917
    healthy: damaged.Healthy,
    name: str,
    kind: str,
    outcome: damaged.Outcome,
    what: str,
    wanted: list[str] | None = None,
) -> None:
    """Whatever does not need the damaged blob restores; what has a second source always does."""
    assert outcome.refused is None, f"{what}: {outcome.refused}"
    always = kind in ("index", "refs", "keys", "config")
    for commit_id in wanted or healthy.needs:
        if always or name not in healthy.needs[commit_id]:
            assert commit_id in outcome.restored, f"{what}: {commit_id} does not restore"


def _flip_cases(healthy: damaged.Healthy, kind: str, seed: int) -> Iterator[tuple[str, int, int]]:
    rng = np.random.default_rng(seed)
    names = healthy.of_kind(kind)
    for number, name in enumerate(names):
        share = BITS // len(names) + 1
        header = HEADER[kind] if number == 0 else 0
        for at, mask in damaged.flips(healthy.blobs[name], header, share, rng):
            yield name, at, mask


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
def test_r2_every_flip_is_detected(healthy: damaged.Healthy, kind: str, seed: int) -> None:
    """One changed byte anywhere is reported by verify, nothing returns wrong bytes, the rest restores."""
    for name, at, mask in depth.some(_flip_cases(healthy, kind, seed), 40, seed):
        what = f"{name}: byte {at} ^ {mask:#x}"
        blobs = damaged.flip(healthy.blobs, name, at, mask)
        wanted = _one_of_each(healthy, name)
        outcome = damaged.examine(healthy, blobs, with_key=kind != "keys", wanted=wanted)
        assert outcome.problems, f"{what} was not detected"
        _assert_contained(healthy, name, kind, outcome, what, wanted)


def _one_of_each(healthy: damaged.Healthy, name: str) -> list[str]:
    """A commit that needs the blob and one that does not, where there are such."""
    return list({name in needs: commit_id for commit_id, needs in healthy.needs.items()}.values())


@pytest.mark.parametrize("kind", KINDS)
def test_r3_zeroed_and_torn(healthy: damaged.Healthy, kind: str, seed: int) -> None:
    """4 KiB of zeros anywhere or a torn tail of 512 bytes is detected and contained."""
    rng = np.random.default_rng(seed)
    for name in healthy.of_kind(kind):
        blob = healthy.blobs[name]
        cases = {"torn tail": blob[: max(0, len(blob) - 512)] + bytes(min(512, len(blob)))}
        for at in (0, max(0, len(blob) - 4096), int(rng.integers(len(blob)))):
            cases[f"zeros at {at}"] = blob[:at] + bytes(min(4096, len(blob) - at)) + blob[at + 4096 :]
        for what, changed in cases.items():
            blobs = damaged.replace(healthy.blobs, name, changed)
            outcome = damaged.examine(healthy, blobs)
            assert outcome.problems, f"{name}: {what}"
            _assert_contained(healthy, name, kind, outcome, f"{name}: {what}")


@pytest.mark.parametrize("kind", KINDS)
def test_r4_truncated_and_extended(healthy: damaged.Healthy, kind: str, seed: int) -> None:
    """Truncation to nothing, to any length, or junk at the end is detected even by the quick level."""
    for name, length, junk in depth.some(_length_cases(healthy, kind, seed), 16, seed):
        changed = healthy.blobs[name][:length] + junk
        wanted = _one_of_each(healthy, name)
        outcome = damaged.examine(healthy, damaged.replace(healthy.blobs, name, changed), "quick", wanted=wanted)
        assert outcome.problems, f"{name}: {length} bytes and {len(junk)} more"
        _assert_contained(healthy, name, kind, outcome, name, wanted)


def _length_cases(healthy: damaged.Healthy, kind: str, seed: int) -> Iterator[tuple[str, int, bytes]]:
    rng = np.random.default_rng(seed)
    for name in healthy.of_kind(kind):
        blob = healthy.blobs[name]
        for length in (0, 1, len(blob) // 2, len(blob) - 1, *rng.integers(len(blob), size=5).tolist()):
            yield name, length, b""
        yield name, len(blob), b"\0"
        yield name, len(blob), blob


def test_r4_empty_files_are_named(healthy: damaged.Healthy) -> None:
    """An empty object is called an empty file and a power cut is suggested."""
    for kind in ("commits", "refs"):
        name = healthy.of_kind(kind)[0]
        blobs = damaged.replace(healthy.blobs, name, b"")
        details = [problem.detail for problem in damaged.examine(healthy, blobs).problems]
        assert any("empty file" in detail for detail in details), details


@pytest.mark.parametrize("kind", ["data", "tree"])
def test_r4_truncated_pack_is_healed(healthy: damaged.Healthy, kind: str) -> None:
    """After a pack was truncated, committing the same data stores it again and every commit restores."""
    for name in healthy.of_kind(kind):
        blobs = damaged.replace(healthy.blobs, name, healthy.blobs[name][: len(healthy.blobs[name]) // 2])
        _assert_healed(healthy, blobs)


@pytest.mark.parametrize("kind", ["data", "tree"])
def test_r5_missing_pack_is_healed(healthy: damaged.Healthy, kind: str) -> None:
    """A missing pack is named by verify; committing the same data heals older commits."""
    for name in healthy.of_kind(kind):
        blobs = damaged.replace(healthy.blobs, name, None)
        outcome = damaged.examine(healthy, blobs, "quick")
        assert any(problem.object == name[-64:] for problem in outcome.problems)
        _assert_contained(healthy, name, kind, outcome, name)
        affected = {text[:12] for problem in outcome.problems for text in problem.affected}
        assert affected == {item[:12] for item in healthy.contents if item not in outcome.restored}
        _assert_healed(healthy, blobs)


def _assert_healed(healthy: damaged.Healthy, blobs: dict[str, bytes]) -> None:
    repo = damaged.open_repository(blobs, healthy.unlocked)
    for number, content in enumerate(healthy.contents.values()):
        branch = "other" if len(content) == len(healthy.contents[list(healthy.contents)[-1]]) else "vm"
        repos.commit(repo, (branch, content), branch=f"again-{number}")
    reopened = damaged.open_repository(_blobs(repo), healthy.unlocked)
    for commit_id, content in healthy.contents.items():
        assert repos.restore(reopened, commit_id) == content


def _blobs(repo: object) -> dict[str, bytes]:
    blobs: dict[str, bytes] = repo.backend._blobs  # type: ignore[attr-defined]
    return blobs


@pytest.mark.parametrize("kind", ["data", "index", "commits", "refs", "keys"])
def test_r6_swapped_objects(healthy: damaged.Healthy, kind: str) -> None:
    """Two objects of one kind that trade places are both detected: by hash of the name, or by what is sealed."""
    names = [name for name in healthy.of_kind(kind) if not name.endswith("-1")]
    assert len(names) > 1
    for one, two in itertools.pairwise(names):
        blobs = {**healthy.blobs, one: healthy.blobs[two], two: healthy.blobs[one]}
        outcome = damaged.examine(healthy, blobs)
        assert outcome.problems, (one, two)
        for commit_id, needs in healthy.needs.items():
            if not {one, two} & needs or kind in ("index", "refs", "keys"):
                assert commit_id in outcome.restored


def test_r7_segment_of_another_pack(healthy: damaged.Healthy) -> None:
    """A segment copied over another of a different pack fails authentication; nothing wrong is returned."""
    one, two = healthy.of_kind("data")[:2]
    source, target = healthy.blobs[one], healthy.blobs[two]
    length = min(len(source), len(target)) // 3
    mixed = target[:24] + source[24 : 24 + length] + target[24 + length :]
    outcome = damaged.examine(healthy, {**healthy.blobs, two: mixed}, "data")
    assert any(problem.object == two[-64:] for problem in outcome.problems)
    _assert_contained(healthy, two, "data", outcome, "mixed pack")


@pytest.mark.parametrize("change", ["missing", "flipped", "empty", "junk"])
def test_r8_damaged_index_is_rebuilt(healthy: damaged.Healthy, change: str) -> None:
    """Any one index object lost or damaged, or one from elsewhere added, costs nothing but reading pack tables."""
    for name in healthy.of_kind("index"):
        blob = healthy.blobs[name]
        changed = {"missing": None, "flipped": blob[:-1] + bytes([blob[-1] ^ 1]), "empty": b"", "junk": blob}[change]
        blobs = damaged.replace(healthy.blobs, name, changed)
        if change == "junk":
            blobs["index/" + "ab" * 32] = blob
        outcome = damaged.examine(healthy, blobs)
        assert outcome.restored == set(healthy.contents)
        assert bool(outcome.problems) == (change != "missing")
        repo = damaged.open_repository(blobs, healthy.unlocked)
        assert not repos.commit(repo, ("other", healthy.contents[list(healthy.contents)[-1]]), branch="other").created


def test_r9_all_indexes_lost(healthy: damaged.Healthy) -> None:
    """Without any index object every commit restores, and the next commit writes a complete index again."""
    blobs = {name: blob for name, blob in healthy.blobs.items() if not name.startswith("index/")}
    assert damaged.examine(healthy, blobs).restored == set(healthy.contents)
    repo = damaged.open_repository(blobs, healthy.unlocked)
    result = repos.commit(repo, ("vm", b"new data" * 1000), branch="new")
    assert result.created
    again = _blobs(repo)
    assert any(name.startswith("index/") for name in again)
    opened = damaged.open_repository(again, healthy.unlocked)
    assert opened.stats().objects == repo.stats().objects


def test_r11_lost_manifest_node_costs_its_range(healthy: damaged.Healthy, seed: int) -> None:
    """With one leaf of several unreadable, verify names that leaf's range only, and other disks restore."""
    repo = repos.create()
    data = repos.noise(seed, 12 << 20)
    repos.commit(repo, ("other", b"unrelated"), branch="other")
    before = set(_blobs(repo))
    repos.commit(repo, ("vm", data[: 8 << 20] + bytes(4 << 20)))
    trees = set(_blobs(repo)) - before
    repos.commit(repo, ("vm", data))
    added = [
        name
        for name in set(_blobs(repo)) - before - trees
        if name.startswith("packs") and len(_blobs(repo)[name]) < 20_000
    ]
    assert len(added) == 1
    blobs = damaged.replace(_blobs(repo), added[0], None)
    opened = damaged.open_repository(blobs, repo.unlocked)
    problems = {problem.object: problem for problem in opened.verify("quick").problems if problem.kind == "disk"}
    assert len(problems) == 1
    assert repos.restore(opened, "vm~1") == data[: 8 << 20] + bytes(4 << 20)
    assert repos.restore(opened, "other") == b"unrelated"
    # The data itself is all there: the next commit only writes the manifest again.
    facts = repos.commit(opened, ("vm", data), branch="healed").commit.disk()
    assert facts.new_bytes == 0
    assert repos.restore(opened, "vm") == data


def test_r16_stray_files_are_ignored(healthy: damaged.Healthy) -> None:
    """Names that are not ours, in every area, are neither read nor reported nor removed."""
    strays = ["packs/lost+found", "packs/ab/.nfs0001", "index/Thumbs.db", "commits/x~", "refs/README", "keys/.tmp-1"]
    blobs = {**healthy.blobs, **dict.fromkeys(strays, b"junk")}
    outcome = damaged.examine(healthy, blobs, "data")
    assert outcome.problems == []
    assert outcome.restored == set(healthy.contents)


def test_r24_one_identifier_two_contents() -> None:
    """A slot whose bytes are not what its identifier says is never returned, wherever it claims to be."""
    repo = repos.create()
    data = repos.noise(5, 100_000)
    repos.commit(repo, ("vm", data))
    store = repo.objects(repos.Collector())
    [place] = [item for item in store.index.packs() if item.kind == 1]
    table, plain = store.read_segment(place.number, 0)
    ids, offsets, lengths = table.slots(0)
    with pytest.raises(errors.IntegrityError):
        repo.seals.check_slot(1, plain[: int(lengths[0])][::-1], ids[:32], "chunk")
    assert offsets[0] == 0


def test_healthy_repository_has_no_problems(healthy: damaged.Healthy) -> None:
    """No level of verify reports anything of a repository that nobody touched, and r25: nothing is written."""
    for level in ("quick", "default", "data"):
        place = damaged.backend(healthy.blobs)
        outcome = damaged.examine(healthy, healthy.blobs, level)
        assert outcome.problems == []
        assert outcome.restored == set(healthy.contents)
        assert place._blobs == healthy.blobs


def test_r25_verify_changes_nothing(healthy: damaged.Healthy) -> None:
    """Every level of verify leaves a healthy and a damaged repository exactly as it was."""
    name = healthy.of_kind("data")[0]
    for blobs in (healthy.blobs, damaged.replace(healthy.blobs, name, healthy.blobs[name][:-1])):
        for level in ("quick", "default", "data"):
            repo = damaged.open_repository(blobs, healthy.unlocked)
            repo.verify(level)
            assert _blobs(repo) == blobs


def test_subsets_cover_everything(healthy: damaged.Healthy) -> None:
    """Damage in the data of any pack is found by exactly one of the parts of a subset."""
    for name in healthy.of_kind("data"):
        blobs = damaged.flip(healthy.blobs, name, 100)
        repo = damaged.open_repository(blobs, healthy.unlocked)
        found = [part for part in range(1, 6) if repo.verify("default", (part, 5)).problems]
        assert len(found) == 1


def test_r17_any_sound_copy_serves(seed: int) -> None:
    """A chunk that two packs hold is restored from whichever copy is sound."""
    place = repos.create()
    data = repos.noise(seed, 200_000)
    repos.commit(place, ("vm", data))
    names = [name for name in _blobs(place) if name.startswith("packs")]
    hidden = {name: _blobs(place).pop(name) for name in names}
    repos.commit(place, ("vm", data), branch="copy")
    _blobs(place).update(hidden)
    for name in [name for name in _blobs(place) if name.startswith("packs")]:
        blobs = damaged.flip(_blobs(place), name, 40)
        opened = damaged.open_repository(blobs, place.unlocked)
        assert repos.restore(opened, "vm") == data
