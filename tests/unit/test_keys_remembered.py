"""Root keys kept for the user: in a private file or in the system's keyring."""

from __future__ import annotations

import json
import pathlib
import stat
import sys

import pytest

from tests import programs
from vimgvc import errors, monitor
from vimgvc.codec import keys
from vimgvc.repo import keyring, remember

REPO = "000102030405060708090a0b0c0d0e0f"
ROOT = bytes(range(32))
UNLOCKED = keyring.Unlocked(ROOT, b'{"id":"x"}', "ab" * 16)


class Collected(monitor.NullMonitor):
    def __init__(self) -> None:
        self.problems: list[str] = []

    def problem(self, message: str) -> None:
        self.problems.append(message)


class Ring:
    """A keyring that keeps what it is given, in memory."""

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


class Broken(Ring):
    """A keyring whose desktop does not answer."""

    def get_password(self, service: str, username: str) -> str | None:
        raise RuntimeError("no such interface 'org.freedesktop.secrets'")

    def set_password(self, service: str, username: str, password: str) -> None:
        raise RuntimeError("no such interface 'org.freedesktop.secrets'")


class Forgetful(Ring):
    """A keyring that keeps nothing."""

    def set_password(self, service: str, username: str, password: str) -> None:
        pass


def test_what_is_remembered_in_a_file_comes_back(tmp_path: pathlib.Path) -> None:
    """Root key and configuration come back for their repository only; the file is private and says where it is."""
    memory = remember.KeyMemory(tmp_path / "keys", lambda: None)
    where = memory.remember(REPO, UNLOCKED)
    recalled = memory.recall(REPO)
    assert recalled is not None
    assert (recalled.root, recalled.config, recalled.slot_id) == (ROOT, UNLOCKED.config, None)
    assert memory.recall("f" * 32) is None
    assert stat.S_IMODE(pathlib.Path(where).stat().st_mode) == 0o600
    assert stat.S_IMODE((tmp_path / "keys").stat().st_mode) == 0o700


def test_what_is_remembered_in_a_keyring_comes_back(tmp_path: pathlib.Path) -> None:
    """With a keyring the root key is there and not in any file; without it afterwards nothing is recalled."""
    ring = Ring()
    memory = remember.KeyMemory(tmp_path, lambda: ring)
    assert memory.remember(REPO, UNLOCKED) == remember.SYSTEM
    assert ROOT.hex() not in "".join(path.read_text() for path in tmp_path.iterdir())
    recalled = memory.recall(REPO)
    assert recalled is not None
    assert (recalled.root, recalled.config) == (ROOT, UNLOCKED.config)
    for lost in (lambda: None, Broken, Ring):
        reported = Collected()
        assert remember.KeyMemory(tmp_path, lost).recall(REPO, reported) is None
        assert len(reported.problems) == 1


@pytest.mark.parametrize("ring", [Broken, Forgetful])
def test_a_keyring_that_fails_gives_way_to_a_file(tmp_path: pathlib.Path, ring: type[Ring]) -> None:
    """A keyring that raises, or does not give back what it took, is not used."""
    memory = remember.KeyMemory(tmp_path, ring)
    assert memory.remember(REPO, UNLOCKED) == str(tmp_path / f"{REPO}.json")
    recalled = memory.recall(REPO)
    assert recalled is not None
    assert recalled.root == ROOT


def test_forgetting(tmp_path: pathlib.Path) -> None:
    """What is forgotten is gone from file and keyring; forgetting twice, or with a broken keyring, is no error."""
    ring = Ring()
    memory = remember.KeyMemory(tmp_path, lambda: ring)
    memory.remember(REPO, UNLOCKED)
    assert memory.forget(REPO)
    assert ring.kept == {}
    assert list(tmp_path.iterdir()) == []
    assert not memory.forget(REPO)
    in_file = remember.KeyMemory(tmp_path, Broken)
    in_file.remember(REPO, UNLOCKED)
    assert in_file.forget(REPO)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("bits", [0o640, 0o604, 0o620, 0o666])
def test_c16_remembered_keys_that_others_can_read_are_not_used(tmp_path: pathlib.Path, bits: int) -> None:
    """A file with permissions for others is reported with advice and not used; nobody is locked out."""
    memory = remember.KeyMemory(tmp_path, lambda: None)
    path = pathlib.Path(memory.remember(REPO, UNLOCKED))
    path.chmod(bits)
    reported = Collected()
    assert memory.recall(REPO, reported) is None
    assert "chmod 600" in reported.problems[0]
    path.chmod(0o600)
    assert memory.recall(REPO) is not None


