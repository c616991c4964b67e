"""Conformance of a `backends.protocol.Backend`.

Adopt it with a class in a test module:

    class TestMyBackend(backend.BackendSuite):
        def create(self, folder):   # an empty Backend
            ...
        def aside(self, backend):   # what was set aside there
            ...
"""

from __future__ import annotations

import abc
import concurrent.futures
import pathlib
import threading
from collections.abc import Iterable

import numpy as np
import pytest

from vimgvc import errors
from vimgvc.backends import protocol

BAD_NAMES = [
    "",
    "x",
    "lock",
    "packs",
    "packs/",
    "/config",
    "config/",
    "CONFIG",
    "config\n",
    "../config",
    "index/../config",
    f"index/{'A' * 64}",
    f"index/{'a' * 63}",
    f"index/{'a' * 64}\n",
    f"index/{'a' * 65}",
    f"index/{'a' * 64}/b",
    f"index//{'a' * 64}",
    f"index\\{'a' * 64}",
    f"packs/{'a' * 64}",
    f"packs/bb/{'a' * 64}",
    f"packs/aa/{'a' * 64}~",
    f"keys/{'a' * 32}-2",
    f"keys/{'a' * 32}",
    f"refs/{'a' * 32}",
    f"refs/{'a' * 32}/{'1' * 15}",
    f"other/{'a' * 64}",
    "packs/.tmp-0123456789abcdef",
    f"gc/{'0' * 16}",
    f"gc/{'0' * 16}-other",
    f"gc/{'0' * 16}-promised",
    f"forgotten/{'a' * 32}",
    f"inbox/{'a' * 32}",
    f"inbox/{'a' * 32}/lock",
    f"inbox/{'a' * 32}/packs/aa/{'a' * 64}",
    f"inbox/{'a' * 32}/refs-{'a' * 64}",
    f"quarantine/index/{'a' * 64}",
    "".join(chr(code) for code in (0x41A, 0x43E)),
    f"index/{chr(0x661) * 64}",  # Arabic digits
]
BAD_AREAS = [
    "",
    "config",
    "other",
    "packs/",
    "packs/g0",
    f"packs/aa/{'a' * 64}",
    "../packs",
    f"index/{'a' * 64}",
    "index/",
]


def pack(number: int) -> str:
    name = f"{number:064x}"[::-1]
    return f"packs/{name[:2]}/{name}"


def entry(blind: int, sequence: int) -> str:
    return f"refs/{blind:032x}/{sequence:016x}"


def names(found: Iterable[protocol.Item]) -> list[str]:
    return sorted(item.name for item in found)


