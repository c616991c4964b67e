"""Every interleaving of writers and collectors that know no locks, on one piece of content (specs/repository.md §9).

The content X is in pack P, and a commit C leads to it. Anybody may stop anywhere for any time, also for good; and
whoever has decided to remove something may remove it at any later moment, whatever has happened since.

Writers: `STORE` has X at hand and records it in a commit of its own; `NAME` gives a name to C, and cannot store;
`PUSH` has X in a pack that is P to the byte, and C itself: it puts both under their names where they are missing.
Collectors: find out whether anything names X; when it does they may copy it, or keep one of several copies, and
remove the others; when nothing does they remove all, and C. `admin` may at any time declare a writer dead (remove
its pin) or a collector (take its epoch), rightly or not.

A name for X that was acknowledged, with no pack that holds X, or without C, is a loss. `explore` visits all states
that can be reached; each of `weak` changes one rule, so that a test can see that every rule is needed.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

STORE, NAME, PUSH = "store", "name", "push"
DEAD = 99
Names = frozenset[str]
NONE: Names = frozenset()
COMMIT = "C"
BOTH = frozenset({"X", COMMIT})


class Epoch(NamedTuple):
    """`going`: packs, and C, that were swept; `gone`: the records have been removed.

    That they were condemned before only saves work, and is left out.
    """

    going: Names = NONE
    spared: Names = NONE
    taken: bool = False
    done: bool = False
    gone: bool = False

    @property
    def announced(self) -> Names:
        """What may be removed because of it, now or at any time."""
        return self.going - self.spared


class Writer(NamedTuple):
    """`start`, `open`, `avoid`: the first look at the epochs. `seen`: what the second one says may be gone."""

    pc: int = 0
    start: int = 0
    open: frozenset[int] = frozenset()
    avoid: Names = NONE
    root: str = ""
    put: bool = False
    seen: Names = NONE
    stored: int = 0


class Collector(NamedTuple):
    """`live`: what is needed, X and C or X alone or nothing; of X `keep` stays. `log`: the entries it knew then."""

    pc: int = 0
    left: int = 1
    epoch: int = -1
    hit: Names = NONE
    live: Names = NONE
    log: Names = NONE
    keep: str = ""
    going: Names = NONE


class State(NamedTuple):
    """`things`: packs with X, and C. `refs`: the names that lead to X now, `log`: that ever did.

    `void`: published, but not yet acknowledged, by a writer that may be taken for dead.
    """

    things: Names
    epochs: tuple[Epoch, ...]
    pins: Names
    refs: Names
    log: Names
    void: Names
    writers: tuple[Writer, ...]
    collectors: tuple[Collector, ...]


class Setting(NamedTuple):
    """`runs`: collections of each collector; `named`: whether a name leads to C at the start; `tries`: of a writer."""

    kinds: tuple[str, ...]
    runs: tuple[int, ...]
    named: bool = False
    expiry: bool = False
    take_over: bool = False
    tries: int = 2
    weak: frozenset[str] = frozenset()


def explore(setting: Setting, limit: int = 0) -> tuple[State | None, int]:
    """(a state with a loss, or None; how many states were seen). Stops after `limit` states, if there is one."""
    old = frozenset({"old"}) if setting.named else NONE
    start = State(
        things=frozenset({"P", COMMIT}),
        epochs=(),
        pins=NONE,
        refs=old,
        log=old,
        void=NONE,
        writers=tuple(Writer() for _ in setting.kinds),
        collectors=tuple(Collector(left=runs) for runs in setting.runs),
    )
    seen, todo = {start}, [start]
    while todo:
        state = todo.pop()
        if _is_lost(state, setting):
            return state, len(seen)
        if limit and len(seen) > limit:
            break
        if not _may_be_named(state):
            continue
        for after in _steps(state, setting):
            if after not in seen:
                seen.add(after)
                todo.append(after)
    return None, len(seen)


def _is_lost(state: State, setting: Setting) -> bool:
    needed = _needed(state.refs - state.void, setting)
    return ("X" in needed and not state.things - {COMMIT}) or (COMMIT in needed and COMMIT not in state.things)


def _needed(names: Names, setting: Setting) -> Names:
    """What names or pins lead to: who stores makes a commit of its own."""
    if not names:
        return NONE
    return BOTH if names - {f"w{at}" for at, kind in enumerate(setting.kinds) if kind == STORE} else BOTH - {COMMIT}


def _may_be_named(state: State) -> bool:
    """Whether X has a name, or may get one: else nothing can be lost any more."""
    return bool(state.refs) or any(writer.pc < 10 for writer in state.writers)


def _steps(state: State, setting: Setting) -> Iterator[State]:
    for at in range(len(state.writers)):
        yield from _writer(state, at, setting)
        if setting.expiry and f"w{at}" in state.pins:
            yield state._replace(pins=state.pins - {f"w{at}"})
    for at in range(len(state.collectors)):
        yield from _collector(state, at, setting)
    if "old" in state.refs:
        yield state._replace(refs=state.refs - {"old"})


def _write(state: State, at: int, **changes: object) -> State:
    changed = state.writers[at]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(writers=(*state.writers[:at], changed, *state.writers[at + 1 :]))


def _collect(state: State, at: int, **changes: object) -> State:
    changed = state.collectors[at]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(collectors=(*state.collectors[:at], changed, *state.collectors[at + 1 :]))


def _mark(state: State, epoch: int, **changes: object) -> State:
    changed = state.epochs[epoch]._replace(**changes)  # type: ignore[arg-type]
    return state._replace(epochs=(*state.epochs[:epoch], changed, *state.epochs[epoch + 1 :]))


def _going(state: State, but: int = -1) -> Names:
    """What unfinished collections have announced, except number `but`."""
    return NONE.union(*[one.announced for at, one in enumerate(state.epochs) if at != but and not one.done])


# --- writers ----------------------------------------------------------------------------------------


def _writer(state: State, at: int, setting: Setting) -> Iterator[State]:
    writer, name = state.writers[at], f"w{at}"
    if writer.pc == 0:
        opened = frozenset(number for number, one in enumerate(state.epochs) if not one.done)
        yield _write(state, at, pc=1, start=len(state.epochs), open=opened, avoid=_going(state))
    elif writer.pc == 1:
        yield from _load(state, at, setting)
    elif writer.pc == 2:
        pinned = state.pins if "pin-goes-first" in setting.weak else state.pins | {name}
        yield _write(state, at, pc=3)._replace(pins=pinned)
    elif writer.pc in (3, 7):
        yield from _look_again(state, at, setting)
    elif writer.pc in (4, 8):
        yield _decide(state, at, setting)
    elif writer.pc == 5:
        void = state.void | {name} if setting.expiry else state.void
        yield _write(state, at, pc=6)._replace(refs=state.refs | {name}, log=state.log | {name}, void=void)
    elif writer.pc in (6, 9):
        yield _acknowledge(state, at, setting)
    elif name in state.refs:
        yield state._replace(refs=state.refs - {name})


def _acknowledge(state: State, at: int, setting: Setting) -> State:
    writer, name = state.writers[at], f"w{at}"
    expired = setting.expiry and name not in state.pins and "no-look-after-expiry" not in setting.weak
    if writer.pc == 6 and expired:
        return _write(state, at, pc=7)
    after = _write(state, at, **Writer(pc=10)._asdict())
    return after._replace(void=state.void - {name}, pins=state.pins - {name})


def _load(state: State, at: int, setting: Setting) -> Iterator[State]:
    """Take any copy that is not announced to go, put one, or give up."""
    writer, kind = state.writers[at], setting.kinds[at]
    if kind == NAME:
        yield _write(state, at, pc=2 if COMMIT in state.things - writer.avoid else DEAD, avoid=NONE)
        return
    if kind == PUSH and COMMIT in writer.avoid:
        yield _write(state, at, **Writer(pc=DEAD)._asdict())  # told to try again when that collection has ended
        return
    made = {COMMIT} if kind == PUSH else NONE
    usable = state.things - writer.avoid - {COMMIT}
    for name in sorted(usable):
        yield _write(state, at, pc=2, root=name, avoid=NONE)._replace(things=state.things | made)
    if not usable:
        whole = kind == PUSH and ("P" not in writer.avoid or "puts-under-any-name" in setting.weak)
        name = "P" if whole else f"Q{at}{writer.stored}"
        stored = writer.stored + (not whole)
        after = _write(state, at, pc=2, root=name, put=True, stored=stored, avoid=NONE)
        yield after._replace(things=state.things | {name} | made)


def _look_again(state: State, at: int, setting: Setting) -> Iterator[State]:
    """The records, after the pin: of collections that were unfinished at the first look, or began later."""
    writer, weak = state.writers[at], setting.weak
    numbers = {*writer.open, *range(writer.start, len(state.epochs))}
    epochs = [state.epochs[number] for number in sorted(numbers)]
    if "listings-are-late" in weak:
        yield _write(state, at, pc=writer.pc + 1, seen=NONE)
    if any(one.gone for one in epochs) and "gone-records-say-nothing" not in weak:
        yield _retry(state, at, setting)
        return
    if "ended-is-over" in weak:
        epochs = [one for one in epochs if not one.done]
    seen = NONE.union(*[one.announced for one in epochs if not one.gone])
    yield _write(state, at, pc=writer.pc + 1, seen=NONE if "no-second-look" in weak else seen)


def _decide(state: State, at: int, setting: Setting) -> State:
    """Whether what is relied on is safe. Names are listed now, after the records."""
    writer, kind, name = state.writers[at], setting.kinds[at], f"w{at}"
    needed = frozenset({writer.root, COMMIT} if kind == PUSH else {writer.root})
    if writer.put and writer.root == "P" and "what-is-put-is-not-looked-at" in setting.weak:
        needed = NONE
    safe = writer.seen.isdisjoint(needed) or ("there-is-enough" in setting.weak and needed <= state.things)
    if kind == NAME:
        # C is kept by whoever collects when another name leads there; else C and its content are walked.
        left = state.things - writer.seen
        safe = COMMIT in _needed(state.refs - state.void - {name}, setting) or (COMMIT in left and len(left) > 1)
    if not safe:
        return _retry(state, at, setting)
    if writer.pc == 4 and not setting.expiry:
        return _write(state, at, **Writer(pc=5)._asdict())
    return _write(state, at, pc=writer.pc + 1, seen=NONE)


def _retry(state: State, at: int, setting: Setting) -> State:
    """Take back what was published, and begin again with what is at hand."""
    writer, name = state.writers[at], f"w{at}"
    left = state._replace(pins=state.pins - {name})
    if writer.pc > 6:
        left = left._replace(refs=left.refs - {name}, void=left.void - {name})
    again = setting.kinds[at] != NAME and writer.stored < setting.tries
    return _write(left, at, **(Writer(stored=writer.stored + 1) if again else Writer(pc=DEAD))._asdict())


# --- collectors -------------------------------------------------------------------------------------


def _collector(state: State, at: int, setting: Setting) -> Iterator[State]:
    pc = state.collectors[at].pc
    if pc == 0 and state.collectors[at].left:
        yield from _begin(state, at, setting)
    elif pc in (1, 2):
        yield _look(state, at, setting)
    elif pc == 3:
        yield from _choose(state, at, setting)
    elif pc == 4:
        yield _sweep(state, at, setting)
    elif pc in (5, 6):
        yield _re_mark(state, at, setting)
    elif pc == 7:
        # Whoever took the epoch may not have seen the sweep.
        taken = state.epochs[state.collectors[at].epoch].taken and "does-not-ask-whether-taken" not in setting.weak
        yield _finish(state, at) if taken else _collect(state, at, pc=8)
    elif pc == 8:
        yield from _remove(state, at, setting)


def _look(state: State, at: int, setting: Setting) -> State:
    """Pins, then names."""
    one = state.collectors[at]
    if one.pc == 1:
        return _collect(state, at, pc=2, hit=_needed(state.pins, setting))
    return _collect(state, at, pc=3, hit=NONE, live=one.hit | _needed(state.refs, setting), log=state.log)


def _sweep(state: State, at: int, setting: Setting) -> State:
    one = state.collectors[at]
    if "begins-when-it-has-read" in setting.weak:
        if any(not other.done and not other.taken for other in state.epochs):
            return _stop(state, at)
        one = one._replace(epoch=len(state.epochs))
        state = _collect(state, at, epoch=one.epoch)._replace(epochs=(*state.epochs, Epoch()))
    swept = _mark(state, one.epoch, going=one.going)
    return _collect(swept, at, pc=7 if "no-re-mark" in setting.weak else 5)


def _stop(state: State, at: int) -> State:
    return _collect(state, at, **Collector(left=state.collectors[at].left)._asdict())


def _begin(state: State, at: int, setting: Setting) -> Iterator[State]:
    left, weak = state.collectors[at].left, setting.weak
    unfinished = [number for number, one in enumerate(state.epochs) if not one.done and not one.taken]
    if "begins-when-it-has-read" in weak:
        yield _collect(state, at, pc=1, left=left - 1)
    elif not unfinished or "begins-beside-others" in weak:
        begun = state._replace(epochs=(*state.epochs, Epoch()))
        yield _collect(begun, at, pc=1, left=left - 1, epoch=len(state.epochs))
    elif setting.take_over:
        ends = "closes-what-it-takes" in weak
        yield _mark(state, unfinished[0], taken=True, done=ends)


def _choose(state: State, at: int, setting: Setting) -> Iterator[State]:
    """What goes: everything when X is not needed; else all copies but one, which may be a new one."""
    one = state.collectors[at]
    packs = state.things - {COMMIT}
    commit = state.things & {COMMIT} - one.live
    if not one.live:
        yield _collect(state, at, pc=4, going=state.things) if state.things else _finish(state, at)
        return
    # A copy that another one may still remove is no copy: of several nobody knows which will be spared.
    others = NONE if "keeps-what-others-swept" in setting.weak else _going(state, one.epoch)
    kept = packs - others
    if (kept or not packs) and not commit:
        yield _finish(state, at)
    for name in sorted(kept):
        if going := packs - {name} | commit:
            yield _collect(state, at, pc=4, going=going, keep=name)
    name = f"R{at}{one.left}"
    if packs and name not in packs:
        copied = state if "copies-in-the-end" in setting.weak else state._replace(things=state.things | {name})
        yield _collect(copied, at, pc=4, going=packs | commit, keep=name)


def _re_mark(state: State, at: int, setting: Setting) -> State:
    """Pins, then names: what they lead to is needed, and so is what was named in between, whoever relied on that."""
    one, weak = state.collectors[at], setting.weak
    ever = NONE if "names-that-went-do-not-count" in weak else state.log - one.log
    first, second = _needed(state.pins, setting), _needed(state.refs | ever, setting)
    if "refs-first" in weak:
        first, second = second, first
    if one.pc == 5:
        return _collect(state, at, pc=6, hit=first)
    hit = one.hit | second
    spared = hit & one.going
    if "X" in hit - one.live and not state.things - {COMMIT} - _going(state):
        spared |= one.going - {COMMIT}
    changed = _mark(state, one.epoch, spared=spared) if spared else state
    return _collect(changed, at, pc=7, hit=NONE, going=one.going - spared, log=NONE)


def _remove(state: State, at: int, setting: Setting) -> Iterator[State]:
    """One after another, each at any later time."""
    one = state.collectors[at]
    left = one.going & state.things
    for name in sorted(left & {COMMIT} or left):
        yield _collect(state, at, going=one.going - {name})._replace(things=state.things - {name})
    if not left:
        made = {one.keep} if one.keep and "copies-in-the-end" in setting.weak else NONE
        yield _finish(state._replace(things=state.things | made), at)


def _finish(state: State, at: int) -> State:
    """Done: nothing of what was announced is still to be removed. Records of earlier ones are removed."""
    one = state.collectors[at]
    if one.epoch >= 0:
        state = _mark(state, one.epoch, done=True)
        for number in range(one.epoch):
            if state.epochs[number].done and not state.epochs[number].gone:
                state = _mark(state, number, **Epoch(done=True, gone=True)._asdict())
    return _stop(state, at)
