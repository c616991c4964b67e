"""What a repository owes: a dict of bytes, and which of it names reach."""

from __future__ import annotations

from dataclasses import dataclass, field

from vimgvc.model import reflog

Disks = dict[str, bytes]
Key = tuple[str, str]

BRANCHES, TAGS = ("main", "try", "vm"), ("v1", "v2")
KEYS: tuple[Key, ...] = (*((reflog.BRANCH, name) for name in BRANCHES), *((reflog.TAG, name) for name in TAGS))


@dataclass(frozen=True, slots=True)
class Commit:
    disks: Disks
    parents: tuple[str, ...]


@dataclass
class Promises:
    """`commits`: all that were ever acknowledged, by identifier. `logs`: what each name was, the last last.

    `gone`: what a collection was free to remove. `excused`: what could not be read right after something was
    damaged from outside.
    """

    commits: dict[str, Commit] = field(default_factory=dict)
    logs: dict[Key, list[str | None]] = field(default_factory=dict)
    forgotten: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)
    excused: set[str] = field(default_factory=set)

    def value(self, key: Key) -> str | None:
        return self.logs[key][-1] if key in self.logs else None

    def put(self, key: Key, value: str | None) -> None:
        self.logs.setdefault(key, []).append(value)

    def names(self, kind: str) -> dict[str, str]:
        found = {key[1]: self.value(key) for key in sorted(self.logs) if key[0] == kind}
        return {name: value for name, value in found.items() if value}

    def tips(self) -> set[str]:
        return {*self.names(reflog.BRANCH).values(), *self.names(reflog.TAG).values()}

    def reachable(self) -> set[str]:
        found: set[str] = set()
        todo = sorted(self.tips())
        while todo:
            item = todo.pop()
            if item not in found:
                found.add(item)
                todo += self.commits[item].parents
        return found

    def live(self) -> set[str]:
        tips = self.tips()
        return {item for item in self.reachable() if item not in self.forgotten or item in tips}

    def owed(self) -> list[str]:
        """The commits that must restore, in the order of their making."""
        owed = self.live() - self.gone - self.excused
        return [item for item in self.commits if item in owed]

    def there(self) -> list[str]:
        """The commits that a name can still be given to."""
        return [item for item in self.commits if item not in self.gone]

    def collected(self) -> None:
        """A collection has removed all that it may."""
        self.gone |= self.commits.keys() - self.live()
        self.excused -= self.gone
        self.forgotten &= self.reachable()