def test_damaged_memories_are_reported_and_not_used(tmp_path: pathlib.Path) -> None:
    """Truncated, foreign or altered files are as good as none: in particular another root key than was remembered."""
    memory = remember.KeyMemory(tmp_path, lambda: None)
    path = pathlib.Path(memory.remember(REPO, UNLOCKED))
    good = json.loads(path.read_bytes())
    other = keys.PurposeKeys(bytes(32)).fingerprint
    spoiled = [good | change for change in ({"root": "00" * 32}, {"fingerprint": other}, {"v": 2}, {"more": 1})]
    spoiled += [good | {"root": "xyz"}, good | {"where": "keyring"}, {"v": 1}]
    contents = [json.dumps(value, sort_keys=True, separators=(",", ":")).encode() for value in spoiled]
    for content in [*contents, b"", b"\xff", path.read_bytes()[:-1]]:
        path.write_bytes(content)
        reported = Collected()
        assert memory.recall(REPO, reported) is None
        assert len(reported.problems) == 1


def test_remembering_again_replaces(tmp_path: pathlib.Path) -> None:
    """The last remembered key counts, also when the keyring came or went in between."""
    ring = Ring()
    for number, use in enumerate([ring, None, ring, None]):
        root = bytes([number]) * 32
        memory = remember.KeyMemory(tmp_path, lambda use=use: use)  # type: ignore[misc]
        memory.remember(REPO, keyring.Unlocked(root, b"{}"))
        recalled = memory.recall(REPO)
        assert recalled is not None
        assert recalled.root == root


def test_users_without_a_home(tmp_path: pathlib.Path) -> None:
    """Without HOME nothing is recalled or forgotten, and remembering is a usage error; with it the file is there."""
    memory = remember.KeyMemory.of_user({})
    assert memory.recall(REPO) is None
    assert not memory.forget(REPO)
    with pytest.raises(errors.UsageError):
        memory.remember(REPO, UNLOCKED)
    where = remember.KeyMemory.of_user({"HOME": str(tmp_path)})
    assert where.recall(REPO) is None


def test_repository_identifiers_are_no_paths(tmp_path: pathlib.Path) -> None:
    """An identifier that is not 32 hexadecimal digits reaches no file."""
    memory = remember.KeyMemory(tmp_path / "keys", lambda: None)
    for bad in ("../../x", "", "A" * 32):
        with pytest.raises(errors.FormatError):
            memory.remember(bad, UNLOCKED)
    assert list(tmp_path.iterdir()) == []


PACKAGE = """
{before}
class Keyring:
    priority = {priority}
    def get_password(self, service, username): return None
    def set_password(self, service, username, password): pass
    def delete_password(self, service, username): pass
def get_keyring():
    return Keyring()
"""


@pytest.mark.parametrize(
    ("before", "priority", "usable"),
    [
        pytest.param("", "5", "True", id="good"),
        pytest.param("", "1", "True", id="recommended"),
        pytest.param("", "0.5", "False", id="plain-file"),
        pytest.param("", "0", "False", id="fail"),
        pytest.param("raise RuntimeError", "5", "False", id="broken-package"),
        pytest.param("", "property(lambda self: 1 / 0)", "False", id="broken-priority"),
    ],
)
def test_only_a_keyring_that_keeps_secrets_is_used(
    tmp_path: pathlib.Path, before: str, priority: str, usable: str
) -> None:
    """Backends below the priority that the package recommends, and a package that fails, are as good as none."""
    (tmp_path / "keyring.py").write_text(PACKAGE.format(before=before, priority=priority))
    code = "from vimgvc.repo import remember; print(remember.system_ring() is not None)"
    assert _python(code, tmp_path).strip() == usable


def test_recalling_from_a_file_imports_no_keyring(tmp_path: pathlib.Path) -> None:
    """Recalling a key from a file works where importing `keyring` would end the program."""
    (tmp_path / "keyring.py").write_text("import os; os._exit(7)")
    where = tmp_path / "memory"
    remember.KeyMemory(where, lambda: None).remember(REPO, UNLOCKED)
    code = (
        "import pathlib, sys; from vimgvc.repo import remember\n"
        f"unlocked = remember.KeyMemory(pathlib.Path({str(where)!r})).recall({REPO!r})\n"
        "print(unlocked.root.hex(), 'keyring' in sys.modules)"
    )
    assert _python(code, tmp_path).split() == [ROOT.hex(), "False"]


def _python(code: str, path: pathlib.Path) -> str:
    """What a new interpreter with `path` before everything else prints."""
    start = f"import sys; sys.path.insert(0, {str(path)!r})\n"
    root = pathlib.Path(__file__).parents[2]
    return programs.run(sys.executable, "-c", start + code, cwd=root)


def test_c20_no_key_in_what_is_reported(tmp_path: pathlib.Path) -> None:
    """Neither problems nor errors of remembering hold the root key."""
    memory = remember.KeyMemory(tmp_path, lambda: None)
    path = pathlib.Path(memory.remember(REPO, UNLOCKED))
    path.write_bytes(path.read_bytes()[:-1])
    reported = Collected()
    memory.recall(REPO, reported)
    assert reported.problems
    assert ROOT.hex() not in "".join(reported.problems) + repr(memory)
