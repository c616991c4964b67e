"""What reading and writing images asks of the kernel, and what happens when it says no.

Each test runs a small script below strace, which records calls or lets the k-th of them fail.
"""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from tests import needs

pytestmark = pytest.mark.slow

_SIZE = 300_000
_PARTIAL = ".disk.raw.t1.partial"

_READ = """
import sys
from vimgvc import errors
from vimgvc.images import raw

try:
    source = raw.RawReader(sys.argv[1])
    print(" ".join(f"{item.start}+{item.length}={item.kind.value}" for item in source.extents(0, source.size)))
    buffer = bytearray(source.size)
    source.pread_into(0, memoryview(buffer))
    print("same" if buffer == b"x" * 100_000 + bytes(100_000) + b"x" * 100_000 else "different")
except errors.VimgvcError as error:
    print(type(error).__name__, error.exit_code, error.message, "|", error.hint)
"""

_WRITE = """
import pathlib, sys
from vimgvc import errors
from vimgvc.images import raw

try:
    target = raw.RawWriter(sys.argv[1], 300_000, tag="t1")
    try:
        target.pwrite(0, memoryview(b"x" * 300_000))
        target.zero(100_000, 100_000)
        if len(sys.argv) > 2:
            pathlib.Path(sys.argv[1]).write_bytes(b"precious")
        target.finish()
        print("finished")
    except errors.VimgvcError:
        target.abort()
        raise
except errors.VimgvcError as error:
    print(type(error).__name__, error.exit_code)
"""


def _strace(folder: pathlib.Path, options: list[str], script: str, *arguments: str) -> str:
    """What the script prints; the calls are in `folder / "calls"`. Skips where tracing is not allowed."""
    strace = needs.require_tool("strace", "strace")
    probe = subprocess.run([strace, "-o", "/dev/null", "true"], capture_output=True, text=True, check=False)
    if probe.returncode:
        pytest.skip(f"strace is not allowed here: {probe.stderr.strip()}")
    command = [strace, "-y", "-o", str(folder / "calls"), *options]
    command += [sys.executable, "-c", script, str(folder / "disk.raw"), *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "calls").read_text().count("INJECTED") >= sum(option.startswith("inject=") for option in options)
    return done.stdout.strip()


def _inject(*faults: str) -> list[str]:
    calls = ",".join(fault.split(":")[0] for fault in faults)
    return ["-e", f"trace={calls}", *[part for fault in faults for part in ("-e", f"inject={fault}")]]


def _calls(folder: pathlib.Path) -> list[str]:
    """The recorded calls on anything in `folder`, and no others that Python may make."""
    return [line for line in (folder / "calls").read_text().splitlines() if "(" in line and str(folder) in line]


# --- reading --------------------------------------------------------------------------------------

_DATA_ONLY = f"0+{_SIZE}=data\nsame"


def _source(folder: pathlib.Path) -> list[str]:
    """A sparse image; returns the options that let faults hit only calls on it."""
    path = folder / "disk.raw"
    with path.open("wb") as file:
        file.write(b"x" * 100_000)
        file.seek(200_000)
        file.write(b"x" * 100_000)
    return ["-P", str(path)]


def test_reading_syncs_before_it_believes_holes(tmp_path: pathlib.Path) -> None:
    """I33: the first question for holes comes after an fsync, and holes are never read for extents."""
    only = _source(tmp_path)
    out = _strace(tmp_path, [*only, "-e", "trace=openat,fsync,lseek,/^preadv"], _READ)
    assert out.endswith("data\nsame")
    assert "=hole" in out
    lines = _calls(tmp_path)
    assert "O_NONBLOCK" in lines[0]  # what became a FIFO meanwhile must not make us wait
    calls = [line.split("(")[0] for line in lines]
    assert calls[:2] == ["openat", "fsync"]
    assert calls[2:6] == ["lseek"] * 4
    assert [call.startswith("preadv") for call in calls[6:]] == [True]


@pytest.mark.parametrize(
    ("fault", "said"), [("openat:error=EACCES", "check the owner and mode"), ("openat:error=EMFILE", "ulimit -n")]
)
def test_unreadable_source(fault: str, said: str, tmp_path: pathlib.Path) -> None:
    """A source that cannot be opened is one typed error with a hint what to do."""
    out = _strace(tmp_path, [*_source(tmp_path), *_inject(fault)], _READ)
    assert out.startswith(f"BackendError 1 {tmp_path / 'disk.raw'}: ")
    assert said in out


