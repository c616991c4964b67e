"""What one place lost comes back from another one, whichever of the two is mended; nothing else changes."""

from __future__ import annotations

import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.commands import connect
from vimgvc.commands import repair as command
from vimgvc.remote import healing
from vimgvc.repo import check, repair, repository

Blobs = dict[str, bytes]


def _pair(seed: int) -> tuple[repository.Repository, repository.Repository, list[bytes]]:
    """Two places with the same three commits."""
    near, data, states = repos.create(), places.disk(seed), []
    for number in range(3):
        data = places.changed(data, seed + number) if number else data
        repos.commit(near, ("vm", bytes(data)), ("log", bytes(places.disk(seed + 9, 90_000))))
        states.append(bytes(data))
    far = places.far(near)
    places.push_all(near, far)
    return near, far, states


def _again(repo: repository.Repository) -> repository.Repository:
    """As another process sees it: nothing is remembered."""
    return repository.Repository(repo.backend, repo.config, repo.unlocked, clock=repo.clock)


def _blobs(repo: repository.Repository) -> Blobs:
    assert isinstance(repo.backend, memory.MemoryBackend)
    return repo.backend._blobs


def _mend(target: repository.Repository, source: repository.Repository, *, dry_run: bool = False) -> command.Result:
    """`repair --from`, without opening the other place."""
    target, source = _again(target), _again(source)
    done = target.repair(repair.Options(data=True, dry_run=dry_run))
    problems = (*done.remaining, *done.problems)
    return command.Result(done, healing.heal(source, target, problems, repos.Collector(), dry_run=dry_run))


def _damage(blob: bytes, how: str) -> bytes | None:
    middle = len(blob) // 2
    return {
        "gone": None,
        "empty": b"",
        "cut": blob[:middle],
        "flipped": blob[:middle] + bytes([blob[middle] ^ 16]) + blob[middle + 1 :],
    }[how]


def _replace(blobs: Blobs, name: str, blob: bytes | None) -> None:
    del blobs[name]
    if blob is not None:
        blobs[name] = blob


@pytest.mark.parametrize("how", ["gone", "empty", "cut", "flipped"])
@pytest.mark.parametrize("area", ["packs", "commits"])
@pytest.mark.parametrize("side", ["near", "far"])
def test_n18_what_one_place_lost_comes_back(seed: int, side: str, area: str, how: str) -> None:
    """Every pack, or every commit, of a place lost or damaged: afterwards all of it restores, byte for byte."""
    near, far, states = _pair(seed)
    target, source = (near, far) if side == "near" else (far, near)
    before = dict(_blobs(source))
    for name in [name for name in _blobs(target) if name.startswith(f"{area}/")]:
        _replace(_blobs(target), name, _damage(_blobs(target)[name], how))
    assert _again(target).verify("data").problems
    done = _mend(target, source)
    assert done.healed is not None
    assert done.healed.lost == ()
    assert done.healed.size > 0
    target = _again(target)
    assert target.verify("data").problems == []
    for back, state in enumerate(reversed(states)):
        _, facts = target.resolve_disk(f"vm~{back}:vm")
        data = bytearray(facts.size)
        target.open_disk(facts).reader().pread_into(0, memoryview(data))
        assert bytes(data) == state
    assert _blobs(source) == before


def test_r26_what_neither_place_has_is_told(seed: int) -> None:
    """A pack that both lost stays lost and is told, with everything else back; nothing is deleted at either."""
    near, far, _ = _pair(seed)
    shared = sorted(name for name in _blobs(near) if name.startswith("packs/"))
    newest = max(shared, key=lambda name: _blobs(near)[name])  # any, but the same at both
    for name in shared:
        _replace(_blobs(near), name, None)
    _replace(_blobs(far), newest, None)
    done = _mend(near, far)
    assert done.healed is not None
    assert done.healed.lost
    affected = {problem.object for problem in _again(near).verify("data").problems}
    assert affected == {problem.object for problem in _again(far).verify("data").problems if problem.kind != "pack"}
    assert newest not in _blobs(near)


def test_r25_nothing_is_written_where_nothing_is_lost(seed: int) -> None:
    """Of two whole places neither is touched, whichever is mended with the other."""
    near, far, _ = _pair(seed)
    before = dict(_blobs(near)), dict(_blobs(far))
    assert _mend(near, far).healed == healing.Healed()
    assert _mend(far, near).healed == healing.Healed()
    assert (dict(_blobs(near)), dict(_blobs(far))) == before


def test_a_dry_run_writes_nothing(seed: int) -> None:
    """It tells what would come, no less than what then comes."""
    near, far, _ = _pair(seed)
    for name in [name for name in _blobs(near) if name.startswith("packs/")]:
        _replace(_blobs(near), name, _damage(_blobs(near)[name], "flipped"))
    before = dict(_blobs(near))
    planned = _mend(near, far, dry_run=True).healed
    assert dict(_blobs(near)) == before
    done = _mend(near, far).healed
    assert planned is not None
    assert done is not None
    assert planned.size >= done.size > 0


def test_each_mends_the_other(seed: int) -> None:
    """Two places with damage in different packs are both whole in the end."""
    near, far, _ = _pair(seed)
    packs = sorted(name for name in _blobs(near) if name.startswith("packs/"))
    for at, name in enumerate(packs):
        side = _blobs(near if at % 2 else far)
        _replace(side, name, _damage(side[name], "flipped"))
    for target, source in ((near, far), (far, near)):
        _mend(target, source)
    assert _again(near).verify("data").problems == _again(far).verify("data").problems == []


def test_k9_a_place_that_is_being_collected_is_left_alone(seed: int) -> None:
    """Without locks a collection that has not ended keeps repair away (exit 11)."""
    near, far, _ = _pair(seed)
    _blobs(far)["gc/0000000000000001-begin"] = b"x"
    with pytest.raises(errors.Busy):
        far.repair()
    assert near.repair().actions == ()


def test_the_verb_finds_the_other_place(seed: int, tmp_path: object) -> None:
    """The repository at hand is no other place of itself."""
    near, _, _ = _pair(seed)
    here = connect.Here(near, {"HOME": str(tmp_path)}, "host", repos.Collector())
    with pytest.raises(errors.VimgvcError):
        command.run(here, command.Wish(remote="nowhere"))
    assert command.run(here, command.Wish()).healed is None
    assert near.verify(check.DATA).problems == []
