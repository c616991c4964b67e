"""What writing in place asks of the kernel: in which order, killed at every call, and when it says no.

A small script runs below strace, which records calls, kills at the k-th of them or lets it fail.
"""

from __future__ import annotations

import collections
import pathlib
import subprocess
import sys

import pytest

from tests import needs
from vimgvc import errors
from vimgvc.images import in_place_target

pytestmark = pytest.mark.slow

_OLD = b"o" * 250_000
_NEW = b"n" * 50_000 + b"o" * 50_000 + bytes(50_000) + b"o" * 40_000 + b"n" * 10_000
_CALLS = ("openat", "ftruncate", "pwrite64", "fallocate", "fsync", "unlink")
_SCRIPT = """
import sys
from vimgvc import errors
from vimgvc.images import in_place_target

try:
    target = in_place_target.open_target(
        sys.argv[1], 200_000, known=None, as_raw=False, forbidden=(), devices=None
    )
    try:
        target.pwrite(0, memoryview(b"n" * 50_000))
        target.zero(100_000, 50_000)
        target.pwrite(190_000, memoryview(b"n" * 10_000))
        target.finish()
        print("finished")
    finally:
        target.abort()
except errors.VimgvcError as error:
    print(type(error).__name__, error.exit_code)
"""


def _run(folder: pathlib.Path, *options: str) -> tuple[str, list[str]]:
    """What the script prints, and the calls about the target, its marker and their folder, in order."""
    strace = needs.require_tool("strace", "strace")
    probe = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace is not allowed here: {probe.stderr.strip()}")
    place = folder / "place"
    place.mkdir(exist_ok=True)
    (place / "vm.img").write_bytes(_OLD)
    names = [place / "vm.img", _marker(folder), place]
    only = [part for name in names for part in ("-P", str(name))]
    command = [strace, "-y", "-o", str(folder / "calls"), "-e", f"trace={','.join(_CALLS)}", *only, *options]
    done = subprocess.run(
        [*command, sys.executable, "-c", _SCRIPT, str(place / "vm.img")], capture_output=True, text=True, check=False
    )
    assert done.stderr == ""
    found = [line for line in (folder / "calls").read_text().splitlines() if str(place) in line]
    return done.stdout.strip(), found


def _marker(folder: pathlib.Path) -> pathlib.Path:
    return folder / "place" / ".vm.img.vimgvc-in-place"


def _name(call: str) -> str:
    return call.partition("(")[0]


def _about(call: str, folder: pathlib.Path) -> str:
    """A call as `name what`."""
    marker, target = str(_marker(folder)), str(folder / "place" / "vm.img")
    what = "marker" if marker in call else "target" if target in call else "folder"
    return f"{_name(call)} {what}"


def test_x5_order_of_the_calls(tmp_path: pathlib.Path) -> None:
    """The marker and its name are durable before the first change; the target is durable before the marker goes."""
    out, calls = _run(tmp_path)
    assert out == "finished"
    assert (tmp_path / "place" / "vm.img").read_bytes() == _NEW
    told = [_about(call, tmp_path) for call in calls if "O_RDONLY" not in call]
    first = told.index("pwrite64 target")
    assert told.index("openat marker") < told.index("fsync marker") < told.index("fsync folder") < first
    last = len(told) - 1 - told[::-1].index("fsync target")
    changes = {"pwrite64 target", "fallocate target", "ftruncate target"}
    assert max(at for at, what in enumerate(told) if what in changes) < last < told.index("unlink marker")
    assert told[-2:] == ["unlink marker", "fsync folder"]


def test_x5_killed_at_every_call(tmp_path: pathlib.Path) -> None:
    """Without a marker the target is the old or the new disk, whole; with one nobody takes it for known."""
    _, calls = _run(tmp_path)
    counts: collections.Counter[str] = collections.Counter()
    seen = set()
    for call in calls:
        counts[_name(call)] += 1
        out, _ = _run(tmp_path, "-e", f"inject={_name(call)}:signal=KILL:when={counts[_name(call)]}")
        content = (tmp_path / "place" / "vm.img").read_bytes()
        if _marker(tmp_path).exists():
            seen.add("marked")
            with pytest.raises(errors.VimgvcError, match="was interrupted"):
                _open(tmp_path, known=len(content))
            again = _open(tmp_path, known=None)
            again.pwrite(0, memoryview(_NEW))
            again.finish()
            assert (tmp_path / "place" / "vm.img").read_bytes() == _NEW
            assert not _marker(tmp_path).exists()
        else:
            assert out in ("", "finished")
            assert content in (_OLD, _NEW)
            seen.add("old" if content == _OLD else "new")
    assert seen == {"old", "marked", "new"}


def _open(folder: pathlib.Path, known: int | None) -> in_place_target.InPlaceTarget:
    said = None if known is None else in_place_target.Known("vm", known)
    return in_place_target.open_target(
        folder / "place" / "vm.img", len(_NEW), known=said, as_raw=False, forbidden=(), devices=None
    )


@pytest.mark.parametrize(
    ("fault", "told", "marked"),
    [
        ("pwrite64:error=ENOSPC:when=1", "NoSpace 24", True),
        ("pwrite64:error=EIO:when=2", "IntegrityError 20", True),
        ("fallocate:error=EIO:when=1", "IntegrityError 20", True),
        ("ftruncate:error=EIO:when=1", "IntegrityError 20", True),
        ("fsync:error=EIO:when=LAST", "IntegrityError 20", True),
        ("fsync:error=ENOSPC:when=LAST", "NoSpace 24", True),
        ("fsync:error=EIO:when=MARKER", "IntegrityError 20", True),
        ("fallocate:error=EOPNOTSUPP", "finished", False),
    ],
)
def test_x4_what_the_kernel_refuses(fault: str, told: str, *, marked: bool, tmp_path: pathlib.Path) -> None:
    """Row X4: no room is 24 and a failing disk 20, also where only the last sync says so; then the marker stays."""
    _, calls = _run(tmp_path)
    syncs = [_about(call, tmp_path) for call in calls if _name(call) == "fsync"]
    last = len(syncs) - syncs[::-1].index("fsync target")
    when = fault.replace("LAST", str(last)).replace("MARKER", str(syncs.index("fsync marker") + 1))
    out, again = _run(tmp_path, "-e", f"inject={when}")
    assert out == told
    assert any("INJECTED" in call for call in again)
    assert _marker(tmp_path).exists() == marked
    content = (tmp_path / "place" / "vm.img").read_bytes()
    if not marked:
        assert content == _NEW
    if "MARKER" in fault:
        assert content == _OLD, "nothing is written before the marker is durable"
