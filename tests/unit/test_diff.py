"""What `diff` makes of two machines: which disks are compared, and how it is shown."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from tests import partition_tables, repos
from vimgvc import errors
from vimgvc.cli import text
from vimgvc.cli.verbs import diff as verb
from vimgvc.commands import diff, images
from vimgvc.model import geometry
from vimgvc.repo import changes, repository, spans

_MIB = 1 << 20


def _machines() -> repository.Repository:
    """Two commits of `a` and `b`, and of `a`, `c` and `b`, where `a` is equal."""
    repo = repos.create()
    one, two, three = (repos.noise(seed, _MIB) for seed in range(3))
    repos.commit(repo, ("a", one), ("b", two), branch="m")
    repos.commit(repo, ("a", one), ("c", three), ("b", three), branch="m")
    return repo


def _run(repo: repository.Repository, first: str, second: str, access: images.Access | None = None) -> diff.Diff:
    return diff.run(repo, first, second, access or images.Access(), repos.Collector(), threads=2)


def _facts(found: diff.Diff) -> list[tuple[str, int | None, int | None, int]]:
    return [(disk.name, disk.size_before, disk.size, disk.changed_bytes) for disk in found.disks]


def test_disks_are_matched_by_name() -> None:
    """Disks of one name are compared; others were added or removed; one that is named is compared with its like."""
    repo = _machines()
    assert _facts(_run(repo, "m~1", "m")) == [("a", _MIB, _MIB, 0), ("c", None, _MIB, _MIB), ("b", _MIB, _MIB, _MIB)]
    assert _facts(_run(repo, "m", "m~1")) == [("a", _MIB, _MIB, 0), ("b", _MIB, _MIB, _MIB), ("c", _MIB, None, 0)]
    assert _facts(_run(repo, "m~1:b", "m")) == [("b", _MIB, _MIB, _MIB)]
    assert _facts(_run(repo, "m~1", "m:a")) == [("a", _MIB, _MIB, 0)]
    assert _facts(_run(repo, "m:b", "m:c")) == [("c", _MIB, _MIB, 0)]
    assert not _run(repo, "m", "m").differs
    assert _run(repo, "m~1", "m").differs
    for first, second in (("m:c", "m~1"), ("m~1", "m:c")):
        with pytest.raises(errors.UsageError):
            _run(repo, first, second)
    with pytest.raises(errors.NotFound):
        _run(repo, "m", "m:d")


def test_images_are_matched_by_name(tmp_path: pathlib.Path) -> None:
    """An image is compared with the disk of its name, or the one that is named, and with no other."""
    repo = _machines()
    path = tmp_path / "b.img"
    path.write_bytes(repos.noise(2, _MIB))
    assert _facts(_run(repo, "m", str(path))) == [("b", _MIB, _MIB, 0)]
    assert _facts(_run(repo, "m:c", str(path))) == [("b", _MIB, _MIB, 0)]
    assert _facts(_run(repo, "m:a", str(path))) == [("b", _MIB, _MIB, _MIB)]
    other = path.rename(tmp_path / "x.img")
    with pytest.raises(errors.UsageError, match="not clear"):
        _run(repo, "m", str(other))
    with pytest.raises(errors.NotFound):
        _run(repo, "m", str(path))


def test_an_image_of_a_guest_is_opened_as_one(tmp_path: pathlib.Path) -> None:
    """What is ambiguous, or is declared wrongly, is refused as by `commit`."""
    repo = _machines()
    path = tmp_path / "b.img"
    path.write_bytes(b"QFI\xfb\0\0\0\3".ljust(_MIB, b"\0"))
    with pytest.raises(errors.UnsafeImage):
        _run(repo, "m", str(path))
    assert _run(repo, "m", str(path), images.access(None, as_raw=True)).differs


def test_partitions_count_what_is_theirs(tmp_path: pathlib.Path) -> None:
    """Every changed byte is in one partition or outside of all; devices are called as the guest calls them."""
    repo = repos.create()
    window = geometry.WINDOW
    parts = [(1, window, window, "boot"), (2, 2 * window, 2 * window, "root\x1b[2J")]
    disk = partition_tables.gpt(6 * window, parts)
    repos.commit(repo, ("a", b""), ("b", bytes(disk)))
    disk[window : window + 4096] = repos.noise(1, 4096)
    disk[3 * window : 5 * window] = repos.noise(2, 2 * window)
    path = tmp_path / "b.img"
    path.write_bytes(disk)
    [found] = _run(repo, "vm", str(path)).disks
    counted = [(part.name, part.changed_bytes) for part in found.parts]
    assert counted == [("vdb1", 4096), ("vdb2", window)]
    assert found.outside_bytes == window
    told = "\n".join(verb.lines(found, text.Style()))
    assert "vdb2 unknown root\\x1b[2J: 4.0 MiB changed" in told
    assert "\x1b" not in told


def test_letters_of_disks() -> None:
    """Disks are lettered as Linux does, also beyond z."""
    named = [diff._letters(number) for number in (0, 1, 25, 26, 27, 51, 52, 701, 702)]
    assert named == ["a", "b", "z", "aa", "ab", "az", "ba", "zz", "aaa"]


def test_the_document_is_json(seed: int) -> None:
    """The streamed document is what `json` reads: with many extents, none, and names that need escapes."""
    rng = np.random.default_rng(seed)
    numbers = np.flatnonzero(rng.random(200_000) < 0.5) * 4096
    many = spans.joined(numbers, numbers + 4096)
    part = diff.Part("vda1", 0, 1, None, 'quote " \u202e', 5)
    disks = (
        diff.DiskDiff('a"\n', 1 << 40, None, many, 7, (part,), 3),
        diff.DiskDiff("b", None, 5, spans.EMPTY, 0),
    )
    found = json.loads("\n".join(verb.document(diff.Diff(disks, (changes.FileDiff("x.xml", "added"),)))))
    assert [disk["name"] for disk in found["disks"]] == ['a"\n', "b"]
    assert [tuple(pair) for pair in found["disks"][0]["extents"]] == list(many.pairs())
    assert found["disks"][0]["changed_bytes"] == many.total
    assert found["disks"][0]["partitions"][0]["label"] == 'quote " \u202e'
    assert found["disks"][1]["extents"] == []
    assert found["attachments"] == [{"name": "x.xml", "state": "added"}]
    assert json.loads("\n".join(verb.document(diff.Diff((), ())))) == {"disks": [], "attachments": []}
