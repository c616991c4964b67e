"""Deliveries of hosts with write keys: what becomes of them, who reads them, and what is refused."""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Iterator

import pytest
from blake3 import blake3

from tests import repos
from tests.inbox import hosts
from vimgvc import errors
from vimgvc.codec import aead, deliveries, keys, sealing, slots
from vimgvc.disk import memory as disk_memory
from vimgvc.remote import admission
from vimgvc.repo import inbox, keyfile, keyring

DISK = repos.noise(1, 50_000) + bytes(70_000) + repos.text(2, 30_000)


def test_a_delivery_becomes_a_commit() -> None:
    """What a host delivered is a commit with its bytes, message, host and time, and nothing is left of the delivery."""
    repo = repos.create()
    host = hosts.host(repo)
    sent = host.deliver(("db", DISK), ("log", repos.noise(3, 9000)), message="nightly")
    assert repo.branches() == {}
    (done,) = hosts.admit(repo)
    assert (done.state, done.branch, done.label, done.reason) == ("admitted", "web1/db", "web1", "")
    found = repo.resolve("web1/db")
    assert found.id == done.commit
    assert (found.message, found.author, found.host) == ("nightly", "root", "web1")
    assert (found.time, found.parents) == (sent.commit.time, ())
    assert (repos.restore(repo, "web1/db", "db"), repos.restore(repo, "web1/db", "log")) == (DISK, repos.noise(3, 9000))
    assert {disk.container["delivery"] for disk in found.disks} == {sent.id}
    assert hosts.left(repo.backend) == {"done"}
    assert repo.verify("data").problems == []
    assert hosts.admit(repo) == []


def test_deliveries_follow_each_other() -> None:
    """Two hosts, several deliveries: each on its own branch in the order of their times, and only changes cost."""
    repo = repos.create()
    first, second = hosts.host(repo, "a"), hosts.host(repo, "b", branch="backups/b")
    second.deliver(("vm", DISK), message="b one")
    for message in ("a one", "a two", "a three"):
        first.deliver(("db", DISK), message=message)
    done = hosts.admit(repo)
    assert hosts.states(done) == ["admitted"] * 4
    assert [item.message for item in repo.history("a/db")] == ["a three", "a two", "a one"]
    assert [item.message for item in repo.history("backups/b")] == ["b one"]
    data = [item for item in repo.history() if item.disks[0].new_bytes]
    assert len(data) == 1, "the same bytes were stored twice"


def test_a_dry_run_changes_nothing() -> None:
    """A dry run tells what waits, and leaves every blob as it is."""
    repo = repos.create()
    hosts.host(repo).deliver(("db", DISK))
    before = hosts.content(repo.backend)
    (told,) = hosts.admit(repo, dry_run=True)
    assert (told.state, told.branch, told.commit) == ("waiting", "web1/db", None)
    assert hosts.content(repo.backend) == before


def test_attachments_and_empty_disks() -> None:
    """Attachments are delivered as well, and a disk of zeros, and one of no bytes."""
    repo = repos.create()
    host = hosts.host(repo)
    host.deliver(("zeros", bytes(9 << 20)), ("none", b""), files=[("vm.xml", b"<domain/>" * 600)])
    assert hosts.states(hosts.admit(repo)) == ["admitted"]
    commit, target = repo.resolve("web1/db"), disk_memory.MemoryDisk(9 * 600)
    repo.open_disk(commit.attachment("vm.xml")).restore(target, repos.Collector())
    assert target.content() == b"<domain/>" * 600
    assert (repos.restore(repo, "web1/db", "zeros"), repos.restore(repo, "web1/db", "none")) == (bytes(9 << 20), b"")


# -- who reads ---------------------------------------------------------------------------------------


def _everything_a_host_has(key: deliveries.WriteKey, delivery: str) -> Iterator[bytes]:
    """Keys of 32 bytes that could be tried: what is in the file, and what the program derives from that."""
    file = key.encode()
    values = [key.writer, key.public, blake3(file).digest(), keys.derive("slot secret", key.writer)]
    values += [keys.derive(purpose, value) for value in (key.writer, key.public) for purpose in ("inbox", "metadata")]
    values.append(blake3(bytes.fromhex(key.slot) + bytes.fromhex(delivery), key=key.writer).digest())
    yield from values


def test_a_write_key_opens_nothing() -> None:
    """With a write key no blob of the repository opens, none of its own deliveries, before and after admission."""
    repo = repos.create()
    repos.commit(repo, ("vm", DISK))
    host = hosts.host(repo)
    admitted, waiting = host.deliver(("db", DISK)).id, host.deliver(("db", DISK + DISK)).id
    admission.discard(repo, admitted, host=hosts.HOST)
    blobs = hosts.content(repo.backend)
    assert sum(name.startswith(f"inbox/{waiting}/") for name in blobs) >= 5
    kinds = [b"A", b"C", b"D", b"F", b"G", b"I", b"P", b"R", b"T"]
    tried = 0
    for name, blob in blobs.items():
        for secret in _everything_a_host_has(host.key, waiting):
            for place in (repo.id, waiting, admitted):
                seals = sealing.Sealing(keys.PurposeKeys(secret), bytes.fromhex(place), repo.rng)
                last = name.rpartition("-")[2] if "commits" in name else ""
                contexts = [b"", bytes.fromhex(last)] if len(last) == 64 else [b""]
                for kind, context, start in itertools.product(kinds, contexts, (0, 48)):
                    tried += 1
                    with pytest.raises((errors.IntegrityError, errors.Unsupported)):
                        seals.open(kind, blob[start:], name, context)
    assert tried > 1000
    key = blobs[inbox.place(waiting, inbox.KEY)]
    head, sealed, public = key[:48], key[48:], host.key.public
    bound = bytes.fromhex(repo.id) + bytes.fromhex(waiting) + head
    for shared in (b"", bytes(32), public, head[16:], host.key.writer):  # all it knows, in the place of what it forgot
        guess = blake3(b"seal\0" + shared + public + bound, key=host.key.writer).digest()
        with pytest.raises(errors.IntegrityError, match="fails authentication"):
            aead.open_object((guess, b""), aead.DELIVERY, bound, sealed, "key")
    slot = slots.open_write_slot(repo.backend.get(f"keys/{host.key.slot}-0"), repo.unlocked.root)
    for private in _everything_a_host_has(host.key, waiting):  # the private key is not among them
        with pytest.raises(errors.IntegrityError):
            deliveries.unseal(
                blobs[inbox.place(waiting, inbox.KEY)],
                dataclasses.replace(slot, private=private),
                bytes.fromhex(repo.id),
                bytes.fromhex(waiting),
                "key",
            )


