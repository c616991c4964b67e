"""Bundles: what is put into one file comes out of it, and nothing else does."""

from __future__ import annotations

import os
import pathlib

import numpy as np
import pytest

from tests import repos
from tests.remote import places
from vimgvc import errors
from vimgvc.backends import bundle, memory, protocol
from vimgvc.model import reflog
from vimgvc.remote import fetch, graph, push, refs, seeding
from vimgvc.repo import repository

_TAG = "0123456789ab"


def _history(seed: int, commits: int = 3) -> tuple[repository.Repository, list[bytes]]:
    repo, data, states = repos.create(), places.disk(seed), []
    for number in range(commits):
        data = places.changed(data, seed + number) if number else data
        repos.commit(repo, ("vm", bytes(data)))
        states.append(bytes(data))
    return repo, states


def _write(source: repository.Repository, path: pathlib.Path, base: str | None = None) -> int:
    writer = bundle.BundleWriter.begin(path, bytes.fromhex(source.id), _TAG)
    try:
        seeding.seed(source, writer)
        far = repository.Repository(writer, source.config, source.unlocked, clock=source.clock)
        assumed = (source.resolve(base).id,) if base else ()
        wish = refs.Wish(reflog.BRANCH, "vm", "vm", source.branches()["vm"])
        push.push(source, far, [wish], push.Options(host="host", assumed=assumed), repos.Collector())
        return writer.finish()
    finally:
        writer.close()


def _read(source: repository.Repository, path: pathlib.Path) -> repository.Repository:
    return repository.Repository(bundle.BundleBackend.open(path), source.config, source.unlocked, clock=source.clock)


def _near(source: repository.Repository) -> repository.Repository:
    backend = memory.MemoryBackend()
    seeding.seed(source, backend)
    return places.far(source, backend)


def _pull(source: repository.Repository, target: repository.Repository) -> fetch.Fetched:
    return fetch.fetch(source, target, fetch.Wanted(""), fetch.Options(host="host"), repos.Collector())


def test_a_whole_bundle_is_a_repository(seed: int, tmp_path: pathlib.Path) -> None:
    """Everything in it restores and verifies as it is, and from where it was pulled to."""
    source, states = _history(seed)
    size = _write(source, tmp_path / "b")
    assert size == (tmp_path / "b").stat().st_size
    read = _read(source, tmp_path / "b")
    assert read.verify("data").problems == []
    near = _near(source)
    _pull(read, near)
    for back, state in enumerate(reversed(states)):
        assert places.restored(read, f"vm~{back}") == state
        assert places.restored(near, f"vm~{back}") == state
    assert near.verify("data").problems == []


def test_a_bundle_of_what_is_new_costs_what_is_new(seed: int, tmp_path: pathlib.Path) -> None:
    """A..B takes little more than what the commits stored, and brings A to B where A is."""
    source, states = _history(seed, 1)
    near = _near(source)
    _pull(source, near)
    before = {item.name for item in source.backend.list("packs")}
    data = bytearray(states[0])
    for number in range(3):
        data = places.changed(data, seed + number, count=5) + b"it grows"
        repos.commit(source, ("vm", bytes(data)))
    stored = sum(item.size for item in source.backend.list("packs") if item.name not in before)
    assert _write(source, tmp_path / "b", "vm~3") < 1.05 * stored + 12288
    _pull(_read(source, tmp_path / "b"), near)
    assert near.branches() == source.branches()
    assert places.restored(near, "vm") == places.restored(source, "vm")
    assert near.verify("data").problems == []


def test_what_it_builds_on_has_to_be_there(seed: int, tmp_path: pathlib.Path) -> None:
    """Where A is not, nothing is taken from A..B, and the commit that is missing is named."""
    source, _ = _history(seed)
    _write(source, tmp_path / "b", "vm~1")
    near = _near(source)
    with pytest.raises(graph.Missing) as raised:
        _pull(_read(source, tmp_path / "b"), near)
    assert raised.value.commit == source.resolve("vm~1").id
    assert near.branches() == {}
    assert list(near.backend.list("packs")) == []