def test_i32_read_error_is_tried_once_more(tmp_path: pathlib.Path) -> None:
    """A read that fails once with EIO is no failure; nor is one that a signal interrupts."""
    only = _source(tmp_path)
    for number in ("EIO", "EINTR"):
        # C libraries have more than one call behind preadv(3).
        assert _strace(tmp_path, [*only, *_inject(f"/^preadv:error={number}:when=1")], _READ).endswith("\nsame")


def test_i32_lasting_read_error(tmp_path: pathlib.Path) -> None:
    """A second EIO is an error that names the range."""
    out = _strace(tmp_path, [*_source(tmp_path), *_inject("/^preadv:error=EIO")], _READ)
    assert f"BackendError 1 {tmp_path / 'disk.raw'}, bytes 0 to {_SIZE - 1}: Input/output error" in out
    assert (tmp_path / "calls").read_text().count("INJECTED") == 2


@pytest.mark.parametrize("number", ["EINVAL", "EOPNOTSUPP"])
def test_i33_no_word_of_holes(number: str, tmp_path: pathlib.Path) -> None:
    """A file system that cannot tell holes has none."""
    assert _strace(tmp_path, [*_source(tmp_path), *_inject(f"lseek:error={number}")], _READ) == _DATA_ONLY


@pytest.mark.parametrize("number", ["EROFS", "EINVAL"])
def test_i33_no_sync_no_holes(number: str, tmp_path: pathlib.Path) -> None:
    """Where a file cannot be synced, holes are not believed: everything is read."""
    assert _strace(tmp_path, [*_source(tmp_path), *_inject(f"fsync:error={number}")], _READ) == _DATA_ONLY


@pytest.mark.parametrize(("number", "said"), [("EIO", "BackendError 1"), ("ENOSPC", "NoSpace 24")])
def test_i33_lost_writes_of_the_source(number: str, said: str, tmp_path: pathlib.Path) -> None:
    """A sync that says that data was lost is no source for a commit."""
    assert _strace(tmp_path, [*_source(tmp_path), *_inject(f"fsync:error={number}")], _READ).startswith(said)


def test_i33_failed_question_for_holes(tmp_path: pathlib.Path) -> None:
    """An error while asking for holes is an error, not a hole."""
    out = _strace(tmp_path, [*_source(tmp_path), *_inject("lseek:error=EIO:when=2")], _READ)
    assert out.startswith("BackendError 1 ")


def test_i33_lying_file_system(tmp_path: pathlib.Path) -> None:
    """Data of no length, or holes that go nowhere, end in reading everything, not in a loop."""
    options = _inject("lseek:retval=0")
    assert _strace(tmp_path, [*_source(tmp_path), *options], _READ) == _DATA_ONLY


# --- writing --------------------------------------------------------------------------------------


def _content(folder: pathlib.Path) -> bytes:
    return (folder / "disk.raw").read_bytes()


_EXPECTED = b"x" * 100_000 + bytes(100_000) + b"x" * 100_000


def test_x5_order_of_finishing(tmp_path: pathlib.Path) -> None:
    """The name appears after the data is durable, and the folder is durable after the name."""
    out = _strace(tmp_path, ["-e", "trace=pwrite64,fallocate,fsync,rename,renameat,renameat2,linkat"], _WRITE)
    assert out == "finished"
    calls = _calls(tmp_path)
    names = [line.split("(")[0] for line in calls]
    assert names == ["pwrite64", "fallocate", "fsync", "renameat2", "fsync"]
    assert f"{_PARTIAL}>" in calls[2]
    assert f"<{tmp_path}>" in calls[4]
    assert _content(tmp_path) == _EXPECTED


def test_x5_resumption_syncs_first(tmp_path: pathlib.Path) -> None:
    """What a partial file says of its holes is only asked after an fsync."""
    (tmp_path / _PARTIAL).write_bytes(b"y" * 10)
    out = _strace(tmp_path, ["-e", "trace=pwrite64,fallocate,fsync,renameat2"], _WRITE)
    assert out == "finished"
    names = [line.split("(")[0] for line in _calls(tmp_path)]
    assert names == ["fsync", "pwrite64", "fallocate", "fsync", "renameat2", "fsync"]


