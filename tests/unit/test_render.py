"""Commits as text and as JSON."""

from __future__ import annotations

import dataclasses
import json
import time

import pytest

from vimgvc.cli import documents, render, text
from vimgvc.model import commit

_PLAIN = text.Style()


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC0")
    time.tzset()


def _disk(name: str = "vm") -> commit.Disk:
    return commit.Disk(
        name=name,
        size=8 << 30,
        manifest="ab" * 32,
        container={"format": "raw"},
        allocated_bytes=3 << 30,
        read_bytes=2 << 30,
        changed_bytes=1 << 30,
        new_bytes=1 << 20,
        stored_bytes=1536,
    )


def _commit(name: str, *parents: str, message: str = "one", disks: tuple[commit.Disk, ...] = ()) -> commit.Commit:
    return commit.Commit(
        id=name * 64,
        parents=tuple(parent * 64 for parent in parents),
        branch="vm",
        message=message,
        author="ann",
        host="tower",
        time="2026-05-01T22:00:07Z",
        disks=disks or (_disk(),),
    )


def _log(*commits: commit.Commit, oneline: bool = False, graphed: bool = False, **tips: list[str]) -> list[str]:
    named = {name * 64: names for name, names in tips.items()}
    return list(render.log(commits, named, _PLAIN, oneline=oneline, graphed=graphed))


def test_log_entry() -> None:
    """An entry has the short identifier, who, when, the message, and a line for each disk."""
    assert _log(_commit("a", message="first line\n\nmore"), a=["main", "vm"]) == [
        "commit aaaaaaaaaaaa (main, vm)",
        "Author: ann on tower",
        "Date:   2026-05-01 22:00:07 +0000",
        "",
        "    first line",
        "",
        "    more",
        "",
        "    disk vm  8.0 GiB, read 2.0 GiB, new 1.0 MiB, stored 1.5 KiB",
    ]


def test_log_entries_are_parted_by_one_line() -> None:
    """An empty line stands between entries, none before the first or after the last."""
    lines = _log(_commit("b", "a"), _commit("a"))
    assert [at for at, line in enumerate(lines) if line.startswith("commit")] == [0, 8]
    assert lines[7] == ""
    assert lines[-1] != ""


def test_merges_name_their_parents() -> None:
    """A commit with two parents says which."""
    assert "Merge:  bbbbbbbbbbbb cccccccccccc" in _log(_commit("a", "b", "c"))


def test_oneline() -> None:
    """One line has the identifier, the branches that end there and the first line of the message."""
    assert _log(_commit("b", "a", message="x\ny"), _commit("a"), oneline=True, b=["vm"]) == [
        "bbbbbbbbbbbb (vm) x [...]",
        "aaaaaaaaaaaa one",
    ]


def test_graph_beside_entries() -> None:
    """The graph runs along the whole entry, and the entry's lines are aligned."""
    lines = _log(_commit("c", "a", "b"), _commit("b", "a"), _commit("a"), graphed=True)
    assert lines[:3] == [
        "*   commit cccccccccccc",
        r"|\  Merge:  aaaaaaaaaaaa bbbbbbbbbbbb",
        "| | Author: ann on tower",
    ]
    assert all(line.startswith(("*", "|", " ")) or not line for line in lines)
    assert _log(_commit("c", "a", "b"), _commit("b", "a"), _commit("a"), oneline=True, graphed=True) == [
        "* cccccccccccc one",
        "|\\",
        "| * bbbbbbbbbbbb one",
        "|/",
        "* aaaaaaaaaaaa one",
    ]


_HOSTILE = "x\x1b[31m\u202e\r"
_SHOWN = "x\\x1b[31m\\u202e\\r"


def test_x11_no_field_of_a_commit_reaches_the_terminal_raw() -> None:
    """Branch, message, author, host, disk and container are escaped wherever a commit is shown."""
    disk = dataclasses.replace(_disk(_HOSTILE), container={"format": _HOSTILE, _HOSTILE: 1})
    item = dataclasses.replace(
        _commit("a", message=_HOSTILE, disks=(disk,)), branch=_HOSTILE, author=_HOSTILE, host=_HOSTILE
    )
    shown = [
        *_log(item, a=[_HOSTILE]),
        *_log(item, oneline=True, graphed=True, a=[_HOSTILE]),
        *render.show(item, [_HOSTILE], _PLAIN),
        *render.made(item, 1.0),
    ]
    assert all(line.isprintable() for line in shown)
    assert sum(line.count(_SHOWN) for line in shown) == 18


def test_show_has_every_fact() -> None:
    """`show` prints full identifiers, exact sizes and every counter of every disk."""
    lines = render.show(_commit("a", "b", disks=(_disk("root"), _disk("data"))), ["vm"], _PLAIN)
    assert lines[:6] == [
        "commit " + "a" * 64,
        "Parent: " + "b" * 64,
        "Branch: vm",
        "Tip of: vm",
        "Author: ann on tower",
        "Date:   2026-05-01 22:00:07 +0000",
    ]
    assert lines[9:18] == [
        "disk root",
        "    size       8.0 GiB (8,589,934,592 bytes)",
        "    container  format raw",
        "    manifest   " + "ab" * 32,
        "    allocated  3.0 GiB (3,221,225,472 bytes)",
        "    read       2.0 GiB (2,147,483,648 bytes)",
        "    changed    1.0 GiB (1,073,741,824 bytes)",
        "    new        1.0 MiB (1,048,576 bytes)",
        "    stored     1.5 KiB (1,536 bytes)",
    ]
    assert "disk data" in lines


def test_made() -> None:
    """What `commit` prints names the branch, the commit, the message and each disk's cost."""
    assert render.made(_commit("a", message="new\nkernel"), 3.21) == [
        "[vm aaaaaaaaaaaa] new [...]",
        "  disk vm  8.0 GiB, read 2.0 GiB, new 1.0 MiB, stored 1.5 KiB",
        "  in 3.2 s",
    ]


def test_json_has_the_exact_text() -> None:
    """A document holds names and messages unchanged, and is ASCII whatever they are."""
    item = _commit("a", "b", message=_HOSTILE)
    encoded = json.dumps(documents.commit_facts(item))
    assert encoded.isascii()
    assert encoded.isprintable()
    decoded = json.loads(encoded)
    assert decoded["message"] == _HOSTILE
    assert decoded["parents"] == ["b" * 64]
    fields = {"id", "branch", "parents", "message", "author", "host", "time", "disks", "attachments"}
    assert set(decoded) == fields


def test_json_of_a_disk_is_all_its_facts() -> None:
    """No field of a disk is left out of a document."""
    assert documents.disk_facts(_disk()) == dataclasses.asdict(_disk())
