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
    names = ask("branch"), ask("tag", "v1", "vm"), ask("reflog")
    assert set(names[0]) | {"tags"} == _fields("`branch`, `tag`: without arguments")
    assert set(names[0]["branches"][0]) == _fields("A branch or tag:")
    assert set(names[1]) | set(names[1]["changes"][0]) == _fields("and with arguments") | {"name", "before", "commit"}
    assert set(names[2]) == _fields("`reflog`:")
    assert set(names[2]["values"][0]) == _fields("A value:")
    head = ask("head")
    assert set(head) == _fields("`head`:")
    assert set(head["logs"][0]) == _fields("A log:")
    assert set(seen["restore"]) == _fields("`restore`:")
    folder = ask("restore", "vm", "folder/")
    assert set(folder) == _fields("`restore REV DIR/`:")
    assert set(folder["files"][0]) == _fields("A restored file:")
    assert set(ask("restore", "vm", "out.img", "--in-place")) == _fields("`restore --in-place`:")
    status = ask("status", "vm.img")
    assert set(status) == {"images"}
    assert set(status["images"][0]) == _fields("`status`: `images`")
    assert set(ask("export", "vm", "e.img")) == _fields("`export`:")
    assert set(ask("export", "vm", "e.qcow2", "--format", "qcow2")) == _fields("`export`:")
    assert set(ask("export", "--chain", "vm..vm", "chain")) == _fields("`export --chain`:")
    assert set(ask("convert", "vm.img", "c.img")) == _fields("`convert`:")
    assert set(ask("info", "vm.img")) == _fields("`info`:")
    assert set(seen["verify"]) == _fields("`verify`:")
    assert set(seen["stats"]) == _fields("`stats`:")
    share = _fields("A share:")
    of_branch, of_commit = {"branch", "commits"}, {"id", "time", "message"}
    assert {"branches", "commits"} == _fields("`stats --branches`")
    assert set(ask("stats", "--branches")["branches"][0]) == share - of_commit
    assert set(ask("stats", "vm")["commits"][0]) == share - of_branch
    forgotten = ask("forget", "--keep-last", "1", "--dry-run")
    assert set(forgotten) == _fields("`forget`: after")
    assert set(forgotten["branches"][0]) == _fields("A branch of `forget`:") - {"id", "time", "reasons"}
    assert set(ask("gc")) == _fields("`gc`: after")
    for item in seen["commit"]["disks"]:
        assert item == seen["log"]["commits"][0]["disks"][0]


def test_documents_of_copies_have_the_fields_of_the_specification(ask: Any) -> None:
    """The same for what goes to other places and comes from there."""
    ask("init", "--key-file", "key", "--remember")
    ask("commit", "vm.img")
    remote = {"name", "url"}
    assert _fields("`remote`, `remote list`: `remotes`, a list of") == remote
    assert set(ask("remote", "add", "origin", "far")) == remote | _fields("`remote add`: the same and")
    assert set(ask("remote")["remotes"][0]) == remote
    pushed = ask("push")
    assert set(pushed) == _fields("`push`:")
    assert set(pushed["changes"][0]) == _fields("A change of a copy:")
    copied = _fields("`push`:") | _fields("`fetch`, `pull`: the same")
    assert set(ask("fetch")) == set(ask("pull")) == copied
    cloned = ask("clone", "far", "clone")
    beside = {"remote", "url", "changes", "commits", "packs", "bytes", "pack_bytes", "seconds"}
    assert set(cloned) == beside | _fields("`clone`: of these fields")
    anew = ask("clone", "--rekey", "far", "new", "--new-password-file", "pass", "--kdf-memory", "64MiB")
    assert set(anew) == _fields("`clone --rekey`:")
    bundled = ask("bundle", "create", "vm.bundle")
    beside = {"changes", "commits", "packs", "bytes", "pack_bytes", "seconds"}
    assert set(bundled) == beside | _fields("`bundle create`: the fields")
    shown = ask("remote", "show", "origin")
    assert set(shown) == remote | {"branches"}
    assert _fields("`remote show`: the same and") == {"branches"}
    assert set(shown["branches"][0]) == {"name", "commit", "time"}
    assert set(ask("remote", "rename", "origin", "other")) == remote
    assert set(ask("remote", "remove", "other")) == remote | {"branches"}


def test_documents_of_deliveries_have_the_fields_of_the_specification(ask: Any) -> None:
    """The same for a write key, what is delivered with it, and what is admitted."""
    ask("init", "--key-file", "key", "--remember")
    assert set(ask("key", "add", "--write-only", "web.key", "--label", "web")) == _fields("`key add --write-only`:")
    sent = ask("commit", "vm.img", "--key-file", "web.key")
    ordinary = _fields("`commit facts` are:") | _fields("`commit`: commit facts and")
    assert set(sent) == ordinary | {"delivery"}
    told = ask("admit")
    assert set(told) == _fields("`admit`:")
    assert [set(one) for one in told["deliveries"]] == [_fields("A delivery:")]
    gone = ask("commit", "vm.img", "--key-file", "web.key")["delivery"]
    assert set(ask("admit", "--discard", gone)) == {"discarded", "bytes"}


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