def test_an_interrupted_one_is_gone_on_with(seed: int, tmp_path: pathlib.Path) -> None:
    """Cut off anywhere, it is completed by the same command, byte for byte as long as what was there is kept."""
    source, states = _history(seed, 2)
    _write(source, tmp_path / "whole")
    whole = (tmp_path / "whole").read_bytes()
    rng = np.random.default_rng(seed)
    partial = tmp_path / f".b.{_TAG}.partial"
    for cut in [0, 5, 24, 30, *rng.integers(24, len(whole), 8).tolist(), len(whole) - 16, len(whole)]:
        partial.write_bytes(whole[:cut])
        _write(source, tmp_path / "b")
        assert not partial.exists()
        read = _read(source, tmp_path / "b")
        assert places.restored(read, "vm") == states[-1], f"cut at {cut}"
        assert read.verify("data").problems == []
        (tmp_path / "b").unlink()


def test_it_never_replaces_a_file(seed: int, tmp_path: pathlib.Path) -> None:
    """A name that is taken is refused, also when it is taken while the bundle is written."""
    source, _ = _history(seed, 1)
    (tmp_path / "b").write_bytes(b"mine")
    with pytest.raises(errors.UsageError):
        _write(source, tmp_path / "b")
    writer = bundle.BundleWriter.begin(tmp_path / "c", bytes(16), _TAG)
    (tmp_path / "c").write_bytes(b"mine")
    with pytest.raises(errors.UsageError):
        writer.finish()
    writer.close()
    assert (tmp_path / "b").read_bytes() == (tmp_path / "c").read_bytes() == b"mine"


def test_a_damaged_table_or_a_cut_is_refused(seed: int, tmp_path: pathlib.Path) -> None:
    """Any byte of the header, the table or the tail that is wrong, and any cut, is told when the file is opened."""
    writer = bundle.BundleWriter.begin(tmp_path / "b", bytes(16), _TAG)
    writer.put(protocol.CONFIG, [b"{}"])
    writer.put(f"commits/{1:064x}", [b"x" * 100])
    writer.finish()
    writer.close()
    whole = (tmp_path / "b").read_bytes()
    table = int.from_bytes(whole[-16:-8], "little")
    for at in [*range(8), *range(table, len(whole))]:
        (tmp_path / "c").write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        with pytest.raises((errors.IntegrityError, errors.NoRepository)):
            bundle.BundleBackend.open(tmp_path / "c")
    for cut in range(0, len(whole), 7):
        (tmp_path / "c").write_bytes(whole[:cut])
        with pytest.raises((errors.IntegrityError, errors.NoRepository)):
            bundle.BundleBackend.open(tmp_path / "c")


def test_a_finished_one_is_never_changed(seed: int, tmp_path: pathlib.Path) -> None:
    """Whatever would write is refused, and every byte stays."""
    source, _ = _history(seed, 1)
    _write(source, tmp_path / "b")
    before = (tmp_path / "b").read_bytes()
    read = _read(source, tmp_path / "b")
    for change in (
        lambda: read.backend.put(f"commits/{1:064x}", [b""]),
        lambda: read.backend.delete("config"),
        lambda: read.backend.set_aside("config"),
        read.backend.lock_exclusive,
        lambda: repos.commit(read, ("vm", b"other")),
        read.collect,
    ):
        with pytest.raises(errors.UsageError):
            change()
    assert (tmp_path / "b").read_bytes() == before
    with pytest.raises(errors.NotFound):
        read.backend.get(f"commits/{1:064x}")
    with pytest.raises(errors.IntegrityError):
        read.backend.get("config", 0, 10_000)


def test_names_and_directories_are_no_bundles(tmp_path: pathlib.Path) -> None:
    """Only a regular file that begins like one is taken for a bundle; a pipe is not opened."""
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"vimgvc")
    for path in (tmp_path, tmp_path / "pipe", tmp_path / "file", tmp_path / "nothing"):
        assert not bundle.is_bundle(path)
    with pytest.raises(errors.NoRepository):
        bundle.BundleBackend.open(tmp_path / "file")
