"""Entries of ref logs and the names of branches: formats.md §11."""

from __future__ import annotations

import string

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import mutate
from vimgvc import errors
from vimgvc.model import encoding, reflog

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_HEX32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
_HEX16 = st.binary(min_size=16, max_size=16).map(bytes.hex)
_SEQ = st.integers(1, 2**63 - 1)
_ENTRIES = st.builds(
    reflog.Entry,
    kind=st.sampled_from([reflog.BRANCH, reflog.TAG]),
    name=_TEXT,
    seq=_SEQ,
    commit=st.none() | _HEX32,
    prev=st.none() | _HEX32,
    time=st.just("2026-01-02T03:04:05Z"),
    host=_TEXT,
    seen=st.dictionaries(_HEX16, st.tuples(_SEQ, _HEX32).map(list), max_size=3),
)
_ENTRY = reflog.Entry(
    "branch", "vm", 2, "ab" * 32, "cd" * 32, "2026-01-02T03:04:05Z", "host", {"01" * 16: [3, "ef" * 32]}
)


@hypothesis.given(_ENTRIES)
def test_entries_come_back(entry: reflog.Entry) -> None:
    """Any entry encodes to bytes that decode to it."""
    assert reflog.decode(entry.encode(), "entry") == entry


@pytest.mark.slow
def test_mutants(seed: int) -> None:
    """Ten thousand variations of entries are refused or encode to themselves."""
    decoded, refused = mutate.survey(
        lambda data: reflog.decode(data, "entry").encode(), mutate.mutants(seed, [_ENTRY.encode()], 10_000)
    )
    assert min(decoded, refused) > 100


@pytest.mark.parametrize(
    "seen",
    [
        {"01" * 16: [0, "ef" * 32]},
        {"01" * 16: [True, "ef" * 32]},
        {"01" * 16: [1]},
        {"01" * 16: [1, "ef" * 32, 2]},
        {"01" * 16: {"1": "ef" * 32}},
        {"01" * 16: "1"},
        {"01" * 16: None},
        {"01" * 16: [1, "EF" * 32]},
        {"01" * 16: [1, 1]},
        {"01" * 15: [1, "ef" * 32]},
    ],
)
def test_seen_has_one_form(seen: dict[str, object]) -> None:
    """What was seen of other logs is a sequence number and a hash by blinded name; anything else is refused."""
    value = {**encoding.loads_canonical(_ENTRY.encode(), "entry"), "seen": seen}
    with pytest.raises(errors.FormatError):
        reflog.decode(encoding.dumps_canonical(value), "entry")


def test_other_versions_are_named() -> None:
    """An entry of another version is unsupported: to fall back to an older entry would fork the log."""
    value = {**encoding.loads_canonical(_ENTRY.encode(), "entry"), "v": 2}
    with pytest.raises(errors.Unsupported, match="version 2"):
        reflog.decode(encoding.dumps_canonical(value), "entry")


@pytest.mark.parametrize("name", ["vm", "a", "x86-64_v2.1", "team/web", "ü", "HEAD", "a" * 200, "v1.0"])
def test_names_that_are_allowed(name: str) -> None:
    """Names that git allows, in letters of any script, are allowed."""
    assert reflog.check_name(name) == name


@pytest.mark.parametrize(
    "name",
    [
        *["", "a b", "a..b", "a//b", "/a", "a/", "-a", ".a", "a.", "a.lock", "a~1", "a^", "a:b", "a?", "a*", "a["],
        *["a\\b", "a@{1}", "a\n", "\x1b[2J", "a\x7f", "@", "a" * 201],
    ],
)
def test_names_that_mean_something_else(name: str) -> None:
    """Names that a revision could not be written with, or that a terminal would obey, are a usage error with a hint."""
    with pytest.raises(errors.UsageError) as caught:
        reflog.check_name(name)
    assert caught.value.hint


@hypothesis.given(st.text(min_size=1) | st.text(string.printable, max_size=300))
@hypothesis.example("a.lock.lock")
@hypothesis.example("a" * 255)
@hypothesis.example("..")
@hypothesis.example("-.lock")
@hypothesis.example("a/.lock/b")
def test_every_file_gives_a_name(stem: str) -> None:
    """Whatever a file is called, there is a valid branch name for it."""
    name = reflog.name_from_stem(stem)
    assert reflog.check_name(name) == name


@pytest.mark.parametrize(
    ("stem", "name"),
    [
        ("vm", "vm"),
        ("my disk (1)", "my-disk-1"),
        ("debian-12.7", "debian-12.7"),
        ("Büro", "Büro"),
        ("Bu\u0308ro", "Büro"),
        ("仮想機械 1", "仮想機械-1"),
        ("caf\udce9", "caf"),
        ("\u202evm", "vm"),
        ("ü" * 101, "ü" * 100),
        ("...", "disk"),
        ("a.lock", "a"),
    ],
)
def test_names_look_like_their_files(stem: str, name: str) -> None:
    """What is allowed is kept, the rest becomes one hyphen."""
    assert reflog.name_from_stem(stem) == name
