"""What a malicious place can do, each as one function of a `World`."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from blake3 import blake3

from tests import repos
from tests.rigs import malicious, world
from vimgvc.codec import keys
from vimgvc.model import encoding
from vimgvc.repo import repository

Attack = Callable[[world.World], None]
TIB = 1 << 40


# --- rollback, fork, swap


def rolled_back(at: world.World) -> None:
    at.place.show(at.states["vm2"])


def rolled_back_to_nothing(at: world.World) -> None:
    at.place.show({name: blob for name, blob in at.states["vm1"].items() if name.startswith(("keys", "config"))})


def newest_entry_withheld(at: world.World) -> None:
    at.place.withhold(at.entries("vm")[-1])


def branch_withheld(at: world.World) -> None:
    at.place.withhold(*at.entries("vm"))


def tag_withheld(at: world.World) -> None:
    at.place.withhold(*at.entries("v1", "tag"))


def newest_entry_withheld_behind_a_decoy(at: world.World) -> None:
    last = at.entries("vm")[-1]
    at.place.withhold(last)
    at.place.plant(f"{last.rpartition('/')[0]}/{1 << 60:016x}", b"no entry")


def _other_history(at: world.World, commits: int) -> dict[str, bytes]:
    """The place as another client left it, who was shown the state of `vm2` and went on from there."""
    other = malicious.Malicious(url=world.URL)
    for name, blob in at.states["vm2"].items():
        other.good.put(name, [blob])
    repo = repository.Repository.open(other, unlocked=at.root)
    for number in range(commits):
        repos.commit(repo, ("vm", repos.noise(50 + number, 50_000)))
    repos.commit(repo, ("web", repos.noise(40, 50_000)), branch="web")
    return other.snapshot()


def forked(at: world.World) -> None:
    at.place.show(_other_history(at, 1))


def forked_and_ahead(at: world.World) -> None:
    at.place.show(_other_history(at, 4))


def forks_joined(at: world.World) -> None:
    """Of the other history only the entry of `web` is shown, which tells of another `vm`."""
    web = at.entries("web")[-1]
    at.place.answers[web] = _other_history(at, 1)[web]


def another_repository(at: world.World) -> None:
    """Made with the same secret."""
    _another(at, at.client.key.read_bytes())


def another_repository_of_somebody_else(at: world.World) -> None:
    _another(at, b"another secret " * 4)


def _another(at: world.World, secret: bytes) -> None:
    other = malicious.Malicious(url=world.URL)
    repos.commit(repository.Repository.create(other, keys.Secret(keys.KEYFILE, secret)), ("vm", b"other"))
    at.place.show(other.snapshot())


def no_repository(at: world.World) -> None:
    at.place.show({})


def no_encryption(at: world.World) -> None:
    config = at.place.good.get("config").replace(b'"features":[]', b'"features":["plain"]')
    at.place.answers["config"] = config
    at.place.withhold(*slots(at))


# --- key slots


def slots(at: world.World) -> list[str]:
    return sorted(item.name for item in at.place.good.list("keys"))


def slots_withheld(at: world.World) -> None:
    at.place.withhold(*slots(at))


def config_withheld(at: world.World) -> None:
    at.place.withhold("config")


def config_changed(at: world.World) -> None:
    config = json.loads(at.place.good.get("config"))
    at.place.answers["config"] = encoding.dumps_canonical({**config, "average": 65536})


def slots_flooded(at: world.World) -> None:
    """Two hundred slots that others made, all before the good one in every listing."""
    for number in range(200):
        at.place.plant(f"keys/{number:032x}-0", b"{}")


def slot_copy_damaged(at: world.World) -> None:
    at.place.flip(slots(at)[0], 100)


def slot_copies_damaged(at: world.World) -> None:
    for name in slots(at):
        at.place.flip(name, 100)


def slot_of_another_wrap(at: world.World) -> None:
    """A slot that is sound to look at, and of which only the wrapped key was changed."""
    _rewritten(at, lambda slot: slot | {"wrap": "00" * (len(slot["wrap"]) // 2)})


def slot_of_another_commitment(at: world.World) -> None:
    _rewritten(at, lambda slot: slot | {"commitment": "ab" * 32})


def _rewritten(at: world.World, change: Callable[[dict[str, str]], dict[str, str]]) -> None:
    for name in slots(at):
        at.place.answers[name] = resummed(change(json.loads(at.place.good.get(name))))


def resummed(slot: Mapping[str, object]) -> bytes:
    """A slot with the public checksum that it has to have."""
    rest = {name: value for name, value in slot.items() if name != "checksum"}
    return encoding.dumps_canonical({**rest, "checksum": blake3(encoding.dumps_canonical(rest)).hexdigest()})


# --- objects


def commit_withheld(at: world.World) -> None:
    at.place.withhold(f"commits/{at.ids['vm3']}")


def commits_swapped(at: world.World) -> None:
    at.place.swap(f"commits/{at.ids['vm3']}", f"commits/{at.ids['vm2']}")


def commit_damaged(at: world.World) -> None:
    at.place.flip(f"commits/{at.ids['vm3']}", 70)


def packs_withheld(at: world.World) -> None:
    at.place.withhold(*at.only("packs", "vm3", "web"))


def packs_swapped(at: world.World) -> None:
    at.place.swap(at.only("packs", "vm2", "vm1")[0], at.only("packs", "vm3", "web")[0])


def packs_damaged(at: world.World) -> None:
    for name in at.only("packs", "vm3", "web"):
        at.place.flip(name, 200)


def packs_cut(at: world.World) -> None:
    for name in at.only("packs", "vm3", "web"):
        at.place.answers[name] = at.place.good.get(name)[:-100]


def index_withheld(at: world.World) -> None:
    at.place.withhold(*[item.name for item in at.place.good.list("index")])


def index_swapped(at: world.World) -> None:
    names = sorted(item.name for item in at.place.good.list("index"))
    at.place.swap(names[0], names[-1])


def newest_withheld(at: world.World) -> None:
    """All that came with the last commit, but for the entry that leads there."""
    gone = [name for area in ("packs", "index", "commits") for name in at.only(area, "vm3", "web")]
    at.place.withhold(*gone)


def newest_entry_damaged(at: world.World) -> None:
    at.place.flip(at.entries("vm")[-1], 60)


def older_entry_for_newest(at: world.World) -> None:
    names = at.entries("vm")
    at.place.answers[names[-1]] = at.place.good.get(names[-2])


def middle_entry_withheld(at: world.World) -> None:
    at.place.withhold(at.entries("vm")[1])


def middle_entry_swapped(at: world.World) -> None:
    names = at.entries("vm")
    at.place.answers[names[1]] = at.place.good.get(names[0])


# --- sizes and names


def bombs(area: str) -> Attack:
    """Everything in an area is shown as a tebibyte."""

    def attack(at: world.World) -> None:
        for item in list(at.place.good.list(area)):
            at.place.answers[item.name] = malicious.Bomb(TIB)

    attack.__name__ = f"bombs_in_{area}"
    return attack


def config_bomb(at: world.World) -> None:
    at.place.answers["config"] = malicious.Bomb(TIB)


def planted_bombs(at: world.World) -> None:
    """Names nobody gave, a tebibyte each."""
    digits = "0123456789abcdef" * 4
    for name in (f"packs/01/{digits}", f"index/{digits}", f"commits/{digits}", f"keys/{digits[:32]}-0"):
        at.place.answers[name] = malicious.Bomb(TIB)
    at.place.answers[f"refs/{digits[:32]}/{1:016x}"] = malicious.Bomb(TIB)
    at.place.answers[f"gc/{1:016x}-condemn"] = malicious.Bomb(TIB)


def sizes_lie(area: str, size: int) -> Attack:
    """Listings tell another size of everything in an area than there is."""

    def attack(at: world.World) -> None:
        for item in list(at.place.good.list(area)):
            at.place.sizes[item.name] = size

    attack.__name__ = f"sizes_in_{area}_{size}"
    return attack


def names_planted(at: world.World) -> None:
    """What no Backend lets through, and what every one does."""
    for name in ("../../etc/passwd", "refs/../../x", "packs/00/\0", "keys/" + "a" * 65536, "commits/..", "index/"):
        at.place.plant(name)
    digits = "0123456789abcdef" * 4
    for name in (f"packs/01/{digits}", f"index/{digits}", f"commits/{digits}", f"refs/{digits[:32]}/{7:016x}"):
        at.place.plant(name)
