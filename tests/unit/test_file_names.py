"""File names made of names that somebody else chose (row X10)."""

from __future__ import annotations

import itertools
import os
import pathlib
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vimgvc.commands import file_names

_HOSTILE = [
    "", ".", "..", "../x", "/etc/passwd", "a/b", "a\\b", "a\0b", "-rf", ".hidden", " x", "x.", "x ", "a\nb", "\x1b[2J",
    "\u202egnp.exe", "\ud800", "CON:", "n" * 255, "n" * 300 + ".xml", "é" * 200, "." * 300, "x." + "e" * 300,
    ".vimgvc", "a~12345678.img",
]  # fmt: skip


def _check(wanted: list[tuple[str, str]]) -> list[str]:
    found = file_names.unique(wanted)
    assert len(found) == len(wanted)
    for name in found:
        assert name.isprintable()
        assert pathlib.PurePath(name).name == name
        assert name[0] not in ".- "
        assert 0 < len(os.fsencode(name)) <= 255
        assert not set(name) & set('/\\:*?"<>|\0')
    alike = [unicodedata.normalize("NFKC", name).casefold() for name in found]
    assert len(set(alike)) == len(alike)
    return found


@pytest.mark.parametrize("suffix", ["", "img"])
def test_x10_hostile_names_become_plain_files(suffix: str) -> None:
    """Row X10: whatever a name is, alone or with all others, its file is one ordinary name in the directory."""
    for name in _HOSTILE:
        _check([(name, suffix)])
    _check([(name, suffix) for name in _HOSTILE])
    _check([(name, suffix) for name in [*_HOSTILE, *_HOSTILE]])


def test_x10_names_that_differ_by_case_are_told_apart() -> None:
    """Row X10: the first keeps its name; what a file system may take for the same gets digits, always the same."""
    found = _check([("Web", "img"), ("web", "img"), ("WEB", "img"), ("strasse", ""), ("stra\u00dfe", "")])
    assert found[0] == "Web.img"
    assert found[3] == "strasse"
    assert found[1].startswith("web~")
    assert found[1].endswith(".img")
    assert found == _check([("Web", "img"), ("web", "img"), ("WEB", "img"), ("strasse", ""), ("stra\u00dfe", "")])


def test_good_names_stay() -> None:
    """Ordinary names are the files' names."""
    names = [("root", "img"), ("data-1", "img"), ("web.xml", ""), ("nvram.fd", ""), ("Ünïcode 名", "")]
    assert _check(names) == ["root.img", "data-1.img", "web.xml", "nvram.fd", "Ünïcode 名"]


def test_x10_a_name_made_like_the_answer_to_another() -> None:
    """A name that is chosen to be what another one would become does not collide with it."""
    first = file_names.unique([("a/b", "img")])[0]
    for order in itertools.permutations([("a/b", "img"), (first.removesuffix(".img"), "img"), ("a_b", "img")]):
        _check(list(order))


@given(st.lists(st.tuples(st.text(max_size=30), st.sampled_from(["", "img"])), max_size=8))
def test_x10_any_names(wanted: list[tuple[str, str]]) -> None:
    """The same of any text."""
    _check(wanted)
