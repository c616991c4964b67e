"""A directory that somebody else can write to: names and sizes that no writer gives (rows N13, N14)."""

from __future__ import annotations

import os
import pathlib
import tracemalloc

import pytest

from tests import repos
from vimgvc.backends import local
from vimgvc.cli import main
from vimgvc.codec import keys
from vimgvc.repo import repository

#: What tracing is allowed to find in memory at once.
MEMORY = 160 << 20
TIB = 1 << 40
CONTENT = b"content" * 50_000


class Place:
    """A repository in a directory, used with the real commands."""

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder, self.path = folder, folder / "disks"
        key = folder / "key"
        key.touch(mode=0o600)
        key.write_bytes(bytes(range(64)))
        made = repository.Repository.create(
            local.LocalBackend.create(self.path), keys.Secret(keys.KEYFILE, key.read_bytes())
        )
        self.id = repos.commit(made, ("vm", CONTENT)).commit.id

    def run(self, *arguments: str) -> int:
        return main.run([*arguments, "--repo", str(self.path), "--key-file", str(self.folder / "key"), "-q"])

    def restored(self, revision: str = "vm") -> tuple[int, bytes | None]:
        target = self.folder / "out.img"
        target.unlink(missing_ok=True)
        code = self.run("restore", revision, str(target))
        return code, target.read_bytes() if target.exists() else None

    def of(self, area: str) -> list[pathlib.Path]:
        return [path for path in (self.path / area).rglob("*") if path.is_file()]


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for variable in ("XDG_STATE_HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "VIMGVC_REPOSITORY"):
        monkeypatch.delenv(variable, raising=False)
    return Place(tmp_path)


def test_n13_names_in_a_directory(place: Place) -> None:
    """Names that are no blob's are never opened, whatever they are: nothing outside is read, and no verb is stopped."""
    secret = place.folder / "secret"
    os.mkfifo(secret)  # whoever opens it waits for ever
    digits = "0123456789abcdef" * 4
    areas = ("keys", "packs", "packs/01", "index", "commits", "refs", "refs/" + digits[:32])
    (place.path / "refs" / digits[:32]).mkdir()
    for area in areas:
        folder = place.path / area
        for name in ("..\\x", "a\nb", "x" * 255, digits + "~", digits.upper(), "\udcff", "-rf", "$(x)", " "):
            (folder / os.fsencode(name).decode("utf-8", "surrogateescape")).symlink_to(secret)
    for name in (f"commits/{digits}", f"index/{digits}", f"packs/01/{digits}", f"keys/{digits[:32]}-0"):
        (place.path / name).symlink_to(secret)
    (place.path / "refs" / digits[:32] / f"{1:016x}").symlink_to(secret)
    for verb in (["log"], ["verify"], ["reflog"], ["stats"], ["gc"]):
        assert place.run(*verb) == 0, verb
    assert place.restored() == (0, CONTENT)
    assert secret.is_fifo()


@pytest.mark.parametrize(
    ("area", "codes", "size"),
    [
        ("config", (0, 20, 0), TIB),
        ("config", (0, 20, 0), 500 << 20),
        ("keys", (20, 20, 20), TIB),
        ("keys", (20, 20, 20), 500 << 20),
        ("refs", (0, 20, 20), TIB),
        ("refs", (0, 20, 20), 500 << 20),
        ("commits", (0, 20, 20), TIB),
        ("commits", (0, 20, 20), 500 << 20),
        ("index", (0, 20, 0), TIB),  # a large repository has some of 500 MiB
        ("packs", (0, 20, 20), TIB),
        ("packs", (0, 20, 20), 500 << 20),
    ],
)
def test_n14_a_blob_of_any_size(place: Place, area: str, codes: tuple[int, ...], size: int) -> None:
    """What is too large to be what its name says is refused by its size, before anything of it is in memory."""
    for path in [place.path / "config"] if area == "config" else place.of(area):
        path.chmod(0o600)
        os.truncate(path, size)
    tracemalloc.start()
    try:
        told = (place.run("log"), place.run("verify", "--quick"), place.restored()[0])
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert told == codes
    assert peak <= MEMORY


def test_n14_what_was_planted_is_not_read(place: Place) -> None:
    """Tebibytes under names that nobody gave: the rest works, small and at once."""
    digits = "0123456789abcdef" * 4
    for name in (f"commits/{digits}", f"index/{digits}", f"packs/01/{digits}", f"keys/{digits[:32]}-0"):
        (place.path / name).touch()
        os.truncate(place.path / name, TIB)
    tracemalloc.start()
    try:
        assert place.run("log") == 0
        assert place.restored() == (0, CONTENT)
        assert place.run("verify", "--quick") == 20
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak <= MEMORY
