"""A backend whose small blobs are kept on this machine passes the suite, and is believed only where it is right."""

from __future__ import annotations

import pathlib

import pytest
from blake3 import blake3

from tests.remote import places
from tests.suites import backend as suite
from vimgvc import errors
from vimgvc.backends import cached, memory, protocol


class TestCached(suite.BackendSuite):
    def create(self, folder: pathlib.Path) -> cached.Cached:
        return cached.Cached(memory.MemoryBackend(), folder / "cache")

    def aside(self, backend: protocol.Backend) -> dict[str, bytes]:
        assert isinstance(backend, cached.Cached)
        assert isinstance(backend.inner, memory.MemoryBackend)
        return backend.inner.aside


def _sealed(body: bytes) -> bytes:
    """Something that ends with its own hash, as sealed objects do."""
    return body + blake3(body).digest()


def _commit(number: int) -> str:
    return f"commits/{number:064x}"


def _pack(blob: bytes) -> str:
    name = blake3(blob).hexdigest()
    return f"packs/{name[:2]}/{name}"


def _pair(tmp_path: pathlib.Path) -> tuple[places.Far, cached.Cached]:
    far = places.Far()
    return far, cached.Cached(far, tmp_path / "cache")


def test_what_was_read_is_not_read_again(tmp_path: pathlib.Path) -> None:
    """A commit is fetched once, also by a later process; a large index object each time."""
    far, _ = _pair(tmp_path)
    far.put(_commit(1), [_sealed(b"one")])
    large = _sealed(bytes(cached.SMALL))
    far.put(f"index/{1:064x}", [large])
    far.calls.clear()
    for _ in range(2):
        again = cached.Cached(far, tmp_path / "cache")
        assert again.get(_commit(1)) == _sealed(b"one")
        assert again.get(_commit(1), 1, 2) == b"ne"
        assert again.get(f"index/{1:064x}") == large
    assert [name.partition("/")[0] for operation, name in far.calls if operation == "get"] == [
        "commits",
        *["index"] * 2,
    ]


def test_what_was_put_is_kept(tmp_path: pathlib.Path) -> None:
    """What this machine stored itself is not fetched to be read."""
    far, kept = _pair(tmp_path)
    kept.put(_commit(1), [b"on", b"e" + blake3(b"one").digest()])
    far.calls.clear()
    assert kept.get(_commit(1)) == _sealed(b"one")
    assert far.calls == []


def test_d17_what_is_damaged_here_is_read_again(tmp_path: pathlib.Path) -> None:
    """A copy with a wrong bit, cut short or empty is dropped, and the right one kept in its place."""
    far, kept = _pair(tmp_path)
    far.put(_commit(1), [_sealed(b"one")])
    for damage in (b"", _sealed(b"one")[:-1], bytes([1]) + _sealed(b"one")[1:]):
        kept.get(_commit(1))
        (tmp_path / "cache" / _commit(1)).write_bytes(damage)
        assert kept.get(_commit(1)) == _sealed(b"one")
        assert (tmp_path / "cache" / _commit(1)).read_bytes() == _sealed(b"one")


def test_what_is_damaged_there_is_not_kept(tmp_path: pathlib.Path) -> None:
    """Wrong bytes are handed on to whoever checks them, and read again the next time."""
    far, kept = _pair(tmp_path)
    far.put(_commit(1), [_sealed(b"one")[:-1] + b"\0"])
    assert kept.get(_commit(1)) == far.get(_commit(1))
    far.replace(_commit(1), _sealed(b"one"))
    assert kept.get(_commit(1)) == _sealed(b"one")


def test_n7_absence_is_asked_each_time(tmp_path: pathlib.Path) -> None:
    """Whether a blob is there is never answered from a copy, and that it is not is never kept."""
    far, kept = _pair(tmp_path)
    with pytest.raises(errors.NotFound):
        kept.get(_commit(1))
    far.put(_commit(1), [_sealed(b"one")])
    assert kept.get(_commit(1)) == _sealed(b"one")
    far.replace(_commit(1), None)
    with pytest.raises(errors.NotFound):
        kept.size(_commit(1))
    assert list(kept.list("commits")) == []


def test_small_packs_are_read_whole(tmp_path: pathlib.Path) -> None:
    """Of a small pack many parts cost one call; of a large one, or one that moves on, nothing is kept."""
    far, kept = _pair(tmp_path)
    small, large = b"s" * 5000, b"l" * (cached.SMALL + 1)
    for blob in (small, large):
        far.put(_pack(blob), [blob])
    list(kept.list("packs"))
    far.calls.clear()
    assert kept.get(_pack(small), 0, len(small)) == small
    assert not (tmp_path / "cache").exists()
    assert kept.get(_pack(small), 10, 5) == small[:5]
    assert kept.get(_pack(small), 4000, 1000) == small[:1000]
    with pytest.raises(errors.IntegrityError):
        kept.get(_pack(small), 4000, 1001)
    assert kept.get(_pack(large), 10, 5) == large[:5]
    assert len([call for call in far.calls if call[0] == "get"]) == 3


def test_the_directory_stays_small(tmp_path: pathlib.Path) -> None:
    """What was kept first goes when all together take too much."""
    far, kept = _pair(tmp_path)
    for number in range(10):
        far.put(_commit(number), [_sealed(bytes(1000))])
        kept.get(_commit(number))
    kept.trim(3 * 1032)
    assert len(list((tmp_path / "cache" / "commits").iterdir())) == 3


def test_a_directory_that_cannot_be_used_costs_time_only(tmp_path: pathlib.Path) -> None:
    """Where nothing can be kept everything is read from the place."""
    (tmp_path / "cache").write_bytes(b"in the way")
    far, kept = _pair(tmp_path)
    kept.put(_commit(1), [_sealed(b"one")])
    assert kept.get(_commit(1)) == _sealed(b"one")
    kept.trim()
    kept.delete(_commit(1))
    assert far.content == {}
