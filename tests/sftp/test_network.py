"""What the network does to a backup over SFTP: connections that break, stall, or garble what they carry."""

from __future__ import annotations

import concurrent.futures
import os
import pathlib
import threading

import numpy as np
import pytest

from tests.servers import processes, proxy
from tests.sftp.conftest import Open
from tests.suites import backend
from vimgvc import errors
from vimgvc.backends import sftp_link

#: What one connection carries at most before a fault: the handshake is some 5 KB, the blobs are half a MiB.
_REACH = 600_000


class TestResets:
    def test_n1_reset_at_any_byte(self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path, seed: int) -> None:
        """N1: connections that are reset at a random byte of a request or an answer cost nothing but time."""
        rng = np.random.default_rng(seed)
        place = connect(root, port=flaky.port)
        assert place.put(backend.pack(1), [b"x"])  # before that nothing is repeated for long
        flaky.faults.extend(
            proxy.Fault("reset", "up" if rng.integers(2) else "down", int(rng.integers(0, _REACH))) for _ in range(12)
        )
        flaky.cut()
        blobs: dict[str, bytes] = {}
        while flaky.faults:
            name, blob = backend.pack(len(blobs) + 2), rng.bytes(int(rng.integers(1, 500_000)))
            assert place.put(name, [blob[:7], blob[7:]])
            assert not place.put(name, [b"other"])
            place.sync()
            assert place.get(name) == blob
            blobs[name] = blob
        other = connect(root)
        assert {name: other.get(name) for name in blobs} == blobs
        assert backend.names(other.list("packs")) == sorted([backend.pack(1), *blobs])

    def test_n1_lost_answer(self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path, seed: int) -> None:
        """N1: whichever answer gets lost, also that to giving the name, the blob is ours: True, not False."""
        rng = np.random.default_rng(seed)
        place = connect(root, port=flaky.port)
        for number in range(10):
            place.size(backend.entry(2, 1)) if number else place.put(backend.entry(2, 1), [b"x"])
            flaky.cut_after(number * 50)
            name, blob = backend.entry(1, number), rng.bytes(100)
            assert place.put(name, [blob])
            assert place.get(name) == blob
        assert len(flaky.carried) > 5

    def test_n1_others_name(self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path) -> None:
        """N1: a lost answer makes nobody take another writer's blob for its own."""
        ours, theirs = connect(root, port=flaky.port), connect(root)
        assert ours.put(backend.pack(1), [b"warm"])
        assert theirs.put(backend.entry(1, 1), [b"them"])
        flaky.cut()
        assert not ours.put(backend.entry(1, 1), [b"us!!"])
        assert ours.get(backend.entry(1, 1)) == b"them"

    def test_n1_gives_up(self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path) -> None:
        """N1: a server that does not come back is an error with a hint after a bounded time, not for ever."""
        patience = sftp_link.Patience(connect=5, give_up=0.5, pause=0.01, longest_pause=0.1)
        place = connect(root, port=flaky.port, patience=patience)
        place.put(backend.pack(1), [b"x"])
        flaky.faults.extend([proxy.Fault("reset", "up")] * 1000)
        flaky.cut()
        with pytest.raises(errors.RemoteError) as raised:
            place.get(backend.pack(1))
        assert (raised.value.kind, raised.value.exit_code) == ("lost", 25)
        assert "again" in raised.value.hint

    def test_n1_nobody_there(self, connect: Open, root: pathlib.Path) -> None:
        """Before there ever was a connection nothing is repeated for long: the address may be wrong."""
        port = processes.free_port()
        patience = sftp_link.Patience(connect=5, give_up=10_000, pause=0.01)
        with pytest.raises(errors.RemoteError, match="refused") as raised:
            connect(root, port=port, patience=patience).size(backend.pack(1))
        assert raised.value.kind == "unreachable"

    def test_n1_many_at_once(self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path, seed: int) -> None:
        """N1: when a connection breaks under 8 threads, each of them goes on."""
        rng = np.random.default_rng(seed)
        place = connect(root, port=flaky.port)
        flaky.faults.append(None)
        flaky.faults.extend(proxy.Fault("reset", "up", int(rng.integers(50_000, _REACH))) for _ in range(4))
        blobs = {backend.pack(number + 1): rng.bytes(60_000) for number in range(48)}
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            done = [threads.submit(place.put, name, [blob]) for name, blob in blobs.items()]
            flaky.cut()
            assert all(one.result() for one in done)
            assert dict(zip(blobs, threads.map(place.get, blobs), strict=True)) == blobs


