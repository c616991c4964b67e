"""Writing through qemu when it goes wrong: a typed error, no name given, and nothing left.

Row X9: the child is killed, fails, or says that it was done and was not.
"""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
from collections.abc import Callable

import numpy as np
import pytest

from tests import children, devices, foreign_images, goal, needs
from vimgvc import errors
from vimgvc.disk import memory, protocol
from vimgvc.images import foreign_target

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("own_temporary")]

_SIZE = (5 << 20) + 512


def _kill(name: str, how: signal.Signals) -> Callable[[], None]:
    """Kill the program of this name that our only guard guards."""

    def kill() -> None:
        own = pathlib.Path(f"/proc/{os.getpid()}/task")
        guards = {int(pid) for task in own.iterdir() for pid in (task / "children").read_text().split()}
        found = [pid for guard in guards if (pid := children.program_of(guard)) is not None]
        found = [pid for pid in found if children.status(pid)["Name"] == name]
        assert len(found) == 1
        os.kill(found[0], how)
        assert children.is_gone(found[0])

    return kill


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM])
@pytest.mark.parametrize(
    "layout", [("vmdk", {}), ("vmdk", {"subformat": "twoGbMaxExtentFlat"}), ("vhdx", {})], ids=foreign_images.identify
)
def test_x9_the_program_is_killed(
    layout: tuple[str, dict[str, str]], how: signal.Signals, seed: int, out: pathlib.Path
) -> None:
    """Row X9: qemu-img killed in the middle: an error that names the signal, no name given, nothing left."""
    disk = goal.Hooked(goal.disk(_SIZE, seed), _kill("qemu-img", how))
    with pytest.raises(errors.VimgvcError, match=how.name):
        foreign_target.convert_into(
            disk,
            out / "disk",
            layout[0],
            layout[1],
            tag="t1",
            check=goal.comparing(goal.disk(_SIZE, seed)),
        )
    assert goal.names(out) == []


Lying = Callable[[str], pathlib.Path]


