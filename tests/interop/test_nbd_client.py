"""Our NBD client against the servers of QEMU and nbdkit."""

from __future__ import annotations

import contextlib
import json
import pathlib
from collections.abc import Iterator

import numpy as np
import pytest

from tests import nbd_peers as peers
from tests import programs
from tests.suites import reader
from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.nbd import client

pytestmark = pytest.mark.slow


class _Owned(client.Client):
    """A client that ends its server when it is closed."""

    def __init__(self, peer: contextlib.AbstractContextManager[peers.Running]) -> None:
        with contextlib.ExitStack() as stack:
            running = stack.enter_context(peer)
            super().__init__(client.unix(running.path), name="disk")
            self._stack = stack.pop_all()

    def close(self) -> None:
        super().close()
        self._stack.close()


def _write(sample: reader.Sample, path: pathlib.Path) -> None:
    with path.open("wb") as file:
        file.truncate(len(sample.content))
        for item in sample.data():
            file.seek(item.start)
            file.write(sample.content[item.start : item.end])


class TestOverQemu(reader.ReaderSuite):
    """QEMU counts in sectors: the size of an odd file is rounded up."""

    hole_grid = 4096
    sector = 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> client.Client:
        _write(sample, folder / "disk.raw")
        return _Owned(peers.qemu_nbd(folder / "disk.raw"))


class TestOverNbdkit(reader.ReaderSuite):
    hole_grid = 4096

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> client.Client:
        _write(sample, folder / "disk.raw")
        return _Owned(peers.nbdkit("file", folder / "disk.raw"))


class TestOverNbdkitInBlocks(reader.ReaderSuite):
    """A server that refuses what are not whole blocks of 512 bytes."""

    hole_grid = 4096
    sector = 512

    def open(self, sample: reader.Sample, folder: pathlib.Path) -> client.Client:
        _write(sample, folder / "disk.raw")
        policy = ["blocksize-error-policy=error", "blocksize-minimum=512", "blocksize-maximum=1048576"]
        filters = "--filter=blocksize-policy"
        return _Owned(peers.nbdkit(filters, "file", folder / "disk.raw", *policy))


class TestOverNbdkitWithoutStructuredReplies(reader.ReaderSuite):
    def open(self, sample: reader.Sample, folder: pathlib.Path) -> client.Client:
        _write(sample, folder / "disk.raw")
        return _Owned(peers.nbdkit("--no-sr", "file", folder / "disk.raw"))


@contextlib.contextmanager
def _client(peer: contextlib.AbstractContextManager[peers.Running]) -> Iterator[client.Client]:
    with peer as running, contextlib.closing(client.Client(client.unix(running.path), name="disk", timeout=60)) as disk:
        yield disk