class TestChannels:
    @pytest.mark.parametrize(
        ("kind", "least", "most"), [("plain", 3, 8), ("no_sync", 2, 4), ("three_channels", 2, 3), ("one_channel", 1, 1)]
    )
    def test_large_blobs_are_spread(self, connect: Open, root: pathlib.Path, kind: str, least: int, most: int) -> None:
        """Large blobs go over several channels, as far as the server allows, and arrive whole."""
        place = connect(root, kind)
        blobs = {backend.pack(number): os.urandom(17 << 20) for number in range(1, 5)}
        with concurrent.futures.ThreadPoolExecutor(8) as threads:
            assert all(threads.map(lambda name: place.put(name, [blobs[name]]), blobs))
            assert least <= len(place._link._channels) <= most
            assert [*threads.map(place.get, blobs)] == [*blobs.values()]


class TestStalls:
    @pytest.mark.parametrize("side", ["up", "down"])
    def test_n2_stall(self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path, side: proxy.Side) -> None:
        """N2: when nothing comes any more the connection is given up, and what was under way repeated."""
        patience = sftp_link.Patience(connect=20, stall=0.8, give_up=60, pause=0.01)
        place = connect(root, port=flaky.port, patience=patience)
        flaky.faults.extend([None, proxy.Fault("stall", side, 100_000 if side == "up" else 4_500)])
        place.put(backend.pack(1), [b"x"])
        flaky.cut()
        blob = os.urandom(300_000)
        assert place.put(backend.pack(2), [blob])
        assert place.get(backend.pack(2)) == blob
        assert len(flaky.carried) == 3

    def test_n2_closed_meanwhile(self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path) -> None:
        """N2: `close` ends what waits for a dead server at once; whoever waited is told, and no thread stays."""
        place = connect(root, port=flaky.port, patience=sftp_link.Patience(stall=10_000))
        place.put(backend.pack(1), [b"x"])
        flaky.faults.append(proxy.Fault("stall", "up"))
        flaky.cut()
        with concurrent.futures.ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(place.get, backend.pack(1))
            while flaky.faults:
                concurrent.futures.wait([waiting], 0.01)
            place.close()
            with pytest.raises(errors.Interrupted):
                waiting.result()
        assert "vimgvc-sftp" not in [thread.name for thread in threading.enumerate()]
        with pytest.raises(errors.Interrupted):
            place.get(backend.pack(1))


class TestGarbled:
    @pytest.mark.parametrize("side", ["up", "down"])
    def test_n4_flipped_bit(
        self, connect: Open, flaky: proxy.Proxy, root: pathlib.Path, side: proxy.Side, seed: int
    ) -> None:
        """N4: a bit flipped on the way is found by SSH itself; what is stored and what is got is right."""
        rng = np.random.default_rng(seed)
        # A flipped length looks like a packet that never ends.
        place = connect(root, port=flaky.port, patience=sftp_link.Patience(stall=3, pause=0.01))
        place.put(backend.pack(1), [b"x"])
        for number in range(4):
            flaky.faults.append(proxy.Fault("flip", side, int(rng.integers(8_000, 250_000))))
            flaky.cut()
            name, blob = backend.pack(number + 2), rng.bytes(300_000)
            assert place.put(name, [blob])
            assert place.get(name) == blob
            assert (root / name).read_bytes() == blob
        assert len(flaky.carried) >= 9


def test_n21_garbled_handshake(connect: Open, flaky: proxy.Proxy, root: pathlib.Path) -> None:
    """A bit flipped while the connection is made is an error or another try, never a connection without checks."""
    patience = sftp_link.Patience(connect=2, pause=0.01)
    for at in range(40, 1600, 400):
        flaky.faults.append(proxy.Fault("flip", "down", at))
        place = connect(root, port=flaky.port, patience=patience)
        try:
            assert place.put(backend.pack(at), [b"x"])
        except errors.RemoteError as error:
            assert error.kind in ("unreachable", "host key")  # noqa: PT017
