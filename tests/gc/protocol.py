"""Every interleaving of writers, collectors and deaths where the place has a lock, on one piece of content.

The content X is in pack P. Writers want to record it: they rely on a pack that has it, or store it in one of their
own. A branch may name it, be deleted, and be made again from the commit, which is still there. Collectors find
out whether anything names X; when it does they may write it into a new pack, or keep one of several copies, and
remove the others; when nothing does they remove all. A name for X with no pack that holds it is a loss.

Writers share the lock, collectors have it alone, who dies releases it: so what a dead collector left may be closed.
`lockless` is what holds without it.

`explore` visits all states that can be reached; a set of `weak` points changes one rule each, so that a test can
see that every rule is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

DEAD = 99
Packs = frozenset[str]
NONE: frozenset[str] = frozenset()


class Epoch(NamedTuple):
    """A collection's announcements: which packs, and whether it is over."""

    packs: Packs
    done: bool = False

    @property
    def open(self) -> bool:
        return not self.done


class Writer(NamedTuple):
    """`source`: has X at hand and can store it; else it only names a commit that is there."""

    pc: int = 0
    root: str = ""
    stored: int = 0
    source: bool = True


class Collector(NamedTuple):
    """`live`: X is needed, and then `keep` is where it stays. `left`: collections it will still begin."""

    pc: int = 0
    left: int = 1
    live: bool = False
    keep: str = ""
    packs: Packs = NONE
    epoch: int = -1


class State(NamedTuple):
    """`refs`: the names that lead to X: of writers, and `old`."""

    packs: Packs
    epochs: tuple[Epoch, ...]
    refs: Packs
    commit: bool
    readers: Packs
    owners: Packs
    writers: tuple[Writer, ...]
    collectors: tuple[Collector, ...]


class Setting(NamedTuple):
    """`sources`: for each writer whether it has X; `runs`: collections of each collector; `named`: at the start."""

    sources: tuple[bool, ...]
    runs: tuple[int, ...]
    named: bool = False
    weak: frozenset[str] = frozenset()


def explore(setting: Setting) -> tuple[State | None, int]:
    """(a state with a loss, or None; how many states were seen)."""
    start = State(
        packs=frozenset({"P"}),
        epochs=(),
        refs=frozenset({"old"}) if setting.named else NONE,
        commit=True,
        readers=NONE,
        owners=NONE,
        writers=tuple(Writer(source=source) for source in setting.sources),
        collectors=tuple(Collector(left=runs) for runs in setting.runs),
    )
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        if state.refs and not state.packs:
            return state, len(seen)
        for after in _steps(state, setting):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return None, len(seen)


def _steps(state: State, setting: Setting) -> Iterator[State]:
    for at, writer in enumerate(state.writers):
        yield from _step_writer(state, at, setting)
        if 0 < writer.pc < 8:
            yield _writer(state, at, pc=DEAD)._replace(readers=state.readers - {f"w{at}"})
    for at, collector in enumerate(state.collectors):
        yield from _collector(state, at, setting)
        if 0 < collector.pc < DEAD:
            yield _collect(state, at, pc=DEAD)._replace(owners=state.owners - {f"c{at}"})
    if "old" in state.refs:
        yield state._replace(refs=state.refs - {"old"})


def _writer(state: State, at: int, **changes: object) -> State:
    changed = state.writers[at]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(writers=(*state.writers[:at], changed, *state.writers[at + 1 :]))


def _collect(state: State, at: int, **changes: object) -> State:
    changed = state.collectors[at]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(collectors=(*state.collectors[:at], changed, *state.collectors[at + 1 :]))


def _condemned(state: State) -> Packs:
    """What unfinished collections have announced."""
    return NONE.union(*[epoch.packs for epoch in state.epochs if epoch.open])


def _store(state: State, at: int, pc: int) -> State:
    """Store X in a pack of the writer's own, under a new name."""
    writer = state.writers[at]
    name = f"Q{at}{writer.stored}"
    after = _writer(state, at, pc=pc, root=name, stored=writer.stored + 1)
    return after._replace(packs=state.packs | {name})


def _load(state: State, at: int, pc: int) -> Iterator[State]:
    """Take any copy that is not announced to go, store one, or give up."""
    usable = state.packs - _condemned(state)
    for name in sorted(usable):
        yield _writer(state, at, pc=pc, root=name)
    if not usable and state.writers[at].source:
        yield _store(state, at, pc)
    elif not usable:
        yield _writer(state, at, pc=DEAD)


