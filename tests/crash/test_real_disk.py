"""What the model claims, on real file systems: power cuts, full disks, failing fsync, read-only mounts."""

from __future__ import annotations

import contextlib
import errno
import os
import pathlib
import resource
import subprocess
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from tests import devices, needs
from tests.crash import mutants, recorder, workload
from tests.devices import FLUSH, NO_FLUSH, Disk
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import files, local, protocol

MIB = 1 << 20


@pytest.fixture
def disk(tmp_path: pathlib.Path) -> Iterator[Disk]:
    with devices.disk(tmp_path, 48 * MIB) as made:
        yield made


class PowerCut(mutants.Passing):
    """Cuts the power before operation number `at`; everything fails from then on."""

    def __init__(self, inner: files.Files, at: int, cut: Callable[[], None]) -> None:
        super().__init__(inner)
        self.count, self._at, self._cut = 0, at, cut
        for name in ("create", "write", "close", "link", "unlink", "mkdir"):
            setattr(self, name, self._counted(getattr(inner, name)))

    def _counted(self, call: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            self._step()
            return call(*arguments)

        return counted

    def fsync(self, handle: int) -> None:
        self._step()
        super().fsync(handle)

    def fsync_dir(self, path: str) -> None:
        self._step()
        super().fsync_dir(path)

    def _step(self) -> None:
        if self.count == self._at:
            self._cut()
        self.count += 1


def cut_power(
    disk: Disk, name: str, blobs: workload.Blobs, at: int, flag: int, *, over: type[mutants.Passing] = mutants.Passing
) -> int:
    """Run the workload until the power is cut at operation `at`, start again and check; returns the operations done."""
    root = disk.folder / name
    workload.initialise(local.LocalBackend.create(root), blobs)
    cutting = PowerCut(files.RealFiles(), at, lambda: disk.cut(flag))
    promised: set[str] = set()
    with contextlib.suppress(errors.BackendError):
        backend = local.LocalBackend(root, over(cutting))
        workload.run(backend, blobs, lambda promise: promised.update(promise.names))
        disk.cut(flag)
    disk.reboot()
    workload.check_present(local.LocalBackend.open(root), blobs, promised)
    workload.run(local.LocalBackend.open(root), blobs, lambda _promise: None)
    workload.check_present(local.LocalBackend.open(root), blobs, set(blobs.content))
    return cutting.count


@pytest.mark.slow
@pytest.mark.parametrize("flag", [FLUSH, NO_FLUSH])
def test_d2_d3_power_cuts_of_the_kernel(disk: Disk, flag: int, seed: int) -> None:
    """D2, D3: after a power cut at any moment, the last right after success, what was acknowledged is there."""
    blobs = workload.make_blobs(seed)
    total = cut_power(disk, "all", blobs, 1 << 30, flag)
    assert total > 100
    for number, at in enumerate(np.random.default_rng(seed).integers(0, total, 25).tolist()):
        cut_power(disk, str(number), blobs, at, flag)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mutant", "flag"),
    [
        pytest.param(mutants.NoDirectorySync, NO_FLUSH, id="no fsync of directories"),
        pytest.param(mutants.NoFileSync, FLUSH, id="no fsync of files"),
    ],
)
def test_kernel_finds(disk: Disk, mutant: type[mutants.Passing], flag: int, seed: int) -> None:
    """The kernel loses what the model says it may lose."""
    with pytest.raises((AssertionError, errors.IntegrityError)):
        cut_power(disk, "repository", workload.make_blobs(seed), 1 << 30, flag, over=mutant)


def test_d8_full_disk(tmp_path: pathlib.Path) -> None:
    """D8: a disk that is really full is `NoSpace`, leaves nothing, and takes what fits."""
    with devices.small(tmp_path / "disk", 4 * MIB) as folder:
        place = local.LocalBackend.create(folder / "repository")
        place.put(backend.pack(1), [bytes(MIB)])
        for _ in range(2):
            with pytest.raises(errors.NoSpace):
                place.put(backend.pack(2), [bytes(MIB)] * 8)
        assert [path for path in folder.rglob("*") if ".tmp-" in path.name] == []
        assert place.put(backend.pack(3), [bytes(MIB)])
        place.sync()
        assert {item.size for item in place.list("packs")} == {MIB}
        devices.resize(folder, 16 * MIB)
        assert place.put(backend.pack(2), [bytes(MIB)] * 8)


