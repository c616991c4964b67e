"""What `commit` does around the recording itself."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import pytest

from tests import repos
from vimgvc import errors
from vimgvc.commands import commit, images
from vimgvc.disk import extents, memory
from vimgvc.monitor import NullMonitor
from vimgvc.pipeline import ingest

_NAMED = [commit.Image("vm", "vm.img")]


class _Lying(memory.MemoryDisk):
    """Tells that all of it is a hole."""

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        return iter([extents.Extent(offset, length, extents.Kind.HOLE)])


def _record(disk: memory.MemoryDisk, home: pathlib.Path, *, verify_source: bool) -> commit.Result:
    wanted = commit.request(_NAMED, branch=None, message=None, author="ann", host="host", allow_empty=False)
    return commit.run(
        repos.create(),
        {"HOME": str(home)},
        commit.Opened([ingest.Source("vm", disk, {"format": "raw"})], []),
        wanted,
        effort=commit.Effort(),
        monitor=NullMonitor(),
        verify_source=verify_source,
    )


def test_i33_a_source_that_tells_holes_where_it_has_data(tmp_path: pathlib.Path) -> None:
    """--verify-source reads holes too, and what they hide is an error that names the disk and the range."""
    disk = _Lying(1 << 20)
    disk.pwrite(300_000, memoryview(b"hidden"))
    assert _record(disk, tmp_path, verify_source=False).created
    with pytest.raises(errors.IntegrityError, match=r"disk vm: the source reads differently now: .* at \d+"):
        _record(disk, tmp_path, verify_source=True)


def test_an_honest_source_passes(tmp_path: pathlib.Path) -> None:
    """What reads twice the same is recorded without a word."""
    disk = memory.MemoryDisk(1 << 20)
    disk.pwrite(300_000, memoryview(b"data"))
    assert _record(disk, tmp_path, verify_source=True).created


@pytest.mark.parametrize(
    "others", [{"declared": "qcow2"}, {"snapshot": "a"}, {"chain_roots": ("/",)}, {"secret_file": "f"}]
)
def test_as_raw_looks_at_nothing(others: dict[str, object]) -> None:
    """--as-raw declares raw, and excludes every option about what is inside."""
    assert images.access(None, as_raw=True).declared == "raw"
    with pytest.raises(errors.UsageError, match="--as-raw and --"):
        images.access(as_raw=True, **{"declared": None, **others})  # type: ignore[arg-type]


def test_chains_are_allowed_by_either_option() -> None:
    """Without both no backing file is opened; the image's own folder is always among those that are allowed."""
    assert images.access(None).chain_roots is None
    assert images.access(None, allow_chain=True).chain_roots == ()
    assert images.access(None, chain_roots=("a", "b")).chain_roots == ("a", "b")