class BackendSuite(abc.ABC):
    @abc.abstractmethod
    def create(self, folder: pathlib.Path) -> protocol.Backend:
        """An empty place for blobs; `folder` is an empty directory for whoever needs one."""

    @abc.abstractmethod
    def aside(self, backend: protocol.Backend) -> dict[str, bytes]:
        """What was set aside: name below `quarantine/` and content."""

    @pytest.fixture
    def backend(self, tmp_path: pathlib.Path) -> protocol.Backend:
        return self.create(tmp_path)

    def test_put_get(self, backend: protocol.Backend) -> None:
        """What was put is got, for every kind of name and every kind of buffer."""
        parts: list[protocol.Buffer] = [b"one", bytearray(b"two"), b"", memoryview(b"-three-")[1:-1], b"four"]
        every = [protocol.CONFIG, pack(1), entry(1, 1), f"index/{2:064x}", f"commits/{3:064x}", f"keys/{4:032x}-1"]
        for name in every:
            assert backend.put(name, parts)
            assert (backend.get(name), backend.size(name)) == (b"onetwothreefour", 15)

    def test_wide_buffers(self, backend: protocol.Backend) -> None:
        """A part counts in bytes, whatever the elements of its buffer are."""
        words = memoryview(bytes(range(48)))
        assert backend.put(pack(1), [words.cast("Q"), words.cast("Q", (2, 3)), words[:0]])
        assert backend.get(pack(1)) == bytes(words) * 2

    @pytest.mark.parametrize("parts", [[], [b""], [b"", memoryview(b"")]])
    def test_empty(self, backend: protocol.Backend, parts: list[protocol.Buffer]) -> None:
        """A blob may be empty; it exists all the same."""
        assert backend.put(pack(1), parts)
        assert not backend.put(pack(1), [b"x"])
        assert (backend.get(pack(1)), backend.size(pack(1))) == (b"", 0)
        assert list(backend.list("packs")) == [protocol.Item(pack(1), 0)]

    def test_big(self, backend: protocol.Backend, seed: int) -> None:
        """40 MiB in 2,000 parts arrive in order; the buffers are the caller's again after the return."""
        buffer = bytearray(np.random.default_rng(seed).bytes(40 << 20))
        expected = bytes(buffer)
        step = -(-len(buffer) // 2000)
        view = memoryview(buffer)
        assert backend.put(pack(1), [view[at : at + step] for at in range(0, len(buffer), step)])
        buffer[:] = bytes(len(buffer))
        assert backend.size(pack(1)) == 40 << 20
        assert backend.get(pack(1)) == expected

    def test_put_if_absent(self, backend: protocol.Backend) -> None:
        """A name is given once: a second put says so and changes nothing, longer or shorter."""
        assert backend.put(pack(1), [b"first"])
        for other in (b"second, longer", b"2nd", b""):
            assert not backend.put(pack(1), [other])
            assert backend.get(pack(1)) == b"first"

    def test_race(self, backend: protocol.Backend) -> None:
        """Of 8 threads that put one name at once, exactly one is told that it did, and its bytes are there."""
        for sequence in range(25):
            name, start = entry(1, sequence), threading.Barrier(8)

            def put(writer: int, name: str = name, start: threading.Barrier = start) -> bool:
                start.wait()
                return backend.put(name, [f"writer {writer}".encode()])

            with concurrent.futures.ThreadPoolExecutor(8) as threads:
                won = list(threads.map(put, range(8)))
            assert won.count(True) == 1
            assert backend.get(name) == f"writer {won.index(True)}".encode()
        assert len(list(backend.list("refs"))) == 25

    def test_ranges(self, backend: protocol.Backend, seed: int) -> None:
        """A range is exactly what was asked for, at every border."""
        rng = np.random.default_rng(seed)
        blob = rng.bytes(100_003)
        backend.put(pack(1), [blob])
        borders = [(0, 0), (0, 1), (len(blob), 0), (len(blob) - 1, 1), (0, len(blob))]
        drawn = [sorted(rng.integers(0, len(blob) + 1, 2).tolist()) for _ in range(200)]
        for offset, length in borders + [(low, high - low) for low, high in drawn]:
            assert backend.get(pack(1), offset, length) == blob[offset : offset + length]
        assert backend.get(pack(1), 99_999) == blob[99_999:]
        assert backend.get(pack(1), len(blob)) == b""

    @pytest.mark.parametrize(
        ("offset", "length"),
        [(0, 11), (10, 1), (11, 0), (11, None), (5, 6), (0, 1 << 50), (1 << 50, 1), (1 << 50, None)],
    )
    def test_beyond_the_end(self, backend: protocol.Backend, offset: int, length: int | None) -> None:
        """A range that the blob does not have is damage, however far out; it is never short."""
        backend.put(pack(1), [b"0123456789"])
        with pytest.raises(errors.IntegrityError) as raised:
            backend.get(pack(1), offset, length)
        assert raised.value.where == pack(1)

    @pytest.mark.parametrize(("offset", "length"), [(-1, None), (-1, 1), (0, -1)])
    def test_negative_range(self, backend: protocol.Backend, offset: int, length: int | None) -> None:
        """A negative offset or length is a mistake of the program."""
        backend.put(pack(1), [b"0123456789"])
        with pytest.raises(ValueError, match="not a range"):
            backend.get(pack(1), offset, length)

    def test_missing(self, backend: protocol.Backend) -> None:
        """What is not there is not found, by name."""
        for name in (pack(1), entry(1, 1), protocol.CONFIG):
            for look in (backend.get, backend.size):
                with pytest.raises(errors.NotFound) as raised:
                    look(name)
                assert raised.value.name == name

    def test_delete(self, backend: protocol.Backend) -> None:
        """A deleted blob is gone and its name free; deleting what is absent is fine."""
        backend.delete(pack(1))
        backend.put(pack(1), [b"old"])
        backend.put(pack(2), [b"kept"])
        backend.delete(pack(1))
        backend.delete(pack(1))
        with pytest.raises(errors.NotFound):
            backend.get(pack(1))
        assert names(backend.list("packs")) == [pack(2)]
        assert backend.put(pack(1), [b"new"])
        assert backend.get(pack(1)) == b"new"

    def test_delete_all(self, backend: protocol.Backend) -> None:
        """Many at once: those that are named are gone, absent ones are fine, the others stay."""
        for number in range(6):
            backend.put(pack(number), [b"x"])
        backend.put(entry(1, 1), [b"y"])
        backend.delete_all([pack(0), pack(3), pack(77), entry(1, 1)])
        assert names(backend.list("packs")) == sorted(pack(number) for number in (1, 2, 4, 5))
        assert names(backend.list("refs")) == []
        backend.delete_all([])

    def test_set_aside(self, backend: protocol.Backend) -> None:
        """What is set aside is in no listing and cannot be read; its name is free again, as often as one likes."""
        backend.set_aside(pack(1))
        for content in (b"first", b"second", b"third"):
            assert backend.put(pack(1), [content])
            backend.set_aside(pack(1))
            with pytest.raises(errors.NotFound):
                backend.get(pack(1))
            assert names(backend.list("packs")) == []
        assert sorted(self.aside(backend).values()) == [b"first", b"second", b"third"]

    def test_later_areas(self, backend: protocol.Backend) -> None:
        """Areas of later versions hold blobs like the others."""
        for name in (f"forgotten/{'a' * 64}", f"gc/{'0' * 16}-condemn", f"gc/{'0' * 15}1-sweep"):
            assert backend.put(name, [b"x"])
            assert not backend.put(name, [b"y"])
            assert backend.get(name) == b"x"
        assert len(names(backend.list("gc"))) == 2
        delivered = [f"inbox/{'b' * 32}/{name}" for name in ("done", "key", f"packs-{'a' * 64}")]
        for name in [*delivered, f"inbox/{'c' * 32}/commits-{'a' * 64}"]:
            assert backend.put(name, [b"xy"])
            assert (backend.get(name), backend.size(name)) == (b"xy", 2)
        assert names(backend.list(f"inbox/{'b' * 32}")) == delivered
        assert len(names(backend.list("inbox"))) == 4

    def test_list(self, backend: protocol.Backend) -> None:
        """A listing has every blob of the area and of no other, with its size."""
        for area in protocol.AREAS:
            assert list(backend.list(area)) == []
        assert list(backend.list("refs/" + "0" * 32)) == []
        packs = {pack(number): number for number in range(1, 40)}
        entries = [entry(blind, sequence) for blind in range(3) for sequence in range(4)]
        for name, size in packs.items():
            backend.put(name, [bytes(size)])
        for name in [*entries, protocol.CONFIG, f"index/{1:064x}"]:
            backend.put(name, [b"x"])
        assert sorted((item.name, item.size) for item in backend.list("packs")) == sorted(packs.items())
        assert names(backend.list("packs/10")) == [name for name in packs if name.startswith("packs/10/")]
        assert names(backend.list("refs")) == entries
        assert names(backend.list(f"refs/{1:032x}")) == entries[4:8]
        assert names(backend.list("commits")) == []

    @pytest.mark.parametrize("name", BAD_NAMES)
    def test_bad_names(self, backend: protocol.Backend, name: str) -> None:
        """A name that the format does not know is refused by every method, and nothing is made of it."""
        for use in (lambda: backend.put(name, [b"x"]), lambda: backend.get(name), lambda: backend.size(name)):
            with pytest.raises(ValueError, match="not a blob name"):
                use()
        with pytest.raises(ValueError, match="not a blob name"):
            backend.delete(name)

    @pytest.mark.parametrize("area", BAD_AREAS)
    def test_bad_areas(self, backend: protocol.Backend, area: str) -> None:
        """Only an area, or a directory in one, can be listed."""
        with pytest.raises(ValueError, match="not an area"):
            list(backend.list(area))

    def test_concurrent_use(self, backend: protocol.Backend) -> None:
        """Threads that put, sync, get and list at once see only whole blobs, and every one of their own."""

        def work(worker: int) -> None:
            for number in range(20):
                name, blob = pack(worker * 100 + number + 1), f"{worker} {number} ".encode() * 500
                assert backend.put(name, [blob[:100], blob[100:]])
                backend.sync()
                assert backend.get(name) == blob
                if number % 10 == 0:
                    listed = {item.name: item.size for item in backend.list("packs")}
                    assert listed[name] == len(blob)
                    assert min(listed.values()) >= 1000

        with concurrent.futures.ThreadPoolExecutor(6) as threads:
            for done in [threads.submit(work, worker) for worker in range(6)]:
                done.result()
        backend.sync()
        assert len(list(backend.list("packs"))) == 120

    def test_capabilities(self, backend: protocol.Backend) -> None:
        """What can be written to says so, and that it creates exclusively; its address is not empty."""
        assert (backend.capabilities.read_only, backend.capabilities.exclusive_create) == (False, True)
        assert backend.url