def test_d6_fsync_fails_and_then_succeeds(tmp_path: pathlib.Path) -> None:
    """D6: the kernel takes 40 MiB, cannot write them, says so once, and then forgets: no success is told for them."""
    mkfs = needs.require_tool("mke2fs", "e2fsprogs")
    with devices.small(tmp_path / "memory", 24 * MIB) as folder:
        image = folder / "disk.img"
        with image.open("wb") as file:
            file.truncate(200 * MIB)
        subprocess.run([mkfs, "-q", "-F", "-t", "ext4", "-O", "^has_journal", image], check=True)
        with devices.loop(image) as device, devices.mounted(device, tmp_path / "disk") as place:
            recording = recorder.RecordingFiles(files.RealFiles())
            repository = local.LocalBackend.create(place / "repository", recording)
            assert repository.put(backend.pack(1), [b"kept"])
            repository.sync()
            part = np.random.default_rng(1).bytes(MIB)
            for number in (2, 2, 3):
                recording.log.clear()
                with pytest.raises(errors.VimgvcError) as raised:
                    repository.put(backend.pack(number), [part] * 40)
                assert isinstance(raised.value, (errors.NoSpace, errors.BackendError))
                assert sum(len(operation.data) for operation in recording.log) == 40 * MIB
                assert "fsync" not in {operation.kind for operation in recording.log}
            assert [item.name for item in repository.list("packs")] == [backend.pack(1)]
            assert repository.get(backend.pack(1)) == b"kept"


def test_r20_read_only_mount(tmp_path: pathlib.Path) -> None:
    """R20: on a read-only mount everything reads and nothing is written, not even a lock; writing is told why."""
    with devices.small(tmp_path / "disk", 4 * MIB) as folder:
        root = folder / "repository"
        made = local.LocalBackend.create(root)
        made.put(protocol.CONFIG, [b"config"])
        made.put(backend.pack(1), [b"content"])
        (root / "lock").unlink()
        subprocess.run([needs.require_tool("mount", "mount"), "-o", "remount,ro", folder], check=True)
        place = local.LocalBackend.open(root)
        assert place.capabilities.read_only
        with place.lock_shared():
            assert place.get(backend.pack(1)) == b"content"
            assert list(place.list("packs")) == [protocol.Item(backend.pack(1), 7)]
            assert place.size(backend.pack(1)) == 7
        for write in (lambda: place.put(backend.pack(2), [b"x"]), lambda: place.delete(backend.pack(1))):
            with pytest.raises(errors.BackendError) as raised:
                write()
            assert (raised.value.kind, bool(raised.value.hint)) == ("EROFS", True)
        assert not place.put(backend.pack(1), [b"content"])
        with pytest.raises(errors.BackendError):
            place.lock_exclusive().__enter__()


def test_d11_no_descriptors_left(tmp_path: pathlib.Path) -> None:
    """D11: without a free descriptor reading and writing say so, and go on when there is one again."""
    place = local.LocalBackend.create(tmp_path / "repository")
    place.put(backend.pack(1), [b"x"])
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = []
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        with contextlib.suppress(OSError):
            while True:
                taken.append(os.open("/dev/null", os.O_RDONLY))
        calls: list[Callable[[], object]] = [
            lambda: place.put(backend.pack(2), [b"y"]),
            lambda: place.get(backend.pack(1)),
            lambda: list(place.list("packs")),
        ]
        for call in calls:
            with pytest.raises(errors.BackendError) as raised:
                call()
            assert raised.value.kind == errno.errorcode[errno.EMFILE]
    finally:
        for handle in taken:
            os.close(handle)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert place.put(backend.pack(2), [b"y"])
    assert len(list(place.list("packs"))) == 2