def _step_writer(state: State, at: int, setting: Setting) -> Iterator[State]:
    """A commit, or a name for a commit that is there, under the shared lock."""
    writer, name = state.writers[at], f"w{at}"
    if writer.pc == 0 and not state.owners:
        taken = state if "writers-take-no-lock" in setting.weak else state._replace(readers=state.readers | {name})
        yield _writer(taken, at, pc=1)
    elif writer.pc == 0 and "writers-take-no-lock" in setting.weak:
        yield _writer(state, at, pc=1)
    elif writer.pc == 1 and writer.source:
        yield from _load(state, at, 2)
    elif writer.pc in (1, 2):
        # To name a commit it is read, but not its content; what a new commit relies on must still be there.
        if writer.root in state.packs or (not writer.source and state.commit):
            yield _writer(state, at, pc=3)
    elif writer.pc == 3:
        yield _writer(state, at, pc=4)._replace(refs=state.refs | {name}, commit=True)
    elif writer.pc == 4:
        yield _writer(state, at, pc=8)._replace(readers=state.readers - {name})
    elif writer.pc == 8 and name in state.refs:
        yield state._replace(refs=state.refs - {name})


# --- collectors -------------------------------------------------------------------------------------


def _collector(state: State, at: int, setting: Setting) -> Iterator[State]:
    collector = state.collectors[at]
    if collector.pc == 0 and collector.left:
        yield from _begin(state, at, setting)
    elif collector.pc == 1:
        yield _collect(state, at, pc=2, live=bool(state.refs))
    elif collector.pc == 2:
        yield from _choose(state, at, setting)
    elif collector.pc == 3:
        epochs = (*state.epochs, Epoch(collector.packs))
        yield _collect(state, at, pc=7, epoch=len(state.epochs))._replace(epochs=epochs)
    elif collector.pc in (7, 8, 9):
        yield from _remove(state, at, setting)


def _mark(state: State, epoch: int, **changes: bool) -> State:
    changed = state.epochs[epoch]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(epochs=(*state.epochs[:epoch], changed, *state.epochs[epoch + 1 :]))


def _begin(state: State, at: int, setting: Setting) -> Iterator[State]:
    alone = "collectors-share-the-lock" not in setting.weak
    if state.readers or (alone and state.owners):
        return
    own = state._replace(owners=state.owners | {f"c{at}"})
    left = state.collectors[at].left - 1
    unfinished = [number for number, epoch in enumerate(state.epochs) if epoch.open]
    if "goes-on-with-a-list" in setting.weak and unfinished:
        packs = state.epochs[unfinished[-1]].packs
        yield _collect(own, at, pc=8, left=left, epoch=unfinished[-1], packs=packs)
    else:
        yield _collect(own, at, pc=1, left=left)


def _choose(state: State, at: int, setting: Setting) -> Iterator[State]:
    """What goes: everything when X is not needed; else all copies but one, which may be a new one."""
    collector = state.collectors[at]
    if not state.packs:
        yield _end(state, at)
        return
    if not collector.live:
        yield _collect(state, at, pc=3, packs=state.packs, keep="")
        return
    yield _end(state, at)
    for name in sorted(state.packs):
        if others := state.packs - {name}:
            yield _collect(state, at, pc=3, packs=others, keep=name)
    name = f"R{at}{collector.left}"
    if name not in state.packs:
        copied = state if "copy-comes-last" in setting.weak else state._replace(packs=state.packs | {name})
        yield _collect(copied, at, pc=3, packs=state.packs, keep=name)


def _remove(state: State, at: int, setting: Setting) -> Iterator[State]:
    """The commit goes before its content: who finds the commit may name it."""
    collector = state.collectors[at]
    packs_first = "content-goes-first" in setting.weak
    if collector.pc == 7:
        # Of what is needed, and of what was needed when the collection began, the commit stays.
        gone = not collector.live and not packs_first
        yield _collect(state, at, pc=8)._replace(commit=state.commit and not gone)
    elif collector.pc == 8 and collector.packs & state.packs:
        for name in sorted(collector.packs & state.packs):
            yield state._replace(packs=state.packs - {name})
    elif collector.pc == 8:
        made = state.packs | {collector.keep} if collector.keep and "copy-comes-last" in setting.weak else state.packs
        gone = not collector.live and packs_first
        yield _collect(state, at, pc=9)._replace(packs=made, commit=state.commit and not gone)
    else:
        yield _end(_mark(state, collector.epoch, done=True), at)


def _end(state: State, at: int) -> State:
    """Nobody else is at work under the lock: what others left unfinished is closed, and counts again."""
    for number, epoch in enumerate(state.epochs):
        if epoch.open:
            state = _mark(state, number, done=True)
    after = _collect(state, at, pc=0, live=False, keep="", packs=NONE, epoch=-1)
    return after._replace(owners=state.owners - {f"c{at}"})
