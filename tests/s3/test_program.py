"""The program on a repository in a bucket: what a user types, and what comes back."""

from __future__ import annotations

import contextlib
import io
import json
import pathlib

import numpy as np
import pytest

from tests.servers import s3_places
from vimgvc.cli import main

pytestmark = pytest.mark.timeout(300)  # the first one waits until there is a server

_INIT = ("init", "--key-file", "key", "--remember")


def _run(*arguments: str) -> tuple[int, str]:
    """Exit code and all words."""
    with contextlib.redirect_stdout(io.StringIO()) as words, contextlib.redirect_stderr(words):
        code = main.run(list(arguments))
    return code, words.getvalue()


@pytest.fixture
def here(rgw: s3_places.Server, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> s3_places.Place:
    """A place that is in VIMGVC_REPOSITORY, and a directory to work in."""
    place = rgw.place()
    for name, value in {**rgw.environ, "VIMGVC_REPOSITORY": place.url}.items():
        monkeypatch.setenv(name, value)
    monkeypatch.chdir(tmp_path)
    pathlib.Path("key").touch(mode=0o600)
    pathlib.Path("key").write_bytes(bytes(range(32)))
    return place


def test_commit_and_restore(here: s3_places.Place, seed: int) -> None:
    """States that were committed to a bucket come back byte for byte, verified and forgotten like those of a disk."""
    rng = np.random.default_rng(seed)
    states: list[bytes] = []
    assert _run(*_INIT)[0] == 0
    for number in range(2):
        image = bytearray(states[-1] if states else rng.bytes(2 << 20))
        at = int(rng.integers(0, 1 << 20))
        image[at : at + 100_000] = rng.bytes(100_000)
        states.append(bytes(image))
        pathlib.Path("vm.img").write_bytes(image)
        code, words = _run("commit", "vm.img", "-m", f"state {number}")
        assert code == 0, words
    for back, state in enumerate(reversed(states)):
        assert _run("restore", f"vm~{back}", f"out-{back}")[0] == 0
        assert pathlib.Path(f"out-{back}").read_bytes() == state
    for command in (("log",), ("verify", "--data"), ("stats",), ("status", "vm.img")):
        code, words = _run(*command)
        assert code == 0, words
    assert not any(name.startswith("probe/") for name in here.keys())  # noqa: SIM118 - a method


def test_gc(here: s3_places.Place, seed: int) -> None:
    """What goes from a bucket is what gc said would go, to the byte; the rest is whole."""
    rng = np.random.default_rng(seed)
    states = [rng.bytes(1 << 20) + bytes(number + 1) for number in range(3)]
    assert _run(*_INIT)[0] == 0
    for state in states:
        pathlib.Path("vm.img").write_bytes(state)
        assert _run("commit", "vm.img")[0] == 0
    assert _run("forget", "vm~2", "vm~1", "--force")[0] == 0
    there = here.keys()
    code, words = _run("gc", "--dry-run", "--json")
    assert code == 0, words
    said = json.loads(words)
    assert here.keys() == there
    code, words = _run("gc", "--force", "--json")
    assert code == 0, words
    done = json.loads(words)
    assert {**said, "dry_run": False, "needs_force": done["needs_force"], "seconds": done["seconds"]} == done
    assert done["packs_deleted"] > 0
    left = here.keys()
    assert _counted(there) - _counted(left) == done["freed_bytes"] > 2 << 20
    assert _run("verify", "--data")[0] == 0
    assert _run("restore", "vm", "back.img")[0] == 0
    assert pathlib.Path("back.img").read_bytes() == states[-1]
    assert _run("gc")[1].startswith("nothing to remove")


def test_n24_a_users_day(here: s3_places.Place, rgw: s3_places.Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """N24: who may only add can commit, restore and push; gc changes nothing, and names the right that it lacks."""
    for name, value in s3_places.allow(rgw, "PutObject", "GetObject", "ListBucket").items():
        monkeypatch.setenv(name, value)
    assert _run(*_INIT)[0] == 0
    pathlib.Path("vm.img").write_bytes(b"state" * 100_000)
    assert _run("commit", "vm.img")[0] == 0
    assert _run("restore", "vm", "back.img")[0] == 0
    assert pathlib.Path("back.img").read_bytes() == b"state" * 100_000
    assert _run("remote", "add", "far", rgw.place().url)[0] == 0
    assert _run("push", "far")[0] == 0
    there = here.keys()
    code, words = _run("gc", "--force")
    assert (code, words.count("\n")) == (25, 2), words
    assert "gc lacks the right to delete" in words
    assert "s3:DeleteObject" in words
    assert here.keys() == there


def _counted(keys: dict[str, int]) -> int:
    return sum(size for name, size in keys.items() if not name.startswith(("gc/", "config")))


def test_failures(here: s3_places.Place, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be is told in two lines, with the exit code for it."""
    code, words = _run("log")
    assert (code, words.count("\n")) == (10, 2), words
    assert _run(*_INIT)[0] == 0
    assert _run(*_INIT)[0] == 2
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "not-the-secret")
    code, words = _run("log")
    assert (code, words.count("\n")) == (25, 2), words
    assert "not-the-secret" not in words


@pytest.fixture
def near(here: s3_places.Place, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> s3_places.Place:
    """A place, and a repository of this machine with a commit in VIMGVC_REPOSITORY."""
    monkeypatch.setenv("VIMGVC_REPOSITORY", str(tmp_path / "near"))
    assert _run("init", str(tmp_path / "near"), *_INIT[1:])[0] == 0
    pathlib.Path("vm.img").write_bytes(bytes(1 << 20) + b"guest" * 50_000)
    assert _run("commit", "vm.img")[0] == 0
    return here


def test_a_push_costs_what_changed(near: s3_places.Place, rgw: s3_places.Server, seed: int) -> None:
    """A push of what changed takes at most 12 requests beside one for each pack, by the command, all in all."""
    rng = np.random.default_rng(seed)
    with rgw.through_proxy() as (place, asked):
        assert _run("remote", "add", "away", place.url)[0] == 0
        assert _run("push", "away")[0] == 0
        for _ in range(2):
            pathlib.Path("vm.img").write_bytes(pathlib.Path("vm.img").read_bytes() + rng.bytes(300_000))
            assert _run("commit", "vm.img")[0] == 0
            before = place.keys("packs/")
            asked.forget()
            assert _run("push", "away")[0] == 0
            new = place.keys("packs/").keys() - before.keys()
            assert new
            assert len(asked.seen) <= 12 + len(new), asked.seen


def test_a_remote_that_is_gone(near: s3_places.Place) -> None:
    """A place that was emptied is no repository any more: one line and exit code 10, whatever is accepted."""
    assert _run("remote", "add", "away", near.url)[0] == 0
    assert _run("push", "away")[0] == 0
    near.backend().delete_all(list(near.keys()))
    for command in (("push", "away"), ("fetch", "away"), ("push", "away", "--accept-rollback")):
        code, words = _run(*command)
        assert (code, words.count("\n")) == (10, 2), words
    assert near.keys() == {}
