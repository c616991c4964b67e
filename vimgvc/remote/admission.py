"""Admitting deliveries: what a holder of a write key added becomes a commit (specs/repository.md §13).

A delivery is read as any other source of disks, with every check there is, and recorded anew. What it says is believed
of its own content and time only: the branch comes from the key slot. What cannot be admitted stays where it is.
"""

from __future__ import annotations

import contextlib
import datetime as dt
from dataclasses import dataclass, field

from vimgvc import errors
from vimgvc.codec import deliveries, keys, slots
from vimgvc.model import commit as commits
from vimgvc.model import reflog
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, ingest
from vimgvc.repo import disk as disks
from vimgvc.repo import inbox, names, repository

ADMITTED, WAITING, REFUSED, UNFINISHED = "admitted", "waiting", "refused", "unfinished"
#: What says that a delivery cannot be admitted; anything else stops everything.
_BAD = (errors.IntegrityError, errors.NotFound, errors.UsageError, errors.Unsupported, errors.NoKey)
#: Bytes of a commit that a delivery may bring.
_MAX_COMMIT = 1 << 20
#: In the facts of a disk's container.
_FACT = "delivery"


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a delivery. `commit` is what it was recorded as; `reason` why it was not, or is not on its branch.

    `label` and `branch` are empty, `time` too, as long as its key was not opened.
    """

    id: str
    state: str
    size: int
    label: str = ""
    branch: str = ""
    time: str = ""
    commit: str | None = None
    reason: str = ""


@dataclass(frozen=True, slots=True)
class _Opened:
    delivery: inbox.Delivery
    writer: slots.WriteSlot
    there: repository.Repository
    commit: commits.Commit
    moment: int
    branch: str

    def outcome(self, state: str, commit: str | None = None, reason: str = "") -> Outcome:
        label, item = self.writer.info.label, self.delivery
        return Outcome(item.id, state, item.size, label, self.branch, self.commit.time, commit, reason)


def admit(repo: repository.Repository, *, host: str, dry_run: bool, monitor: Monitor) -> list[Outcome]:
    """Record whatever waits, in the order of their moments; each is durable before the next begins.

    A dry run opens the deliveries and does not read their disks.
    """
    job = _Job(repo, host, monitor)
    found: list[_Opened] = []
    told: list[Outcome] = []
    for item in inbox.listed(repo.backend):
        if item.is_done and job.records.find(item.id) is not None:
            job.clear(item, dry_run=dry_run)
        elif not item.is_complete:
            told.append(Outcome(item.id, UNFINISHED, item.size))
        else:
            try:
                found.append(job.open(item))
            except _BAD as error:
                told.append(Outcome(item.id, REFUSED, item.size, reason=error.message))
    found.sort(key=lambda one: (one.moment, one.delivery.id))
    if dry_run:
        return [*(one.outcome(WAITING) for one in found), *told]
    done = []
    for one in found:
        try:
            done += job.admit(one)
        except _BAD as error:
            if job.records.find(one.delivery.id) is None:  # else somebody else has just admitted it
                done.append(one.outcome(REFUSED, reason=error.message))
    return [*done, *told]


def discard(repo: repository.Repository, prefix: str, *, host: str) -> inbox.Delivery:
    """Let a delivery go that will not be admitted. Raises `NotFound`, `UsageError`."""
    records = inbox.Records(repo.backend, repo.seals)
    found = [item for item in inbox.listed(repo.backend) if prefix and item.id.startswith(prefix.lower())]
    if not found:
        raise errors.NotFound("delivery", prefix, hint="'vimgvc admit --dry-run' lists them")
    if len(found) > 1:
        raise errors.UsageError(f"several deliveries begin with '{prefix}'", hint="give more digits")
    if records.find(found[0].id) is None:
        records.put(found[0].id, inbox.Record(None, repository.timestamp(repo.clock), host))
    _remove(repo, found[0])
    return found[0]


def _remove(repo: repository.Repository, item: inbox.Delivery) -> None:
    """The key last: as long as it is there, the rest is known for what it is."""
    if item.blobs.keys() - {inbox.DONE} and repo.backend.capabilities.removes:
        last = inbox.place(item.id, inbox.KEY)
        repo.backend.delete_all([name for name in item.names() if name != last])
        repo.backend.delete(last)


@dataclass(slots=True)
class _Job:
    repo: repository.Repository
    host: str
    monitor: Monitor
    records: inbox.Records = field(init=False)
    _writers: dict[str, slots.WriteSlot] | None = None
    #: Deliveries that commits of a branch came from, by branch.
    _known: dict[str, dict[str, str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.records = inbox.Records(self.repo.backend, self.repo.seals)

    def open(self, item: inbox.Delivery) -> _Opened:
        """Everything of a delivery but its disks. Raises what `_BAD` says."""
        repo, where = self.repo, f"delivery {item.id[:8]}"
        if item.blobs[inbox.KEY] > deliveries.MAX_KEY:
            raise errors.FormatError(where, "has a key of an impossible size")
        blob = repo.backend.get(inbox.place(item.id, inbox.KEY))
        writer = self._writer(deliveries.slot_of(blob, where))
        sealed = deliveries.unseal(blob, writer, bytes.fromhex(repo.id), bytes.fromhex(item.id), where)
        if item.blobs.get(f"commits-{sealed.commit}", 0) > _MAX_COMMIT:
            raise errors.FormatError(where, "brings a commit of an impossible size")
        there = inbox.opened(repo.backend, item.id, sealed.root, repo.clock, repo.rng)
        commit = there.graph.load(sealed.commit)
        if commit.parents or not commit.disks or not _is_moment(commit.time):
            raise errors.FormatError(where, "brings a commit that no delivery has")
        branch = writer.branch + commit.branch if writer.branch.endswith("/") else writer.branch
        return _Opened(item, writer, there, commit, sealed.moment, reflog.check_name(branch))

    def admit(self, one: _Opened) -> list[Outcome]:
        """Recorded, and known to be, on return; nothing to tell of what was recorded before.

        Raises what `_BAD` says, and then nothing was published.
        """
        known, told = self._recorded(one.branch), []
        if one.delivery.id not in known:
            self._tell_age(one)
            commit_id, reason = self._record(one)
            known[one.delivery.id] = commit_id
            told.append(one.outcome(ADMITTED, commit_id, reason))
        record = inbox.Record(known[one.delivery.id], repository.timestamp(self.repo.clock), self.host)
        try:
            self.records.put(one.delivery.id, record)
        except inbox.Planted as error:
            self.monitor.problem(error.message)  # its commit tells as well that it is done
        self.clear(one.delivery)
        return told

    def clear(self, item: inbox.Delivery, *, dry_run: bool = False) -> None:
        """Remove what a delivery leaves that is done, where that may be."""
        if not dry_run:
            try:
                _remove(self.repo, item)
            except errors.BackendError as error:
                self.monitor.note(f"what is left of delivery {item.id[:8]} is not removed: {error.message}")

    def _writer(self, slot_id: str) -> slots.WriteSlot:
        if self._writers is None:
            self._writers = {}
            for name, blob in self.repo.keyring.blobs(self.monitor).items():
                if slots.describe_slot(blob).type == keys.WRITE:
                    with contextlib.suppress(errors.NoKey, errors.IntegrityError):
                        self._writers[name] = slots.open_write_slot(blob, self.repo.unlocked.root)
        if slot_id not in self._writers:
            raise errors.NoKey(f"the write key it was made with ({slot_id[:8]}) is none, or was removed")
        return self._writers[slot_id]

    def _recorded(self, branch: str) -> dict[str, str]:
        """What an earlier run recorded without saying so, and what is shown once more (delivery → commit)."""
        if branch not in self._known:
            there = self.repo.branches()
            tips = [tip for name, tip in there.items() if name == branch or name.startswith(f"conflict/{branch}/")]
            self._known[branch] = {
                str(disk.container[_FACT]): commit.id
                for commit in self.repo.graph.walk(tips, lambda _id, _error: None)
                for disk in commit.disks
                if _FACT in disk.container
            }
        return self._known[branch]

    def _tell_age(self, one: _Opened) -> None:
        tip = self.repo.branches().get(one.branch)
        with contextlib.suppress(errors.IntegrityError, errors.NotFound):
            if tip and self.repo.graph.load(tip).time > one.commit.time:
                self.monitor.problem(
                    f"delivery {one.delivery.id[:8]} of {one.commit.time} is older than what is on {one.branch}: "
                    "a clock was wrong, or the place held it back"
                )

    def _record(self, one: _Opened) -> tuple[str, str]:
        """(the commit, why it is not on its branch)."""
        with contextlib.ExitStack() as stack:
            given = [self._source(one, item, stack) for item in one.commit.disks]
            files = [self._source(one, item, stack) for item in one.commit.attachments]
            request = repository.CommitRequest(
                branch=one.branch,
                message=one.commit.message,
                author=one.commit.author,
                host=one.commit.host,
                allow_empty=True,
                time=one.commit.time,
            )
            try:
                return self.repo.commit(given, request, None, self.monitor, attachments=files).commit.id, ""
            except errors.RefMoved as error:
                kept = names.conflict(one.branch, error.commit)
                return error.commit, f"the branch moved meanwhile: kept as {kept}"

    def _source(self, one: _Opened, item: commits.Stored, stack: contextlib.ExitStack) -> ingest.Source:
        found = one.there.open_disk(item, self.monitor)
        reader = found.reader(crew.default_threads(self.repo.backend.capabilities.parallel))
        stack.callback(reader.close)
        if isinstance(item, commits.Attachment):
            return ingest.Source(item.name, disks.Recorded(reader), {})
        allocated = min(item.allocated_bytes, item.size)
        return ingest.Source(item.name, disks.Recorded(reader, allocated), {**item.container, _FACT: one.delivery.id})


def _is_moment(stamp: str) -> bool:
    try:
        dt.datetime.fromisoformat(stamp)
    except ValueError:
        return False
    return True