def test_d6_fsync_error_of_the_data(tmp_path: pathlib.Path) -> None:
    """An fsync that fails once is never asked again: no name, and nothing to take up, though a second would pass."""
    assert _strace(tmp_path, _inject("fsync:error=EIO:when=1"), _WRITE) == "IntegrityError 20"
    assert not (tmp_path / "disk.raw").exists()
    assert not (tmp_path / _PARTIAL).exists()
    assert (tmp_path / "calls").read_text().count("fsync(") == 1


def test_d7_close_error_of_the_data(tmp_path: pathlib.Path) -> None:
    """A network file system that only tells on closing what went wrong is heard before the name appears."""
    options = ["-P", str(tmp_path / _PARTIAL), *_inject("close:error=EDQUOT:when=1")]
    assert _strace(tmp_path, options, _WRITE) == "NoSpace 24"
    assert not (tmp_path / "disk.raw").exists()


def test_d5_fsync_error_of_the_folder(tmp_path: pathlib.Path) -> None:
    """A name that may not be durable is no success; the disk under it is complete."""
    assert _strace(tmp_path, _inject("fsync:error=EIO:when=2"), _WRITE) == "IntegrityError 20"
    assert _content(tmp_path) == _EXPECTED


def test_folders_that_cannot_be_synced(tmp_path: pathlib.Path) -> None:
    """EINVAL means that the file system has no such operation on folders."""
    assert _strace(tmp_path, _inject("fsync:error=EINVAL:when=2"), _WRITE) == "finished"


@pytest.mark.parametrize("number", ["ENOSYS", "EINVAL"])
def test_x1_without_the_exclusive_rename(number: str, tmp_path: pathlib.Path) -> None:
    """Where renameat2 is missing, the name is given by a link, which is exclusive as well."""
    fault = f"renameat2:error={number}"
    assert _strace(tmp_path, _inject(fault), _WRITE) == "finished"
    assert _content(tmp_path) == _EXPECTED
    assert not (tmp_path / _PARTIAL).exists()
    (tmp_path / "disk.raw").unlink()
    assert _strace(tmp_path, _inject(fault), _WRITE, "appears") == "VimgvcError 1"
    assert _content(tmp_path) == b"precious"
    assert (tmp_path / _PARTIAL).read_bytes() == _EXPECTED


def test_file_system_without_holes(tmp_path: pathlib.Path) -> None:
    """Where a range cannot be freed it is written with zeros."""
    assert _strace(tmp_path, _inject("fallocate:error=EOPNOTSUPP"), _WRITE) == "finished"
    assert _content(tmp_path) == _EXPECTED


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("pwrite64:error=EIO:when=1", "IntegrityError 20"),
        ("pwrite64:error=ENOSPC:when=1", "NoSpace 24"),
        ("pwrite64:error=EDQUOT:when=1", "NoSpace 24"),
        ("pwrite64:error=EFBIG:when=1", "VimgvcError 1"),
        ("pwrite64:error=EROFS:when=1", "BackendError 1"),
        ("fallocate:error=EIO", "IntegrityError 20"),
        ("fallocate:error=ENOSPC", "NoSpace 24"),
    ],
)
def test_x4_d11_write_errors(fault: str, said: str, tmp_path: pathlib.Path) -> None:
    """Every error of a write has its own exit code; the partial file stays and the name does not appear."""
    assert _strace(tmp_path, _inject(fault), _WRITE) == said
    assert not (tmp_path / "disk.raw").exists()
    assert (tmp_path / _PARTIAL).stat().st_size == _SIZE


def test_d11_interrupted_calls(tmp_path: pathlib.Path) -> None:
    """A signal in the middle of a call repeats it."""
    faults = ["pwrite64:error=EINTR:when=1", "fallocate:error=EINTR:when=1", "fsync:error=EINTR:when=1"]
    assert _strace(tmp_path, _inject(*faults), _WRITE) == "finished"
    assert _content(tmp_path) == _EXPECTED


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("ftruncate:error=EFBIG", "VimgvcError 1"),
        ("flock:error=EAGAIN", "Busy 11"),
        ("flock:error=EIO", "BackendError 1"),
    ],
)
def test_d11_errors_of_the_opening(fault: str, said: str, tmp_path: pathlib.Path) -> None:
    """What fails before the first byte gives no name."""
    assert _strace(tmp_path, _inject(fault), _WRITE) == said
    assert not (tmp_path / "disk.raw").exists()


def test_file_system_without_locks(tmp_path: pathlib.Path) -> None:
    """A network file system that has no locks is still a place to restore to."""
    assert _strace(tmp_path, _inject("flock:error=ENOLCK"), _WRITE) == "finished"
