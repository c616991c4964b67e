"""Key files, and the small private files of the user."""

from __future__ import annotations

import os
import pathlib
import stat
import threading
from collections.abc import Iterator

import pytest

from vimgvc import errors
from vimgvc.repo import keyfile, userfiles

CONTENT = bytes(range(64))


@pytest.fixture(params=[0o022, 0o000], ids=["umask-022", "umask-000"])
def umask(request: pytest.FixtureRequest) -> Iterator[None]:
    before = os.umask(request.param)
    yield
    os.umask(before)


def mode(path: pathlib.Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_c16_new_key_files_are_private(tmp_path: pathlib.Path, umask: None) -> None:
    """A new key file has mode 0600 whatever the umask, and holds the randomness that its secret is made of."""
    path = tmp_path / "key"
    secret = keyfile.make(path, lambda size: CONTENT[:size])
    assert mode(path) == 0o600
    assert path.read_bytes() == secret.value == CONTENT
    assert keyfile.load(path).value == CONTENT


@pytest.mark.parametrize("bits", [0o040, 0o004, 0o020, 0o002, 0o010, 0o001])
def test_c16_key_files_of_others_are_refused(tmp_path: pathlib.Path, bits: int) -> None:
    """A key file with any permission for group or others is refused with advice, and taken when that is wanted."""
    path = tmp_path / "my key"
    path.write_bytes(CONTENT)
    path.chmod(0o600 | bits)
    with pytest.raises(errors.UsageError) as caught:
        keyfile.load(path)
    assert f"chmod 600 '{path}'" in caught.value.hint
    assert "--insecure-perms" in caught.value.hint
    assert keyfile.load(path, insecure_perms=True).value == CONTENT


@pytest.mark.parametrize("bits", [0o600, 0o400, 0o700])
def test_c16_private_key_files_are_taken(tmp_path: pathlib.Path, bits: int) -> None:
    """Any mode without permissions for group and others is fine."""
    path = tmp_path / "key"
    path.write_bytes(CONTENT)
    path.chmod(bits)
    assert keyfile.load(path).value == CONTENT


def test_c16_a_new_key_file_replaces_nothing(tmp_path: pathlib.Path) -> None:
    """An existing file, or a symbolic link even to nowhere, is neither followed nor replaced."""
    taken, link = tmp_path / "taken", tmp_path / "link"
    taken.write_bytes(b"precious")
    link.symlink_to(tmp_path / "nowhere")
    for path in (taken, link):
        with pytest.raises(errors.UsageError):
            keyfile.make(path, lambda size: CONTENT[:size])
    assert taken.read_bytes() == b"precious"
    assert not (tmp_path / "nowhere").exists()


def test_c12_short_randomness_makes_no_key_file(tmp_path: pathlib.Path) -> None:
    """When randomness comes up short there is no file at all."""
    with pytest.raises(errors.VimgvcError, match="random generator"):
        keyfile.make(tmp_path / "key", lambda size: bytes(size - 1))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("size", [0, 31, 1025, 5000])
def test_key_files_of_a_wrong_size_are_refused(tmp_path: pathlib.Path, size: int) -> None:
    """A file that cannot be a key file is a usage error, not a wrong key."""
    path = tmp_path / "key"
    path.write_bytes(bytes(size))
    path.chmod(0o600)
    with pytest.raises(errors.UsageError):
        keyfile.load(path)


def test_key_files_that_are_none(tmp_path: pathlib.Path) -> None:
    """A missing file, a directory and a device are usage errors that name the path."""
    for path in (tmp_path / "missing", tmp_path, pathlib.Path("/dev/zero")):
        with pytest.raises(errors.UsageError) as caught:
            keyfile.load(path, insecure_perms=True)
        assert str(path) in caught.value.message


def test_key_files_may_be_pipes(tmp_path: pathlib.Path) -> None:
    """A pipe serves, as `--key-file <(command)` gives one, also when its content comes in pieces."""
    reader, writer = os.pipe()

    def feed() -> None:
        for byte in CONTENT:
            os.write(writer, bytes([byte]))
        os.close(writer)

    feeder = threading.Thread(target=feed)
    feeder.start()
    try:
        assert keyfile.load(pathlib.Path(f"/dev/fd/{reader}")).value == CONTENT
    finally:
        feeder.join()
        os.close(reader)


def test_user_directories_follow_the_xdg_specification() -> None:
    """XDG variables win when absolute, else the defaults below HOME; without a home there is no directory."""
    home = {"HOME": "/home/me"}
    for function, variable, default in (
        (userfiles.config_directory, "XDG_CONFIG_HOME", "/home/me/.config/vimgvc"),
        (userfiles.state_directory, "XDG_STATE_HOME", "/home/me/.local/state/vimgvc"),
    ):
        assert str(function(home)) == default
        assert str(function(home | {variable: "/x"})) == "/x/vimgvc"
        assert str(function(home | {variable: "relative"})) == default
        assert str(function(home | {variable: ""})) == default
        assert function({}) is None
        assert function({"HOME": "relative"}) is None


def test_replaced_files_are_private_and_whole(tmp_path: pathlib.Path, umask: None) -> None:
    """A replaced file has mode 0600 and its directories 0700; no temporary file stays; a link is replaced itself."""
    path = tmp_path / "a" / "b" / "file"
    for data in (b"one", b"two"):
        userfiles.replace(path, data)
        assert path.read_bytes() == data
        assert mode(path) == 0o600
    assert [mode(each) for each in (path.parent, path.parent.parent)] == [0o700, 0o700]
    other = tmp_path / "other"
    other.write_bytes(b"precious")
    path.unlink()
    path.symlink_to(other)
    userfiles.replace(path, b"three")
    assert other.read_bytes() == b"precious"
    assert list(path.parent.iterdir()) == [path]


def test_a_failed_replacement_leaves_the_old_file(tmp_path: pathlib.Path) -> None:
    """When the new content cannot get its name the old file stays and no temporary one is left."""
    path = tmp_path / "file"
    path.mkdir()
    (path / "inside").write_bytes(b"x")
    with pytest.raises(errors.BackendError):
        userfiles.replace(path, b"new")
    assert list(tmp_path.iterdir()) == [path]


def test_files_of_the_user_are_read_with_limits(tmp_path: pathlib.Path) -> None:
    """Absent is None; larger than the limit, or not a regular file, is an error; a pipe does not block."""
    path = tmp_path / "file"
    assert userfiles.read(path, forbidden=userfiles.READABLE) is None
    path.write_bytes(b"12345")
    path.chmod(0o600)
    assert userfiles.read(path, forbidden=userfiles.READABLE, limit=5) == b"12345"
    with pytest.raises(errors.UsageError):
        userfiles.read(path, forbidden=userfiles.READABLE, limit=4)
    os.mkfifo(tmp_path / "pipe", 0o600)
    with pytest.raises(errors.UsageError):
        userfiles.read(tmp_path / "pipe", forbidden=0)


def test_removing_tells_whether_there_was_something(tmp_path: pathlib.Path) -> None:
    """Removing an absent file, or one in an absent directory, is no error."""
    path = tmp_path / "file"
    path.write_bytes(b"x")
    assert [userfiles.remove(path), userfiles.remove(path), userfiles.remove(path / "below")] == [True, False, False]
