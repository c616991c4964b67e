"""A write key opens nothing, whatever is asked of the program."""

from __future__ import annotations

import hashlib
import pathlib
import re

import pytest

from vimgvc.cli import app, main

#: Of every verb that needs a key, what it is asked.
_ASKED = [
    *(
        "log",
        "show vm",
        "status vm.img",
        "diff vm~0 vm",
        "blame vm",
        "branch",
        "tag",
        "branch new vm",
        "reflog",
        "head",
    ),
    *("restore vm out.img", "export vm out.img", "verify", "verify --data", "repair", "stats", "forget vm", "gc"),
    *("remote", "remote add away away", "push away", "fetch away", "pull away", "clone . out", "clone --rekey . out"),
    *("bundle create out.bundle", "admit", "admit --discard 00", "key add --new-keyfile out.key", "key remove 00"),
    *("key change", "key remember", "key add --write-only out.key --label out"),
]
#: Verbs that need no key, and those that work with this one.
_OTHERS = {"init", "commit", "convert", "info"}


@pytest.fixture
def place(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> pathlib.Path:
    """The working directory, with a repository, a commit, a key file `key` and a write key `web.key`."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    for name, size in (("key", 64), ("vm.img", 100_000)):
        (tmp_path / name).touch(mode=0o600)
        (tmp_path / name).write_bytes(bytes(range(size % 256)) * (size // (size % 256)))
    for words in ("init", "commit vm.img", "key add --write-only web.key --label web"):
        assert main.run([*words.split(), "--key-file", "key"]) == 0
    return tmp_path


def _state(directory: pathlib.Path) -> dict[str, str]:
    files = [path for path in directory.rglob("*") if path.is_file()]
    return {str(path): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.slow
def test_every_other_verb_is_refused(place: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every verb that needs a key ends with 12 and one clear line, and leaves everything as it was."""
    assert {words.split()[0] for words in _ASKED} | _OTHERS == set(app.VERBS)
    before = _state(place)
    capsys.readouterr()
    for words in _ASKED:
        assert main.run(["--key-file", "web.key", *words.split()]) == 12, words
        told = capsys.readouterr()
        assert told.out == "", words
        assert told.err == (
            "vimgvc: error: this key can only add: it reads nothing\nvimgvc: hint: use it with 'vimgvc commit'\n"
        ), words
        assert _state(place) == before, words


@pytest.mark.slow
def test_secrets_of_a_write_key_are_never_shown(
    place: pathlib.Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not with --verbose, not with tracebacks: neither its secret nor its public key leave the file."""
    monkeypatch.setenv("VIMGVC_TRACEBACK", "1")
    content = (place / "web.key").read_text()
    secret, public = (_member(content, name) for name in ("writer", "public"))

    def run(words: str) -> int:
        return main.run([*words.split(), "--verbose"])

    assert run("--key-file web.key commit vm.img") == 0
    assert run("--key-file web.key log") == 12
    assert run("--key-file key admit") == 0
    assert run("--key-file key key list") == 0
    (place / "web.key").write_text(content.replace('"v":1', '"v":2'))
    assert run("--key-file web.key commit vm.img") == 20
    shown = capsys.readouterr()
    for value in (secret, public):
        assert value not in shown.out + shown.err
        assert not [path for path in _state(place) if value in pathlib.Path(path).read_bytes().decode("latin-1")][1:]


def _member(content: str, name: str) -> str:
    found = re.search(rf'"{name}":"([0-9a-f]{{64}})"', content)
    assert found is not None
    return found[1]
