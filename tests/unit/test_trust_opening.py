"""Opening a repository as a user does: with what the user has seen of it before."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator

import pytest

from vimgvc import errors, monitor
from vimgvc.backends import local, protocol
from vimgvc.codec import keys
from vimgvc.commands import access
from vimgvc.repo import repository, trust

SECRET = keys.Secret("keyfile", b"secret" * 8)
SILENT = monitor.NullMonitor()


@dataclasses.dataclass(frozen=True)
class Place:
    path: pathlib.Path
    environment: dict[str, str]

    def open(self, reported: monitor.Monitor = SILENT) -> repository.Repository:
        return access.open_repository(str(self.path), self.environment, SECRET, _no_question, reported)

    def entries(self) -> list[pathlib.Path]:
        """The stored entries of the only ref log, in order."""
        return sorted(path for path in (self.path / "refs").rglob("*") if path.is_file())

    def publish(self) -> None:
        """One more entry in the log of a branch."""
        repo = self.open()
        repo.logs.publish("branch", "vm", None, repo.last_refs(), time="2026-01-02T03:04:05Z", host="here")
        access.note_history(repo, self.environment, SILENT)


def _no_question(_attempt: int) -> keys.Secret:
    pytest.fail("asked for a passphrase")


class Collected(monitor.NullMonitor):
    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, message: str) -> None:
        self.problems.append(message)


@pytest.fixture
def place(tmp_path: pathlib.Path) -> Place:
    path = tmp_path / "repository"
    repository.Repository.create(local.LocalBackend.create(path), SECRET)
    return Place(path, {"HOME": str(tmp_path / "home")})


def damage(path: pathlib.Path) -> None:
    content = bytearray(path.read_bytes())
    content[60] ^= 1
    path.chmod(0o600)
    path.write_bytes(content)


@pytest.mark.parametrize("entries", [1, 2, 3])
def test_a_damaged_last_entry_locks_nobody_out(place: Place, entries: int) -> None:
    """A repository whose last ref entry, be it the only one, is damaged opens, and the damage is reported."""
    for _ in range(entries):
        place.publish()
    damage(place.entries()[-1])
    reported = Collected()
    place.open(reported)
    assert reported.problems


def test_c10_a_removed_last_entry_is_a_rollback(place: Place) -> None:
    """A ref log without the last entry that this user saw is refused with exit 22; with it back it opens."""
    place.publish()
    place.publish()
    last = place.entries()[-1]
    aside = place.path.with_name("aside")
    shutil.move(last, aside)
    with pytest.raises(errors.Rollback) as caught:
        place.open()
    assert caught.value.exit_code == 22
    shutil.move(aside, last)
    place.open()


def test_c10_an_older_copy_in_its_place_is_a_rollback(place: Place, tmp_path: pathlib.Path) -> None:
    """The whole repository as it was before the last commit, at the same place, is refused."""
    place.publish()
    shutil.copytree(place.path, tmp_path / "older")
    place.publish()
    shutil.rmtree(place.path)
    shutil.copytree(tmp_path / "older", place.path)
    with pytest.raises(errors.Rollback):
        place.open()


def test_an_older_copy_elsewhere_opens(place: Place, tmp_path: pathlib.Path) -> None:
    """A backup of the repository at another place is not taken for a rollback."""
    place.publish()
    shutil.copytree(place.path, tmp_path / "backup")
    place.publish()
    Place(tmp_path / "backup", place.environment).open()


def test_c7_another_repository_in_its_place(place: Place) -> None:
    """A repository with the same secret put in the place of another is refused with exit 22."""
    place.open()
    shutil.rmtree(place.path)
    repository.Repository.create(local.LocalBackend.create(place.path), SECRET)
    with pytest.raises(errors.Rollback):
        place.open()


def test_c8_a_repository_without_encryption_is_never_opened(place: Place) -> None:
    """A place that came to say 'no encryption needed', with its key slots or without, is refused by that name."""
    place.open()
    config = place.path / "config"
    config.chmod(0o600)
    config.write_bytes(config.read_bytes().replace(b'"features":[]', b'"features":["plain"]'))
    with pytest.raises(errors.Unsupported, match="plain"):
        place.open()
    for slot in (place.path / "keys").iterdir():
        slot.unlink()
    with pytest.raises(errors.Unsupported, match="plain"):
        place.open()


def test_c6_deleted_slots_are_reopened_from_this_users_copies(place: Place) -> None:
    """After all slots were deleted a user who opened the repository before opens it still, and is told."""
    place.open()
    for slot in (place.path / "keys").iterdir():
        slot.unlink()
    reported = Collected()
    place.open(reported)
    assert any("key import" in problem for problem in reported.problems)
    with pytest.raises(errors.NoKey):
        Place(place.path, {}).open()


def test_what_is_remembered_is_durable_first(tmp_path: pathlib.Path) -> None:
    """An entry is made durable before it is remembered: after a power cut it is either still there or was not noted."""
    order: list[str] = []
    store = trust.TrustStore(tmp_path, "ab" * 16, "place")
    store.update("12" * 8, {"cd" * 16: (1, "ef" * 32)}, settle=lambda: order.append(str((tmp_path / _FILE).exists())))
    assert order == ["False"]
    assert (tmp_path / _FILE).exists()
    store.update("12" * 8, {"cd" * 16: (1, "ef" * 32)}, settle=lambda: order.append("again"))
    assert order == ["False"], "nothing new, nothing to settle"


_FILE = f"{'ab' * 16}.json"


class Overtaken(local.LocalBackend):
    """`change` is given each listing of entries before it is returned."""

    change: Callable[[list[protocol.Item]], list[protocol.Item]]

    def list(self, area: str) -> Iterator[protocol.Item]:
        found = list(super().list(area))
        return iter(self.change(found) if area == "refs" else found)


def _overtaken(place: Place, change: Callable[[list[protocol.Item]], list[protocol.Item]]) -> repository.Repository:
    backend = Overtaken.open(place.path)
    assert isinstance(backend, Overtaken)
    backend.change = lambda found: found
    repo = repository.Repository.open(backend, [SECRET])
    backend.change = change
    return repo


def test_k1_what_another_command_saw_meanwhile_is_not_missed(place: Place) -> None:
    """K1: a branch that is made, and seen, by another command behind a look at the logs is no rollback."""
    made: list[bool] = []

    def change(found: list[protocol.Item]) -> list[protocol.Item]:
        if not made:
            made.append(True)
            place.publish()
        return found

    access.check_history(_overtaken(place, change), place.environment, SILENT, access.Wish())
    assert made