@pytest.fixture
def lying(tmp_path: pathlib.Path, out: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> Lying:
    """Puts a qemu-img with this script as body on the PATH; returns the folder to write to."""

    def install(body: str) -> pathlib.Path:
        fake = tmp_path / "bin" / "qemu-img"
        fake.parent.mkdir()
        fake.write_text(_FAKE.format(body=body.replace("{real}", needs.require_tool("qemu-img", "qemu-utils"))))
        fake.chmod(0o755)
        monkeypatch.setenv("PATH", f"{fake.parent}{os.pathsep}{os.environ['PATH']}")
        return out

    return install


_FAKE = """#!/bin/sh
case "$*" in
    --version) echo "qemu-img version 9.1.0";;
    *) {body} ;;
esac
"""


@pytest.mark.parametrize(
    ("body", "kind", "says"),
    [
        ("echo 'qemu-img: it is full: No space left on device' >&2; exit 1", errors.NoSpace, "full"),
        ("echo 'qemu-img: no such luck' >&2; exit 1", errors.VimgvcError, "no such luck"),
        ("exit 3", errors.VimgvcError, "status 3"),
        ("exit 0", errors.IntegrityError, "did not write"),
        ("for last; do :; done; head -c 100000 /dev/urandom > $last", errors.IntegrityError, "did not write"),
        ("for last; do :; done; {real} create -q -f vdi $last 1M", errors.IntegrityError, "1048576"),
        ("for last; do :; done; {real} create -q -f vdi $last 5243392", errors.IntegrityError, "differs"),
        ("for last; do :; done; {real} create -q -f vdi $last 16M", errors.IntegrityError, "16777216"),
        ("for last; do :; done; {real} create -q -f vhdx $last 5243392", errors.IntegrityError, "looks like vhdx"),
        ("for last; do :; done; rm $last", errors.IntegrityError, "did not write"),
        ("for last; do :; done; {real} create -q -f vdi $last 5243392; echo 1 > more", errors.IntegrityError, "more"),
    ],
)
def test_x9_the_program_lies(body: str, kind: type[errors.VimgvcError], says: str, seed: int, lying: Lying) -> None:
    """Row X9: it fails, or says that it was done and wrote nothing, too little, another disk or another format."""
    out = lying(body)
    disk = goal.disk(_SIZE, seed)
    with pytest.raises(kind, match=says) as caught:
        foreign_target.convert_into(disk, out / "disk.vdi", "vdi", {}, tag="t1", check=goal.comparing(disk))
    assert type(caught.value) is kind
    assert goal.names(out) == []


@pytest.mark.parametrize(
    ("fmt", "options"),
    [("vmdk", {"subformat": "streamOptimized"}), ("vdi", {}), ("qcow", {})],
    ids=["stream", "vdi", "qcow"],
)
def test_a_disk_that_fills_up(fmt: str, options: dict[str, str], seed: int, tmp_path: pathlib.Path) -> None:
    """A file system that becomes full is called that, in whatever words the driver has; nothing is left on it."""
    needs.require_tool("qemu-img", "qemu-utils")
    disk = memory.MemoryDisk(4 << 20)
    disk.pwrite(0, memoryview(np.random.default_rng(seed).bytes(disk.size)))
    with devices.small(tmp_path / "small", 2 << 20) as folder:
        with pytest.raises(errors.NoSpace):
            foreign_target.convert_into(disk, folder / "disk", fmt, options, tag="t1")
        assert goal.names(folder) == []


@pytest.mark.parametrize("body", ["exit 0", "for last; do :; done; {real} create -q -f vdi $last 1M"])
def test_short_output_is_noticed_without_comparing(body: str, lying: Lying) -> None:
    """Row X9: also when nothing is compared, a result that cannot be opened or has another size has no name."""
    out = lying(body)
    with pytest.raises(errors.IntegrityError, match="did not write"):
        foreign_target.convert_into(memory.MemoryDisk(_SIZE), out / "disk.vdi", "vdi", {}, tag="t1")
    assert goal.names(out) == []


def test_a_disk_that_cannot_be_read_is_the_error(seed: int, out: pathlib.Path) -> None:
    """When reading our disk fails, that error comes out, not qemu's remark on it; nothing is left."""

    def fail() -> None:
        raise errors.IntegrityError("pack 12", "is damaged")

    with pytest.raises(errors.IntegrityError, match="pack 12"):
        foreign_target.convert_into(goal.Hooked(goal.disk(_SIZE, seed), fail), out / "disk", "vdi", {}, tag="t1")
    assert goal.names(out) == []


def test_a_check_that_fails_leaves_nothing(seed: int, out: pathlib.Path) -> None:
    """If the comparison says no the target has no name, and one that is to be replaced stays."""
    (out / "disk").write_bytes(b"precious")

    def refuse(_: protocol.Source) -> None:
        assert (out / "disk").read_bytes() == b"precious"
        raise errors.IntegrityError("the result", "differs")

    with pytest.raises(errors.IntegrityError, match="differs"):
        foreign_target.convert_into(goal.disk(_SIZE, seed), out / "disk", "vdi", {}, tag="t1", force=True, check=refuse)
    assert goal.names(out) == ["disk"]
    assert (out / "disk").read_bytes() == b"precious"


_USER = """
import os, pathlib, sys
sys.path.insert(0, sys.argv[2])
from vimgvc.disk import memory
from vimgvc.images import foreign_target

class Slow(memory.MemoryDisk):
    def pread_into(self, offset, buffer):
        print("reading", flush=True)
        sys.stdin.read()

    def extents(self, offset, length):
        from vimgvc.disk import extents
        yield extents.Extent(offset, length, extents.Kind.DATA)

foreign_target.convert_into(Slow(1 << 20), sys.argv[1], "vmdk", {"subformat": "monolithicFlat"}, tag="t1")
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_nothing_is_left_when_we_are_killed(how: signal.Signals, tmp_path: pathlib.Path, out: pathlib.Path) -> None:
    """Killed while qemu-img writes: it is ended, and nothing is left beside the target or among temporary files."""
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    # the tests may run in the background of a shell, and what is ignored stays ignored
    start = ["env", "--default-signal=INT,TERM", sys.executable, "-W", "ignore", "-c", _USER]
    process = subprocess.Popen(
        [*start, out / "vm.vmdk", pathlib.Path(__file__).parents[2]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "TMPDIR": str(temporary)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "reading\n"
    assert goal.names(out) == [".vm.vmdk.t1.partial"]
    guards = [
        int(pid)
        for task in pathlib.Path(f"/proc/{process.pid}/task").iterdir()
        for pid in (task / "children").read_text().split()
    ]
    programs = [children.program_of(guard) for guard in guards]
    process.send_signal(how)
    process.communicate()
    assert len(programs) == 1
    assert all(children.is_gone(pid) for pid in [*guards, *programs] if pid is not None)
    assert goal.names(out) == []
    assert list(temporary.iterdir()) == []