def test_a_write_key_unlocks_no_slot() -> None:
    """No key slot opens with a write key, its own least of all, whatever kind of secret it is said to be."""
    repo = repos.create()
    host = hosts.host(repo)
    for kind in (keys.WRITE, keys.KEYFILE):
        for value in (host.key.encode(), host.key.writer, host.key.public):
            with pytest.raises(errors.NoKey):
                keyring.Keyring(repo.backend).unlock(keys.Secret(kind, value))
    with pytest.raises(errors.NoKey):
        slots.open_slot(repo.backend.get(f"keys/{host.key.slot}-0"), repos.SECRET, memory_limit=1 << 30)


def test_secrets_are_not_shown() -> None:
    """Neither the key of a host nor the root of a delivery is in a repr, nor the key in the repository."""
    repo = repos.create()
    host = hosts.host(repo)
    sent = host.deliver(("db", DISK))
    opened = slots.open_write_slot(repo.backend.get(f"keys/{host.key.slot}-0"), repo.unlocked.root)
    for shown in (repr(host.key), repr(sent), repr(host.outbox()), repr(opened)):
        for secret in (host.key.writer, opened.private, sent.there.unlocked.root):
            assert secret.hex() not in shown
            assert repr(secret) not in shown
    for blob in hosts.content(repo.backend).values():
        for secret in (host.key.writer, host.key.public, sent.there.unlocked.root):
            assert secret not in blob
            assert secret.hex().encode() not in blob


def test_a_stuck_generator() -> None:
    """Where the random generator repeats itself, two deliveries have two keys and two names all the same."""
    repo = repos.create()
    host = dataclasses.replace(hosts.host(repo), rng=lambda length: b"\xaa" * length)
    first, second = host.deliver(("db", DISK)), host.deliver(("db", DISK))
    assert first.id != second.id
    assert first.there.unlocked.root != second.there.unlocked.root
    assert hosts.states(hosts.admit(repo)) == ["admitted", "admitted"]


# -- keys --------------------------------------------------------------------------------------------


def test_slots_of_write_keys() -> None:
    """They are listed, do not count as something that opens, are not changed into one, and are removed like others."""
    repo = repos.create()
    host = hosts.host(repo)
    (opener,) = [info.id for info in repo.keyring.slots() if info.type == keys.PASSPHRASE]
    assert {info.label for info in repo.keyring.slots() if info.type == keys.WRITE} == {"web1"}
    with pytest.raises(errors.UsageError, match="last key slot"):
        repo.keyring.remove(opener)
    with pytest.raises(errors.UsageError, match="only adds"):
        repo.keyring.change(repo.unlocked, host.key.slot, repos.SECRET, created="2026-01-02T03:04:05Z", rng=repo.rng)
    assert repo.keyring.remove(host.key.slot[:6]) == host.key.slot
    assert [info.id for info in repo.keyring.slots()] == [opener]


def test_write_key_files(tmp_path_factory: pytest.TempPathFactory) -> None:
    """A write key file is known for one; damaged in any byte it is refused or no write key, and never another one."""
    key = hosts.host(repos.create()).key
    path = tmp_path_factory.mktemp("keys") / "web1.key"
    path.write_bytes(key.encode())
    path.chmod(0o600)
    assert keyfile.load(path).kind == keys.WRITE
    assert deliveries.parse_write_key(keyfile.load(path).value) == key
    content = key.encode()
    for at in range(len(content) - 1):
        bad = content[:at] + bytes([content[at] ^ 1]) + content[at + 1 :]
        if deliveries.is_write_key(bad):
            with pytest.raises((errors.IntegrityError, errors.Unsupported)):
                deliveries.parse_write_key(bad)
    members = json.loads(content) | {"v": 2}
    del members["checksum"]
    with pytest.raises(errors.IntegrityError, match="checksum"):
        deliveries.parse_write_key(
            json.dumps(members | {"checksum": "00" * 32}, sort_keys=True, separators=(",", ":")).encode()
        )


def test_sealed_keys_are_of_their_type() -> None:
    """A record and a key are objects of types that nothing else has."""
    assert len({aead.COMMIT, aead.INDEX, aead.REF, aead.TABLE, aead.FORGOTTEN, aead.COLLECTION, aead.PIN}) == 7
    assert not {aead.DELIVERY, aead.ADMITTED} & {aead.COMMIT, aead.INDEX, aead.REF, aead.TABLE, aead.PIN}
