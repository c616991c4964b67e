"""A repository with a past at a malicious place, and clients that use it with the real commands."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil
from collections.abc import Callable
from typing import Any

import pytest

from tests import repos
from tests.rigs import malicious
from vimgvc import errors
from vimgvc.backends import protocol, registry, skeleton
from vimgvc.cli import main
from vimgvc.codec import keys
from vimgvc.repo import keyring, repository

URL = "memory://place"
_KEPT = ("states", "contents", "heads", "ids")
_PATTERN = re.compile(r"internal error|Traceback")


@dataclasses.dataclass
class Answered:
    """What a command said."""

    code: int
    out: str
    err: str


@dataclasses.dataclass
class Client:
    """A user with a home of his own. `run` is the command line itself, in this process."""

    home: pathlib.Path
    key: pathlib.Path
    run_: Callable[[Client, list[str]], Answered]

    def run(self, *arguments: str) -> Answered:
        answered = self.run_(self, [*arguments, "--repo", URL, "--key-file", str(self.key)])
        assert not _PATTERN.search(answered.err), answered.err
        return answered

    def restored(self, revision: str = "vm", *options: str) -> tuple[int, bytes | None]:
        """Exit code, and what was written; nothing is, unless the command says it was."""
        target = self.home / "out.img"
        target.unlink(missing_ok=True)
        code = self.run("restore", revision, str(target), "-q", *options).code
        return code, target.read_bytes() if target.exists() else None

    def fresh(self, name: str = "fresh") -> Client:
        """Another machine of the same user, which has never seen anything."""
        home = self.home.with_name(name)
        home.mkdir(exist_ok=True)
        return dataclasses.replace(self, home=home)


@dataclasses.dataclass
class World:
    """`place` holds: `vm` with three states, `web` with one made after the second, tag `v1` at the first.

    `states`: all that was kept after each step (`vm1`, `vm2`, `web`, `vm3`, `v1`); `contents`: by revision, what its
    disk holds; `heads`: what `head` printed after each step. `client` has seen it all.
    """

    place: malicious.Malicious
    client: Client
    root: keyring.Unlocked
    places: dict[str, malicious.Malicious]
    states: dict[str, dict[str, bytes]] = dataclasses.field(default_factory=dict)
    contents: dict[str, bytes] = dataclasses.field(default_factory=dict)
    heads: dict[str, str] = dataclasses.field(default_factory=dict)
    ids: dict[str, str] = dataclasses.field(default_factory=dict)

    def commit(self, client: Client, name: str, content: bytes, *options: str) -> Answered:
        image = client.home / f"{name}.img"
        image.write_bytes(content)
        return client.run("commit", str(image), "-q", *options)

    def repo(self) -> repository.Repository:
        """As whoever has the key sees it, without asking what was seen."""
        return repository.Repository.open(self.place.good, unlocked=self.root)

    def entries(self, name: str, kind: str = "branch") -> list[str]:
        """The blobs of a log, in order."""
        blind = self.repo().seals.blind(kind, name)
        return sorted(item.name for item in self.place.good.list(f"refs/{blind}"))

    def only(self, area: str, step: str, before: str) -> list[str]:
        """What a step added to an area."""
        names = self.states[step].keys() - self.states[before].keys()
        return sorted(name for name in names if name.startswith(f"{area}/"))


@pytest.fixture(scope="session")
def past(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The world as it was made, to be copied for each test."""
    made: dict[str, Any] = {}
    return made, tmp_path_factory.mktemp("past")


@pytest.fixture
def world(
    past: tuple[dict[str, Any], pathlib.Path],
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> World:
    """A world of one's own."""
    made, folder = past
    places: dict[str, malicious.Malicious] = {}

    real = registry.open_backend

    def open_backend(location: str, *, create: bool = False, **options: Any) -> protocol.Backend:
        if location != URL:
            return real(location, create=create, **options)
        if not create and not skeleton.is_repository(places[location]):
            raise errors.NoRepository(f"{location}: no repository there")
        return places[location]

    def run(client: Client, arguments: list[str]) -> Answered:
        monkeypatch.setenv("HOME", str(client.home))
        capsys.readouterr()
        code = main.run(arguments)
        told = capsys.readouterr()
        return Answered(code, told.out, told.err)

    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "VIMGVC_REPOSITORY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setattr(registry, "open_backend", open_backend)
    if not made:
        _make(made, folder, places, run)
    shutil.copytree(folder, tmp_path / "homes")
    client = Client(tmp_path / "homes" / "home", tmp_path / "homes" / "key", run)
    copied = World(malicious.Malicious(url=URL), client, made["root"], places)
    for name, blob in made["states"]["v1"].items():
        copied.place.good.put(name, [blob])
    for field in _KEPT:
        setattr(copied, field, dict(made[field]))
    places[URL] = copied.place
    return copied


def _make(
    made: dict[str, Any],
    folder: pathlib.Path,
    places: dict[str, malicious.Malicious],
    run: Callable[[Client, list[str]], Answered],
) -> None:
    key, home = folder / "key", folder / "home"
    key.touch(mode=0o600)
    key.write_bytes(repos.noise(7, 64))
    home.mkdir()
    client = Client(home, key, run)
    place = places[URL] = malicious.Malicious(url=URL)
    repo = repository.Repository.create(place, keys.Secret(keys.KEYFILE, key.read_bytes()), average=16384)
    world = World(place, client, repo.unlocked, places)
    first = repos.noise(1, 300_000)
    second = repos.noise(2, 100_000) + first[100_000:]
    third = second[:200_000] + repos.noise(3, 100_000)
    steps = {"vm1": ("vm", first), "vm2": ("vm", second), "web": ("web", repos.noise(4, 200_000)), "vm3": ("vm", third)}
    for step, (name, content) in steps.items():
        assert world.commit(client, name, content).code == 0
        _note(world, step, client)
        world.contents[step] = content
        world.ids[step] = json.loads(client.run("show", name, "--json").out)["id"]
    assert client.run("tag", "v1", "vm~2", "-q").code == 0
    _note(world, "v1", client)
    made.update({field: getattr(world, field) for field in _KEPT}, root=repo.unlocked)


def _note(world: World, step: str, client: Client) -> None:
    world.heads[step] = client.run("head").out.strip()
    world.states[step] = world.place.snapshot()
