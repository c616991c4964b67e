"""specs/cli.md says what is printed."""

from __future__ import annotations

import json
import pathlib
import re
from typing import Any

import pytest

from vimgvc import errors
from vimgvc.cli import main, output

_SPEC = (pathlib.Path(__file__).parents[2] / "specs" / "cli.md").read_text()
_PASSPHRASE = "correct horse"


def _fields(heading: str) -> set[str]:
    """The names in the first column of the table below the line that begins with `heading`."""
    table = _SPEC[_SPEC.index(f"\n{heading}") :].split("\n\n")[1]
    return {name for row in table.splitlines()[2:] for name in re.findall(r"`([a-z_]+)`", row.split("|")[1])}


@pytest.fixture
def ask(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Runs a command with --json in a repository with one commit of `vm.img`, and returns its document."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    (tmp_path / "key").touch(mode=0o600)
    (tmp_path / "key").write_bytes(bytes(64))
    (tmp_path / "pass").write_text(_PASSPHRASE)
    (tmp_path / "vm.img").write_bytes(b"x" * 100_000)

    def run(*arguments: str) -> dict[str, Any]:
        assert main.run([*arguments, "--json"]) == 0
        told = capsys.readouterr()
        assert told.out.isascii()
        return dict(json.loads(told.out))

    return run


def test_documents_have_the_fields_of_the_specification(ask: Any) -> None:
    """The fields of every document are those of its table, none missing and none more."""
    commit = _fields("`commit facts` are:")
    seen = {"init": ask("init", "--key-file", "key", "--remember"), "commit": ask("commit", "vm.img")}
    seen |= {verb: ask(verb) for verb in ("log", "verify", "stats")}
    seen |= {"show": ask("show", "vm"), "restore": ask("restore", "vm", "out.img")}
    assert set(seen["init"]) == _fields("`init`:")
    assert set(seen["commit"]) == commit | _fields("`commit`: commit facts and")
    assert set(seen["log"]) == _fields("`log`:")
    assert set(seen["log"]["commits"][0]) == commit
    assert set(seen["log"]["commits"][0]["disks"][0]) == _fields("`disk facts` are:")
    assert set(seen["show"]) == commit | _fields("`show`: commit facts and")
    assert set(seen["restore"]) == _fields("`restore`:")
    assert set(seen["verify"]) == _fields("`verify`:")
    assert set(seen["stats"]) == _fields("`stats`:")
    for item in seen["commit"]["disks"]:
        assert item == seen["log"]["commits"][0]["disks"][0]


def test_documents_of_key_have_the_fields_of_the_specification(ask: Any) -> None:
    """The same for what `key` prints, and a slot is the same wherever it is shown."""
    ask("init", "--key-file", "key")
    slot = _fields("A slot:")
    listed = ask("key", "list")
    assert set(listed) == _fields("`key list`, `key import`:")
    assert set(listed["slots"][0]) == slot
    added = ask("key", "add", "--key-file", "key", "--new-recovery-code")
    assert set(added) == _fields("`key add`:")
    assert added["slot"] in ask("key", "list")["slots"]
    added = ask("key", "add", "--key-file", "key", "--new-password-file", "pass", "--kdf-memory", "64MiB")
    assert set(added) == _fields("`key add`:") - {"recovery_code"}
    changed = ask("key", "change", added["slot"]["id"], "--key-file", "key", "--new-password-file", "pass")
    assert set(changed) == _fields("`key change`:")
    assert changed["removed"] == added["slot"]["id"]
    assert set(ask("key", "remove", changed["slot"]["id"], "--key-file", "key")) == _fields("`key remove`:")
    assert set(ask("key", "export", "kit")) == _fields("`key export`: with a file")
    assert set(ask("key", "import", "kit")) == _fields("`key list`, `key import`:")
    assert set(ask("key", "remember", "--key-file", "key")) == _fields("`key remember`:")
    assert ask("key", "forget") == {"forgotten": True}
    assert _fields("`key forget`:") == {"forgotten"}


def _classes(base: type[errors.VimgvcError]) -> list[type[errors.VimgvcError]]:
    return [base, *(one for child in base.__subclasses__() for one in _classes(child))]


def test_kinds_of_errors_are_those_of_the_specification() -> None:
    """Every class of error is a kind in the table, with its exit code; private ones are what they are made from."""
    listed = {
        name: int(code)
        for names, code in re.findall(r"^\| (`.+?`) \| (\d+) \|$", _SPEC, re.MULTILINE)
        for name in re.findall(r"`([a-z_]+)`", names)
    }
    assert listed == {output.kind(cls): cls.exit_code for cls in _classes(errors.VimgvcError)}


def test_private_errors_have_a_public_kind() -> None:
    """A class that a module derives for itself does not become part of the interface."""

    class Special(errors.FormatError):
        pass

    assert output.kind(Special) == "format_error"


def test_damage_has_the_fields_of_the_specification(
    ask: Any, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`verify` prints its document, with problems as specified, and the error beside it."""
    ask("init", "--key-file", "key", "--remember")
    ask("commit", "vm.img")
    pack = max((tmp_path / ".vimgvc" / "packs").glob("*/*"), key=lambda path: path.stat().st_size)
    pack.unlink()
    assert main.run(["verify", "--json"]) == 20
    told = capsys.readouterr()
    problems = json.loads(told.out)["problems"]
    assert problems
    assert all(set(item) == _fields("A problem:") for item in problems)
    assert json.loads(told.err.splitlines()[-1])["error"]["exit_code"] == 20