def test_shuffled_image(seed: int, tmp_path: pathlib.Path) -> None:
    """1,000 unaligned reads of a qcow2 written in shuffled order equal those of qemu-img's raw, and extents its map."""
    rng, size = np.random.default_rng(seed), (64 << 20) + 1536
    image, raw = tmp_path / "disk.qcow2", tmp_path / "disk.raw"
    programs.qemu_img("create", "-q", "-f", "qcow2", image, str(size))
    commands = []
    for block in rng.permutation(size // 65536)[:200].tolist():
        kind = ["-P 17", "-P 254", "-z"][block % 3]
        commands.append(f"write -q {kind} {block * 65536} {int(rng.integers(1, 128)) * 512}")
    programs.qemu_io(image, "qcow2", *commands)
    programs.qemu_img("convert", "-f", "qcow2", "-O", "raw", image, raw)
    expected = raw.read_bytes()
    shown = programs.qemu_img("map", "--output=json", "-f", "qcow2", image)
    data = [(item["start"], item["start"] + item["length"]) for item in json.loads(shown) if item["data"]]
    with _client(peers.qemu_nbd(image, fmt="qcow2")) as disk:
        assert disk.size == size
        for offset, length in reader.ranges(size, seed, 1000):
            assert reader.read(disk.pread_into, offset, length) == expected[offset : offset + length]
        found = [item for item in disk.extents(0, size) if item.kind is extents.Kind.DATA]
        wanted = extents.merge(extents.Extent(start, end - start, extents.Kind.DATA) for start, end in data)
        assert found == list(wanted)


@pytest.mark.parametrize(("code", "kind"), [("EIO", "EIO"), ("ENOMEM", "ENOMEM"), ("ESHUTDOWN", "ESHUTDOWN")])
def test_l8_injected_errors(code: str, kind: str) -> None:
    """L8: every error that nbdkit injects into reads is the typed error, with the bytes concerned."""
    arguments = ["--filter=error", "pattern", "1M", f"error-pread={code}", "error-pread-rate=100%"]
    with _client(peers.nbdkit(*arguments)) as disk:
        for offset in (0, 4096, 1000):
            with pytest.raises(errors.BackendError) as raised:
                reader.read(disk.pread_into, offset, 512)
            assert raised.value.kind == kind
            assert raised.value.where == f"disk, bytes {offset} to {offset + 511}"


def test_l8_occasional_errors() -> None:
    """L8: with errors in a third of all reads every read is right or the typed error, never anything else."""
    arguments = ["--filter=error", "pattern", "16M", "error-pread-rate=33%"]
    expected = b"".join(at.to_bytes(8, "big") for at in range(0, 16 << 20, 8))
    right = wrong = 0
    with _client(peers.nbdkit(*arguments)) as disk:
        for offset, length in reader.ranges(disk.size, 1, 300):
            try:
                assert reader.read(disk.pread_into, offset, length) == expected[offset : offset + length]
                right += 1
            except errors.BackendError as error:
                wrong += error.kind == "EIO"
    assert right > 20
    assert wrong > 20
    assert right + wrong == 303


def test_l8_errors_about_extents() -> None:
    """L8: a server that cannot tell extents is an error, not a disk of data or of holes."""
    arguments = ["--filter=error", "memory", "1M", "error-extents-rate=100%"]
    with _client(peers.nbdkit(*arguments)) as disk, pytest.raises(errors.BackendError) as raised:
        list(disk.extents(0, disk.size))
    assert raised.value.kind == "EIO"


def test_l8_server_is_killed() -> None:
    """L8: a server that dies between two reads is a typed error, as is that there is none to connect to anew."""
    with peers.nbdkit("pattern", "1M") as running:
        disk = client.Client(client.unix(running.path), name="disk", timeout=60)
        assert reader.read(disk.pread_into, 8, 8) == (8).to_bytes(8, "big")
        running.process.kill()
        running.process.wait()
        for _ in range(2):
            with pytest.raises(errors.BackendError):
                reader.read(disk.pread_into, 0, 1 << 20)
        disk.close()


def test_export_that_is_not_there(tmp_path: pathlib.Path) -> None:
    """A name that the server does not have is refused with its words."""
    (tmp_path / "disk.raw").write_bytes(bytes(512))
    with peers.qemu_nbd(tmp_path / "disk.raw", "--export-name=other") as running:
        with pytest.raises(errors.BackendError) as raised:
            client.Client(client.unix(running.path), name="disk")
        assert raised.value.kind == "refused"
        with contextlib.closing(client.Client(client.unix(running.path), "other", name="disk")) as disk:
            assert disk.size == 512


def test_old_server() -> None:
    """A server that speaks only the oldest form is told so."""
    with peers.nbdkit("--oldstyle", "null", "1M") as running, pytest.raises(errors.BackendError) as raised:
        client.Client(client.unix(running.path), name="disk")
    assert raised.value.kind == "protocol"


def test_server_that_delays() -> None:
    """Threads do not wait for each other's delays; all they read is right."""
    with _client(peers.nbdkit("--filter=delay", "pattern", "1M", "delay-read=20ms")) as disk:
        assert reader.read(disk.pread_into, 0, 16) == bytes(8) + (8).to_bytes(8, "big")
    with (
        peers.nbdkit("--filter=delay", "pattern", "1M", "delay-read=30") as running,
        # On a machine that is too busy for it the handshake already takes too long.
        pytest.raises(errors.BackendError) as raised,
        contextlib.closing(client.Client(client.unix(running.path), name="disk", timeout=0.1)) as disk,
    ):
        reader.read(disk.pread_into, 0, 16)
    assert raised.value.kind == "ETIMEDOUT"
