"""The k-th file operation of a whole commit, or of a change of keys, fails (D8, D11, C19)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator

import pytest

from tests import depth
from tests.crash import commits, faults, model, states
from vimgvc import errors
from vimgvc.backends import files, protocol
from vimgvc.repo import keyring

SYNCED = states.Certain("synced")

#: Without them something can be known to be wrong and still be worked around.
LOOKING = {"open", "pread", "status", "close_read"}


class Before:
    """A repository with two commits, and what a third one does to its files."""

    def __init__(self) -> None:
        disk = commits.start()
        self.unlocked = commits.create(disk).unlocked
        self.disk = commits.few_shards(disk)
        for message in ("one", "two"):
            commits.commit(commits.reopen(self.disk, self.unlocked), message)
        self.added = commits.add_key(commits.reopen(self.disk, self.unlocked).keyring, self.unlocked)

    def seen(self, act: Callable[[files.Files], None]) -> list[str]:
        """The kinds of the operations of an undisturbed `act`."""
        watched = faults.FaultyFiles(self.disk.copy(), None)
        act(watched)
        return watched.seen

    def commit(self, target: files.Files) -> None:
        """The same operations each time: names of packs, and so the directories they share, are repeated."""
        repo = commits.reopen(target, self.unlocked, rng=commits.repeatable())
        assert commits.commit(repo, "three").created

    def commit_again(self, target: files.Files) -> None:
        """With other random bytes: what is stored a second time gets another name."""
        assert commits.commit(commits.reopen(target, self.unlocked), "three").created


@pytest.fixture(scope="module")
def before() -> Before:
    return Before()


def every_fault(seen: list[str], code: int) -> Iterator[faults.Fault]:
    """The errno at each operation; of the shards that are scanned, at some. Changes fail for good, too."""
    for at, kind in enumerate(seen):
        if kind in faults.APPLIES[code] and (kind != "scan" or at % 8 == 0):
            yield faults.Fault(at, code)
            if kind not in {*LOOKING, "scan"}:
                yield faults.Fault(at, code, persistent=True)


def outcome(call: Callable[[], None]) -> errors.VimgvcError | None:
    try:
        call()
    except errors.VimgvcError as error:
        return error
    return None


def harmless(faulty: faults.FaultyFiles, fault: faults.Fault) -> bool:
    """Whether the commit may rightly succeed all the same; `check_after` looks whether it did.

    A pin that is removed when all is done may come back with a power cut: collections know what to do with it.
    """
    if fault.code in (errno.EINTR, faults.SHORT):
        return True
    only_pins = faulty.unsynced <= {f"{commits.ROOT}/pins"}
    return set(faulty.struck) <= {"unlink", *LOOKING, *(["fsync_dir"] if only_pins else [])}


def check_after(before: Before, faulty: faults.FaultyFiles, *, created: bool) -> None:
    """The commits from before restore; the next one works, stores no pack again, and all of it stays."""
    disk = faulty.inner
    if "unlink" not in faulty.struck:
        assert [path for path in disk.tree("/") if "/.tmp-" in path] == []
    if "fsync_dir" in faulty.struck:
        disk = disk.crash(SYNCED)
    promised = {"one", "two"} | ({"three"} if created else set())
    commits.check_commits(commits.reopen(disk, before.unlocked), promised)
    if not created:
        if "three" not in {found.message for found in commits.reopen(disk, before.unlocked).history()}:
            before.commit_again(disk)
        # The new content is there once, whichever attempt stored it.
        assert data_packs(disk) == data_packs(before.disk) + 1
    commits.check_commits(commits.reopen(disk.crash(SYNCED), before.unlocked), {"one", "two", "three"})


def packs(disk: model.ModelFiles) -> dict[str, int]:
    tree = {path.removeprefix(f"{commits.ROOT}/"): content for path, content in disk.tree("/").items()}
    return {
        name: len(content)
        for name, content in tree.items()
        if content is not None and name.startswith("packs/") and protocol.is_name(name)
    }


def data_packs(disk: model.ModelFiles) -> int:
    """How many packs hold content; a pack of manifests is smaller here."""
    return sum(size > 3000 for size in packs(disk).values())


def run_with(before: Before, fault: faults.Fault, expected: type[errors.VimgvcError]) -> None:
    faulty = faults.FaultyFiles(before.disk.copy(), fault)
    told = outcome(lambda: before.commit(faulty))
    assert faulty.struck, f"{fault} did not strike"
    try:
        if told is None:
            assert harmless(faulty, fault), f"{faulty.struck} was not told"
        else:
            assert type(told) is expected, f"{told!r}"
        check_after(before, faulty, created=told is None)
    except Exception as error:
        raise AssertionError(f"{fault}, struck {faulty.struck}: {error!r}") from error


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, pytest.param(errno.EDQUOT, marks=pytest.mark.deep)])
def test_d8_no_space_at_every_operation(before: Before, code: int, seed: int) -> None:
    """D8: a full disk at any operation of a commit is `NoSpace`; commits restore, the next re-uses what is stored."""
    for fault in depth.some(every_fault(before.seen(before.commit), code), 30, seed):
        run_with(before, fault, errors.NoSpace)


#: ENFILE and EAGAIN are tried on the backend alone.
OTHERS = {errno.EIO: "EIO", errno.EMFILE: "EMFILE", errno.EINTR: "EINTR", faults.SHORT: "short"}
DEEP = {errno.EROFS: "EROFS", errno.ENOMEM: "ENOMEM"}


@pytest.mark.slow
@pytest.mark.parametrize(
    "code",
    [
        *(pytest.param(code, id=name) for code, name in OTHERS.items()),
        *(pytest.param(code, id=name, marks=pytest.mark.deep) for code, name in DEEP.items()),
    ],
)
def test_d11_every_error_at_every_operation(before: Before, code: int, seed: int) -> None:
    """D11: any other error at any operation of a commit is told as itself or overcome, and loses nothing."""
    for fault in depth.some(every_fault(before.seen(before.commit), code), 30, seed):
        run_with(before, fault, errors.BackendError)


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC])
@pytest.mark.parametrize("change", ["add", "remove", "change"])
def test_c19_failing_change_of_keys(before: Before, change: str, code: int, seed: int) -> None:
    """C19: whichever operation of adding, removing or changing a key fails, a key that is not removed opens."""

    def act(target: files.Files) -> None:
        ring = keyring.Keyring(commits.reopen(target, before.unlocked).backend)
        if change == "add":
            commits.add_key(ring, before.unlocked)
        elif change == "remove":
            ring.remove(before.added)
        else:
            commits.change_key(ring, before.unlocked, before.added)

    for fault in depth.some(every_fault(before.seen(act), code), 20, seed):
        faulty = faults.FaultyFiles(before.disk.copy(), fault)
        told = outcome(lambda faulty=faulty: act(faulty))  # type: ignore[misc]
        kept = (commits.FIRST,) if change == "remove" else (commits.FIRST, commits.SECOND)
        for disk in (faulty.inner, faulty.inner.crash(SYNCED), faulty.inner.crash(states.Certain("names"))):
            commits.check_keys(disk, commits.Opens(kept))
        assert told is not None or set(faulty.struck) <= {"unlink", *LOOKING}, f"{fault}: {faulty.struck} was not told"
