"""Commits as bytes: formats.md §10."""

from __future__ import annotations

import dataclasses
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import mutate
from vimgvc import errors
from vimgvc.model import commit, encoding

_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_COUNT = st.integers(0, 2**63 - 1)
_HEX32 = st.binary(min_size=32, max_size=32).map(bytes.hex)
_DISKS = st.builds(
    commit.Disk,
    name=_TEXT,
    size=_COUNT,
    manifest=_HEX32,
    container=st.just({"format": "raw"}),
    allocated_bytes=_COUNT,
    read_bytes=_COUNT,
    changed_bytes=_COUNT,
    new_bytes=_COUNT,
    stored_bytes=_COUNT,
)
_ATTACHMENTS = st.builds(
    commit.Attachment,
    name=_TEXT,
    size=_COUNT,
    manifest=_HEX32,
    read_bytes=_COUNT,
    new_bytes=_COUNT,
    stored_bytes=_COUNT,
)
_COMMITS = st.builds(
    commit.Commit,
    id=_HEX32,
    parents=st.lists(_HEX32, max_size=3).map(tuple),
    branch=_TEXT,
    message=_TEXT,
    author=_TEXT,
    host=_TEXT,
    time=st.datetimes().map(lambda moment: moment.strftime("%Y-%m-%dT%H:%M:%SZ").zfill(20)),
    disks=st.lists(_DISKS, max_size=3, unique_by=lambda disk: disk.name).map(tuple),
    attachments=st.lists(_ATTACHMENTS, max_size=3, unique_by=lambda item: item.name).map(tuple),
).filter(lambda made: len({item.name for item in made.stored()}) == len(made.stored()))
_TEXTS = {"branch", "message", "author", "host", "name"}
_DISK = commit.Disk("vm", 512, "ab" * 32, {"format": "raw"}, 1, 2, 3, 4, 5)
_ATTACHMENT = commit.Attachment("vm.ovf", 100, "ba" * 32, 1, 2, 3)
_ID = "cd" * 32
_COMMIT = commit.Commit(
    _ID, ("ef" * 32,), "vm", "message", "ann", "host", "2026-01-02T03:04:05Z", (_DISK,), (_ATTACHMENT,)
)


@hypothesis.given(_COMMITS)
def test_commits_come_back(made: commit.Commit) -> None:
    """Any commit encodes to bytes that decode to it."""
    assert commit.decode(made.id, made.encode()) == made


@pytest.mark.slow
def test_mutants(seed: int) -> None:
    """Ten thousand variations of commits are refused or encode to themselves."""
    samples = [_COMMIT.encode(), dataclasses.replace(_COMMIT, parents=(), disks=()).encode()]
    decoded, refused = mutate.survey(
        lambda data: commit.decode(_ID, data).encode(), mutate.mutants(seed, samples, 10_000)
    )
    assert min(decoded, refused) > 100


def _changed(path: list[str | int], value: Any) -> bytes:
    whole: Any = encoding.loads_canonical(_COMMIT.encode(), "sample")
    inner = whole
    for step in path[:-1]:
        inner = inner[step]
    inner[path[-1]] = value
    return encoding.dumps_canonical(whole)


@pytest.mark.parametrize(
    "path",
    [*([name] for name in encoding.loads_canonical(_COMMIT.encode(), "sample")), ["parents", 0], ["disks", 0]]
    + [["disks", 0, name] for name in dataclasses.asdict(_DISK)]
    + [["attachments", 0], *(["attachments", 0, name] for name in dataclasses.asdict(_ATTACHMENT))],
    ids=lambda path: "-".join(map(str, path)),
)
def test_members_of_wrong_types(path: list[str | int]) -> None:
    """A member of another type is refused; what is taken, where the type fits, encodes to the same bytes."""
    values: list[Any] = [None, True, -1, 2**70, "x", [], {}, [[]], [None], [{}], {"format": []}]
    for data in (_changed(path, value) for value in values):
        try:
            again = commit.decode(_ID, data).encode()
        except mutate.REFUSALS:
            continue
        assert again == data
        assert path[-1] in _TEXTS | {"container", "parents", "disks", "attachments"}


@pytest.mark.parametrize("version", [0, 2, 2**63 - 1])
def test_other_versions_are_named(version: int) -> None:
    """A commit of another version is unsupported, by its number."""
    with pytest.raises(errors.Unsupported, match=f"version {version}$"):
        commit.decode(_ID, _changed(["v"], version))


@pytest.mark.parametrize(
    "time", ["", "2026-01-02 03:04:05Z", "2026-01-02T03:04:05", "2026-01-02T03:04:05Z\n", "2026-01-02T03:04:05+00:00"]
)
def test_times_have_one_form(time: str) -> None:
    """Any other way to write a time is refused."""
    with pytest.raises(errors.FormatError):
        commit.decode(_ID, _changed(["time"], time))


def test_disks_are_found_by_name() -> None:
    """The only disk needs no name; of several one has to be named; an unknown one is told with those that are."""
    other = dataclasses.replace(_DISK, name="data")
    both = dataclasses.replace(_COMMIT, disks=(_DISK, other))
    assert _COMMIT.disk() == _COMMIT.disk("vm") == _DISK
    assert both.disk("data") == other
    with pytest.raises(errors.UsageError, match="2 disks") as usage:
        both.disk()
    assert "vm, data" in usage.value.hint
    with pytest.raises(errors.NotFound) as missing:
        both.disk("swap")
    assert "vm, data" in missing.value.hint
    with pytest.raises(errors.UsageError):
        dataclasses.replace(_COMMIT, disks=()).disk()
