"""The k-th file operation of a collection fails (D9, D11)."""

from __future__ import annotations

import errno

import pytest

from tests import depth
from tests.crash import commits, faults, states
from tests.crash.test_repository_faults import LOOKING, every_fault
from tests.gc import past
from vimgvc import errors
from vimgvc.backends import files, local

pytestmark = pytest.mark.long

SYNCED = states.Certain("synced")


class Before:
    """A repository with something to collect, on a medium that has it all."""

    def __init__(self) -> None:
        disk = commits.start()
        self.place = past.build(local.LocalBackend.create(commits.ROOT, disk), rng=commits.repeatable())
        self.disk = commits.few_shards(disk)

    def collect(self, target: files.Files) -> bool:
        return self.place.open(local.LocalBackend.open(commits.ROOT, target)).collect(past.FORCE).complete

    def check(self, target: files.Files, *, healthy: bool) -> None:
        past.check(self.place, local.LocalBackend.open(commits.ROOT, target), healthy=healthy)


@pytest.fixture(scope="module")
def before() -> Before:
    return Before()


def _faults(seen: list[str], code: int, seed: int) -> list[faults.Fault]:
    looking = {*LOOKING, "scan"}
    return [one for one in every_fault(seen, code) if seen[one.at] not in looking or (one.at + seed) % 9 == 0]


@pytest.mark.slow
@pytest.mark.parametrize("code", [errno.ENOSPC, errno.EIO], ids=["ENOSPC", "EIO"])
def test_d9_a_failure_at_every_operation(before: Before, code: int, seed: int) -> None:
    """D9, D11: no failure of any operation costs anything that is kept; the next collection does what is left.

    Of operations that only look, every ninth.
    """
    watched = faults.FaultyFiles(before.disk.copy(), None)
    assert before.collect(watched)
    failed = 0
    tried = depth.some(_faults(watched.seen, code, seed), 30, seed)
    for fault in tried:
        faulty = faults.FaultyFiles(before.disk.copy(), fault)
        try:
            before.collect(faulty)
        except (errors.NoSpace, errors.BackendError, errors.IntegrityError):
            failed += 1
        disk = faulty.inner.crash(SYNCED) if "fsync_dir" in faulty.struck else faulty.inner
        try:
            before.check(disk, healthy=False)
            assert before.collect(disk)
            before.check(disk, healthy=True)
            before.check(disk.crash(SYNCED), healthy=True)
        except Exception as error:
            raise AssertionError(f"{fault}, struck {faulty.struck}: {error!r}") from error
    assert failed > len(tried) // 3


class _ReserveComesBack(faults.FaultyFiles):
    """Syncing the directory fails once, right after what keeps room was removed."""

    def unlink(self, path: str) -> None:
        super().unlink(path)
        if path.endswith("-reserve") and not self.struck:
            self._fault = faults.Fault(len(self.seen), errno.ENOSPC, only="fsync_dir")


def test_d9_a_reserve_that_comes_back(before: Before) -> None:
    """D9: what keeps room, and is all that a power cut brings back of a collection, stops nobody, and goes."""
    faulty = _ReserveComesBack(before.disk.copy(), None)
    before.collect(faulty)
    assert faulty.struck == ["fsync_dir"]
    disk = faulty.inner.crash(SYNCED)
    records = [path for path in disk.tree(f"{commits.ROOT}/gc") if path.endswith(("1-begin", "1-condemn", "1-reserve"))]
    assert records == [f"{commits.ROOT}/gc/{1:016x}-reserve"]
    repo = before.place.open(local.LocalBackend.open(commits.ROOT, disk.copy()))
    past.commit(repo, past.contents()["side"], "vm", "again")
    assert before.collect(disk)
    before.check(disk, healthy=True)
    assert not any(path.endswith("-reserve") for path in disk.tree(f"{commits.ROOT}/gc"))
