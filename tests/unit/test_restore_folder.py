"""Everything of a commit in a directory."""

from __future__ import annotations

import os
import pathlib

import pytest

from tests import repos
from tests.damage import damaged
from vimgvc import errors, monitor
from vimgvc.backends import memory
from vimgvc.commands import restore_folder
from vimgvc.disk import memory as disk_memory
from vimgvc.pipeline import ingest
from vimgvc.repo import repository


def _sources(files: dict[str, bytes]) -> list[ingest.Source]:
    return [ingest.Source(name, disk_memory.MemoryDisk.of(data), {"format": "raw"}) for name, data in files.items()]


def _run(
    repo: repository.Repository, folder: pathlib.Path, wanted: restore_folder.Wanted | None = None
) -> restore_folder.Folder:
    return restore_folder.run(
        repo, "vm", str(folder), wanted or restore_folder.Wanted(threads=2), monitor.NullMonitor()
    )


def _machine(seed: int, backend: memory.MemoryBackend | None = None) -> tuple[repository.Repository, dict[str, bytes]]:
    """A repository with one machine, and the files that restoring it is to make."""
    repo = repos.create(backend)
    disks = {"root": repos.noise(seed, 300_000), "data": repos.noise(seed + 1, 200_001)}
    files = {"../../evil": b"evil", "/abs": b"abs", "web.xml": b"<x/>", "WEB.xml": b"<y/>", ".hidden": b"", "a/b": b"1"}
    request = repository.CommitRequest("vm", "message", "ann", "host")
    made = repo.commit(_sources(disks), request, attachments=_sources(files)).commit
    content = [*disks.values(), *files.values()]
    return repo, dict(zip(restore_folder.names(made), content, strict=True))


def _read(folder: pathlib.Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_x10_nothing_is_written_outside(seed: int, tmp_path: pathlib.Path) -> None:
    """Names that lead elsewhere, or are alike, become different files in the directory; nothing else appears."""
    repo, expected = _machine(seed)
    (tmp_path / "deep" / "er").mkdir(parents=True)
    done = _run(repo, tmp_path / "deep" / "er" / "out")
    done.check_complete()
    assert _read(tmp_path / "deep" / "er" / "out") == expected
    assert len(expected) == 8
    assert [name for _, folders, files in os.walk(tmp_path) for name in folders + files if name not in expected] == [
        "deep",
        "er",
        "out",
    ]


def test_x1_x5_again_goes_on(seed: int, tmp_path: pathlib.Path) -> None:
    """What is there and right is kept as it is, what is missing is written, also after half of it was lost."""
    repo, expected = _machine(seed)
    out = tmp_path / "out"
    _run(repo, out)
    (out / "data.img").unlink()
    before = (out / "root.img").stat().st_mtime_ns
    done = _run(repo, out)
    assert _read(out) == expected
    assert [file.facts.name for file in done.files if not file.kept] == ["data"]
    assert (out / "root.img").stat().st_mtime_ns == before


@pytest.mark.parametrize("how", ["content", "size", "link", "folder", "pipe"])
def test_x1_what_is_something_else_stays(how: str, seed: int, tmp_path: pathlib.Path) -> None:
    """If anything that is not right is there under one of the names, nothing at all is written."""
    repo, expected = _machine(seed)
    out = tmp_path / "out"
    out.mkdir()
    victim = out / "web.xml"
    if how == "link":
        (tmp_path / "elsewhere").write_bytes(expected["web.xml"])
        victim.symlink_to(tmp_path / "elsewhere")
    elif how == "folder":
        victim.mkdir()
    elif how == "pipe":
        os.mkfifo(victim)
    else:
        victim.write_bytes(b"<z/>" if how == "content" else b"<x/>more")
    with pytest.raises(errors.VimgvcError, match="is something else"):
        _run(repo, out)
    assert os.listdir(out) == ["web.xml"]
    if how in ("content", "size"):
        _run(repo, out, restore_folder.Wanted(force=True))
        assert _read(out) == expected


def test_x6_one_damaged_disk_does_not_stop_the_others(seed: int, tmp_path: pathlib.Path) -> None:
    """The others are there, the damaged one has no file of its name, and the report says so: exit 20."""
    backend = memory.MemoryBackend()
    repo = repos.create(backend)
    repos.commit(repo, ("vm", repos.noise(seed, 300_000)), branch="first")
    before = {item.name for item in repo.objects(monitor.NullMonitor()).index.packs()}
    request = repository.CommitRequest("vm", "message", "ann", "host")
    contents = {"one": repos.noise(seed, 300_000), "two": repos.noise(seed + 5, 300_000)}
    repo.commit(_sources(contents), request)
    packs = [item for item in repo.objects(monitor.NullMonitor()).index.packs() if item.kind == 1]
    lost = [item.name for item in packs if item.name not in before]
    assert lost
    blobs = {name: blob for name, blob in backend._blobs.items() if not any(pack in name for pack in lost)}
    done = _run(damaged.open_repository(blobs, repo.unlocked, repos.Collector()), tmp_path / "out")
    assert _read(tmp_path / "out") == {"one.img": contents["one"]}
    with pytest.raises(errors.IntegrityError, match=r"1 of 2 were not restored \(two\)"):
        done.check_complete()


def test_x7_places_that_are_refused(seed: int, tmp_path: pathlib.Path) -> None:
    """A file as the directory, a directory whose parent is missing, and unknown names, before anything is made."""
    repo, _ = _machine(seed)
    (tmp_path / "file").touch()
    with pytest.raises(errors.UsageError):
        _run(repo, tmp_path / "file")
    with pytest.raises(errors.NotFound):
        _run(repo, tmp_path / "no" / "out")
    with pytest.raises(errors.NotFound, match="swap"):
        _run(repo, tmp_path / "out", restore_folder.Wanted(names=["root", "swap"]))
    assert os.listdir(tmp_path) == ["file"]
