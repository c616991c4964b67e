"""The reader that was written from specs/ alone restores what the package wrote, or refuses it."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from collections.abc import Iterator

import independent_reader as reader
import numpy as np
import pytest

from tests import repos
from vimgvc.backends import local
from vimgvc.codec import keys, recovery
from vimgvc.disk import extents
from vimgvc.disk import memory as disk_memory
from vimgvc.pipeline import ingest
from vimgvc.repo import repository

_WINDOW = 4 << 20
_SCRIPT = pathlib.Path(reader.__file__)


def _disk(seed: int, size: int) -> bytes:
    """Data, zeros and repetitions, in runs of any length."""
    rng = np.random.default_rng(seed)
    pieces, length = [], 0
    while length < size:
        piece = int(rng.integers(1, 40 * 4096)) if rng.random() < 0.5 else 4096 * int(rng.integers(1, 90))
        kinds = [bytes(piece), rng.bytes(piece), bytes([int(rng.integers(256))]) * piece]
        pieces.append(kinds[int(rng.integers(3))])
        length += piece
    return b"".join(pieces)[:size]


def _create(path: pathlib.Path, average: int = 65536) -> repository.Repository:
    return repos.create(local.LocalBackend.create(path), average)


def _open(path: pathlib.Path) -> reader.Repository:
    return reader.Repository(path, repos.SECRET.kind, repos.SECRET.value)


def _restored(found: reader.Repository, rev: str, name: str, directory: pathlib.Path) -> bytes:
    target = directory / f"restored-{len(list(directory.iterdir()))}"
    found.restore(found.resolve(rev), name, target)
    return target.read_bytes()


@pytest.mark.slow
@pytest.mark.parametrize("average", [16384, 32768, 65536])
def test_sizes(seed: int, average: int, tmp_path: pathlib.Path) -> None:
    """Disks of sizes at every edge come back byte for byte."""
    sizes = [0, 1, 511, 4095, 4096, 4097, _WINDOW - 1, _WINDOW, _WINDOW + 1, 3 * _WINDOW + 12345]
    disks = [(f"disk{size}", _disk(seed + size, size)) for size in sizes]
    repos.commit(_create(tmp_path / "repo", average), *disks)
    found = _open(tmp_path / "repo")
    for name, content in disks:
        assert _restored(found, "vm", name, tmp_path) == content


@pytest.mark.slow
def test_history(seed: int, tmp_path: pathlib.Path) -> None:
    """Every commit of a series is listed, latest first, and restores to its own state, by branch, ~N and prefix."""
    repo = _create(tmp_path / "repo")
    states = []
    content = bytearray(_disk(seed, 2 * _WINDOW + 100))
    for number in range(4):
        content[number * 1_000_000 : number * 1_000_000 + 5000] = repos.noise(seed + number, 5000)
        states.append((repos.commit(repo, ("vm", bytes(content))).commit, bytes(content)))
    other = repos.commit(repo, ("a", b"a"), ("b", b""), branch="other").commit
    found = _open(tmp_path / "repo")

    assert [item["id"] for item in found.history()] == [other.id, *(made.id for made, _ in reversed(states))]
    assert found.names() == {"vm": states[-1][0].id, "other": other.id}
    for back, (made, state) in enumerate(reversed(states)):
        assert found.resolve(f"vm~{back}")["id"] == made.id
        assert _restored(found, made.id[:12], "", tmp_path) == state
    assert _restored(found, "other", "a", tmp_path) == b"a"
    assert _restored(found, "other", "b", tmp_path) == b""


def test_levels_of_the_tree(tmp_path: pathlib.Path) -> None:
    """A sparse disk whose manifest has three levels above its leaves, with data in few windows, comes back."""
    size = 4097 * _WINDOW + 5
    places = [0, 63 * _WINDOW, 64 * _WINDOW + 4096, 4095 * _WINDOW, 4097 * _WINDOW]
    pieces = {at: repos.noise(at, 5 if at == places[-1] else 8192) for at in places}
    repo = _create(tmp_path / "repo")
    source = ingest.Source("vm", _Sparse(size, pieces), {"format": "raw"})
    repo.commit([source], repository.CommitRequest("vm", "sparse", "tester", "host"))

    found = _open(tmp_path / "repo")
    found.restore(found.resolve("vm"), "vm", tmp_path / "restored")
    assert (tmp_path / "restored").stat().st_size == size
    with (tmp_path / "restored").open("rb") as file:
        for at, piece in pieces.items():
            file.seek(at)
            assert file.read(len(piece)) == piece
        assert os.lseek(file.fileno(), 65 * _WINDOW, os.SEEK_DATA) >= 4095 * _WINDOW


class _Sparse(disk_memory.MemoryDisk):
    """Data in few places of a disk that does not fit into memory."""

    def __init__(self, size: int, pieces: dict[int, bytes]) -> None:
        super().__init__(0)
        self._size = size
        self._pieces = pieces

    @property
    def size(self) -> int:
        return self._size

    def pread_into(self, offset: int, buffer: memoryview) -> None:
        buffer[:] = bytes(len(buffer))
        for at, piece in self._pieces.items():
            start, end = max(at, offset), min(at + len(piece), offset + len(buffer))
            if start < end:
                buffer[start - offset : end - offset] = piece[start - at : end - at]

    def extents(self, offset: int, length: int) -> Iterator[extents.Extent]:
        found, at = [], 0
        for start, piece in self._pieces.items():
            if start > at:
                found.append(extents.Extent(at, start - at, extents.Kind.HOLE))
            found.append(extents.Extent(start, len(piece), extents.Kind.DATA))
            at = start + len(piece)
        if at < self._size:
            found.append(extents.Extent(at, self._size - at, extents.Kind.HOLE))
        return extents.clip(found, offset, length)


@pytest.mark.slow
def test_every_kind_of_secret(tmp_path: pathlib.Path) -> None:
    """Passphrase, key file and recovery code open the repository from the command line, and only the right ones."""
    repo = _create(tmp_path / "repo")
    repos.commit(repo, ("vm", b"content"))
    code = recovery.make_recovery_code(os.urandom)
    keyfile = os.urandom(64)
    accented = keys.Secret(keys.PASSPHRASE, "Gru\u0308ße".encode())
    for secret in (recovery.parse_recovery_code(code), keys.Secret(keys.KEYFILE, keyfile), accented):
        repo.keyring.add(
            repo.unlocked, secret, label="", created="2026-01-02T03:04:05Z", rng=os.urandom, profile=keys.CHEAPEST
        )
    good = {
        "passphrase": [repos.SECRET.value, repos.SECRET.value + b"\n", "Grüße\r\n".encode()],
        "recovery": [code.encode(), code.lower().replace("-", " ").encode() + b"\n"],
        "keyfile": [keyfile],
    }
    wrong = code[:-1] + ("0" if code[-1] != "0" else "1")
    bad = {"passphrase": [b"other", b"", keyfile], "recovery": [wrong.encode(), b"x"], "keyfile": [bytes(64)]}
    for kind, values in good.items():
        for at, value in enumerate(values):
            (tmp_path / "secret").write_bytes(value)
            target = tmp_path / f"{kind}{at}"
            done = _cli(tmp_path, f"{kind}:{tmp_path / 'secret'}", "restore", "vm:vm", str(target))
            assert (done.returncode, done.stderr) == (0, "")
            assert target.read_bytes() == b"content"
    for kind, values in bad.items():
        for value in values:
            (tmp_path / "secret").write_bytes(value)
            done = _cli(tmp_path, f"{kind}:{tmp_path / 'secret'}", "log")
            assert done.returncode == 1
            assert "Traceback" not in done.stderr
            assert done.stderr.startswith("independent_reader.py: ")


def _cli(directory: pathlib.Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(_SCRIPT), str(directory / "repo"), *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False)


def test_log(tmp_path: pathlib.Path) -> None:
    """The log names commits with time, branch and message."""
    made = repos.commit(_create(tmp_path / "repo"), ("vm", b"x")).commit
    (tmp_path / "secret").write_bytes(repos.SECRET.value)
    done = _cli(tmp_path, f"passphrase:{tmp_path / 'secret'}", "log")
    assert done.stdout == f"{made.id} {made.time} vm state of vm\n"


def test_without_what_can_be_rebuilt(seed: int, tmp_path: pathlib.Path) -> None:
    """Index objects, configuration, lock, one copy of each slot and one copy of each table are not needed."""
    repo = _create(tmp_path / "repo")
    content = _disk(seed, _WINDOW + 1)
    repos.commit(repo, ("vm", content))
    for path in [*(tmp_path / "repo" / "index").iterdir(), tmp_path / "repo" / "config", tmp_path / "repo" / "lock"]:
        path.unlink(missing_ok=True)
    for path in (tmp_path / "repo" / "keys").glob("*-0"):
        _rewrite(path, path.read_bytes()[:-1])
    for path in (tmp_path / "repo" / "packs").glob("*/*"):
        blob = bytearray(path.read_bytes())
        length = int.from_bytes(blob[-16:-12], "little")
        blob[-16 - length - 50] ^= 1
        _rewrite(path, bytes(blob))
    assert _restored(_open(tmp_path / "repo"), "vm", "vm", tmp_path) == content


def _rewrite(path: pathlib.Path, content: bytes) -> None:
    path.unlink()
    path.write_bytes(content)


@pytest.mark.slow
def test_damage_is_not_returned(seed: int, tmp_path: pathlib.Path) -> None:
    """With any byte of any file changed, the reader restores the right bytes or refuses."""
    content = _disk(seed, 300_000)
    repos.commit(_create(tmp_path / "repo"), ("vm", content))
    rng = np.random.default_rng(seed)
    refused = 0
    for path in sorted(path for path in (tmp_path / "repo").rglob("*") if path.is_file() and path.stat().st_size):
        good = path.read_bytes()
        for _ in range(8):
            bad = bytearray(good)
            bad[int(rng.integers(len(bad)))] ^= 1 << int(rng.integers(8))
            _rewrite(path, bytes(bad))
            try:
                assert _restored(_open(tmp_path / "repo"), "vm", "vm", tmp_path) == content
            except reader.BAD:
                refused += 1
        _rewrite(path, good)
    assert refused >= 16
    assert _restored(_open(tmp_path / "repo"), "vm", "vm", tmp_path) == content
