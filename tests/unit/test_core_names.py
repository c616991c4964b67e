"""Names, revisions and blobs that somebody else chose."""

from __future__ import annotations

import os
import pathlib

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.backends import local
from vimgvc.model import reflog


@pytest.mark.parametrize("steps", ["~" + "9" * 5000, "^" + "9" * 5000, "~\u0663", "~1\n", "^-1", "~1x"])
def test_steps_that_are_no_number(steps: str) -> None:
    """A revision whose steps are not short decimal numbers is refused as a mistake."""
    repo = repos.create()
    repos.commit(repo, ("vm", b"x"))
    with pytest.raises(errors.UsageError):
        repo.resolve("vm" + steps)


@pytest.mark.parametrize(
    "name", ["\udcff", "a\ud800", "a\u202eb", "a\u2066b", "a\x85b", "a\x9b", "a/.b", ".a", "a.lock/b", "a.lock", "a/"]
)
def test_names_that_cannot_be_shown(name: str) -> None:
    """What is not text, what a terminal would not show as it is, and what git forbids is no branch name."""
    with pytest.raises(errors.UsageError):
        reflog.check_name(name)


@pytest.mark.parametrize("name", ["vm", "ä/ö", "a.b", "a-b", "日本", "a/b.c", "release-1.0_x", "lock", "a.locked"])
def test_names_that_can(name: str) -> None:
    """Text in any script is a branch name."""
    assert reflog.check_name(name) == name


def test_p8_blob_of_an_impossible_size(tmp_path: pathlib.Path) -> None:
    """A metadata object that fills the disk is refused before memory is taken for it; its parts can be read."""
    place = local.LocalBackend.create(tmp_path / "repo")
    repo = repos.create(place)
    made = repos.commit(repo, ("vm", b"x")).commit
    os.truncate(tmp_path / "repo" / "commits" / made.id, 1 << 40)
    with pytest.raises(errors.IntegrityError, match="impossible size"):
        repos.reopen(repo).resolve("vm")
    assert place.get(f"commits/{made.id}", 0, 6) == b"vimgvc"
