"""The k-th file operation fails: what the directory backend says, and what is there afterwards (D6 to D12)."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator, Sequence

import pytest

from tests import depth
from tests.crash import faults, model, mutants, recorder, states, workload
from vimgvc import errors
from vimgvc.backends import files, local, protocol

SYNCED = states.Certain("synced")

#: Opens a repository whose files may fail.
Open = Callable[[files.Files], local.LocalBackend]


def reopen(target: files.Files) -> local.LocalBackend:
    return local.LocalBackend(workload.ROOT, target)


def empty_repository(blobs: workload.Blobs) -> model.ModelFiles:
    disk = workload.start()
    workload.initialise(local.LocalBackend.create(workload.ROOT, disk), blobs)
    return disk


def work(backend: protocol.Backend, blobs: workload.Blobs, promised: set[str]) -> None:
    """All rounds, and everything read back; what is acknowledged gets into `promised`."""
    workload.run(backend, blobs, lambda promise: promised.update(promise.names))
    workload.look(backend, blobs)


def kinds(disk: model.ModelFiles, blobs: workload.Blobs) -> list[str]:
    """The kinds of all operations of an undisturbed run, in order."""
    watched = faults.FaultyFiles(disk.copy(), None)
    work(reopen(watched), blobs, set())
    return watched.seen


def every_fault(seen: Sequence[str], codes: Sequence[int]) -> Iterator[faults.Fault]:
    """Each errno at each operation that can report it, once and from then on."""
    for code in codes:
        for at, kind in enumerate(seen):
            if kind in faults.APPLIES[code]:
                yield faults.Fault(at, code)
                yield faults.Fault(at, code, persistent=True)


def temporary_files(disk: model.ModelFiles) -> list[str]:
    return [path for path in disk.tree("/") if "/.tmp-" in path]


# --- fsync and close ------------------------------------------------------------------------------


def fail_syncs(blobs: workload.Blobs, code: int, open_: Open, only: str) -> int:
    """One failing call of kind `only` at each place: it is told, and what is promised afterwards is kept.

    Returns the number of runs.
    """
    disk = empty_repository(blobs)
    places = [at for at, kind in enumerate(kinds(disk, blobs)) if kind == only]
    for at in places:
        fault = faults.Fault(at, code, only=only)
        faulty = faults.FaultyFiles(disk.copy(), fault)
        backend = open_(faulty)
        promised: set[str] = set()
        with pytest.raises(errors.VimgvcError):
            work(backend, blobs, promised)
        assert faulty.struck == [only]
        assert temporary_files(faulty.inner) == [], fault
        # The caller may try again with the same object, and believes what it is told then.
        try:
            work(backend, blobs, promised)
        except errors.VimgvcError:
            assert only == "fsync_dir", f"{fault}: a single failed write must not be the end"
        after = faulty.inner.crash(SYNCED)
        workload.check_present(reopen(after), blobs, promised)
        work(reopen(after), blobs, promised)
    return len(places)


@pytest.mark.parametrize("code", [errno.EIO, errno.ENOSPC, errno.EDQUOT])
@pytest.mark.parametrize("only", ["fsync", "fsync_dir", "close"])
def test_d6_d7_failed_sync_is_final(code: int, only: str, seed: int) -> None:
    """D6, D7: an fsync or close that fails once and then succeeds is an error; success is never told for it."""
    assert fail_syncs(workload.make_blobs(seed), code, reopen, only) > 10


@pytest.mark.parametrize(
    ("open_", "only"),
    [
        pytest.param(lambda target: reopen(mutants.SyncAgain(target)), "fsync", id="fsync again"),
        pytest.param(lambda target: reopen(mutants.SyncAgain(target)), "fsync_dir", id="fsync of a directory again"),
        pytest.param(lambda target: mutants.ForgetsFailure(workload.ROOT, target), "fsync_dir", id="failure forgotten"),
        pytest.param(lambda target: reopen(mutants.CloseDoesNotMatter(target)), "close", id="close does not matter"),
    ],
)
def test_rig_finds(open_: Open, only: str, seed: int) -> None:
    """A backend that makes light of a failed sync or close does not pass the test above."""
    with pytest.raises((AssertionError, pytest.fail.Exception)):
        fail_syncs(workload.make_blobs(seed), errno.EIO, open_, only)


# --- every operation, every errno -----------------------------------------------------------------


def harmless(faulty: faults.FaultyFiles, fault: faults.Fault) -> bool:
    """Whether the fault is one that need not be told: interrupted, short, or only a temporary name stayed."""
    if fault.code in (errno.EINTR, faults.SHORT):
        return not fault.persistent or fault.code == faults.SHORT
    return set(faulty.struck) <= {"unlink", "close_read"}


def run_with(fault: faults.Fault, disk: model.ModelFiles, blobs: workload.Blobs, expected: type[Exception]) -> None:
    """A run with a fault: the right error, nothing half, what was promised is there, the next run works."""
    faulty = faults.FaultyFiles(disk.copy(), fault)
    promised: set[str] = set()
    told = _outcome(lambda: work(reopen(faulty), blobs, promised))
    if told is None:
        assert harmless(faulty, fault), f"{fault}: {faulty.struck} was not told"
    else:
        assert type(told) is expected, f"{fault}: {told!r}"
    assert faulty.struck, f"{fault} did not strike"
    if "unlink" not in faulty.struck:
        assert temporary_files(faulty.inner) == [], f"{fault}: temporary files stay"
    # Names whose sync failed are in doubt until the machine starts again.
    after = faulty.inner.crash(SYNCED) if "fsync_dir" in faulty.struck else faulty.inner
    workload.check_present(reopen(after), blobs, promised)
    watched = recorder.RecordingFiles(after)
    stored = {name for name in blobs.content if name.startswith("packs/") and _exists(after, name)}
    work(reopen(watched), blobs, promised)
    assert not stored & {operation.target.removeprefix(f"{workload.ROOT}/") for operation in watched.log}
    workload.check_present(reopen(after.crash(SYNCED)), blobs, set(blobs.content))


def _outcome(call: Callable[[], None]) -> errors.VimgvcError | None:
    try:
        call()
    except errors.VimgvcError as error:
        return error
    return None


def _exists(disk: model.ModelFiles, name: str) -> bool:
    return f"{workload.ROOT}/{name}" in disk.tree("/")


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EDQUOT])
def test_d8_no_space_at_every_operation(code: int, seed: int) -> None:
    """D8: a full disk at any operation is `NoSpace`, leaves nothing half, and the next run uses what was stored."""
    blobs = workload.make_blobs(seed)
    disk = empty_repository(blobs)
    for fault in depth.some(every_fault(kinds(disk, blobs), [code]), 40, seed):
        run_with(fault, disk, blobs, errors.NoSpace)


OTHERS = [code for code in faults.APPLIES if code not in (errno.ENOSPC, errno.EDQUOT)]


@pytest.mark.slow
@pytest.mark.parametrize("code", OTHERS, ids=[errno.errorcode.get(code, "short") for code in OTHERS])
def test_d11_every_error_at_every_operation(code: int, seed: int) -> None:
    """D11: every other error at any operation is a `BackendError`, or is overcome, and loses nothing."""
    blobs = workload.make_blobs(seed)
    disk = empty_repository(blobs)
    for fault in depth.some(every_fault(kinds(disk, blobs), [code]), 40, seed):
        run_with(fault, disk, blobs, errors.BackendError)


def test_d9_no_space_while_an_index_is_replaced(seed: int) -> None:
    """D9: at whatever operation the disk is full, the old index object is there or the new one is durable."""
    blobs = workload.make_blobs(seed)
    disk = empty_repository(blobs)
    workload.run(reopen(disk), blobs, lambda _promise: None)
    old, content = blobs.rounds[0][1][0], b"new index"
    new = f"index/{seed:064x}"

    def replace(target: files.Files) -> None:
        backend = reopen(target)
        backend.put(new, [content])
        backend.sync()
        backend.delete(old)

    watched = faults.FaultyFiles(disk.copy(), None)
    replace(watched)
    for fault in every_fault(watched.seen, [errno.ENOSPC]):
        faulty = faults.FaultyFiles(disk.copy(), fault)
        with pytest.raises(errors.NoSpace):
            replace(faulty)
        for kind in states.CERTAIN:
            backend = reopen(faulty.inner.crash(states.Certain(kind)))
            present = {item.name: backend.get(item.name) for item in backend.list("index")}
            assert present.get(old) == blobs.content[old] or present.get(new) == content, (fault, kind)
            assert present.get(new, content) == content
