"""The other places that this user copies a repository to and from, by short names.

One file per repository below the user's configuration, never in the repository: whoever can write there must not say
where the next push goes. A URL is kept as its backend spells it: complete, and without credentials.
"""

from __future__ import annotations

import contextlib
import pathlib
from collections.abc import Mapping
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.model import encoding, reflog
from vimgvc.repo import userfiles

#: What a clone calls the place it came from.
ORIGIN = "origin"
#: How branches are called that follow a place which has no name.
FETCHED = "fetched"
#: And those that keep what lost a race (`repo.names`).
_CONFLICT = "conflict"
_WHERE = "list of remotes"


@dataclass(frozen=True, slots=True)
class Remote:
    name: str
    url: str


@dataclass(frozen=True, slots=True)
class Remotes:
    """Of the repository `repo_id`; `directory` None: a user without a home has none."""

    directory: pathlib.Path | None
    repo_id: str

    @classmethod
    def of_user(cls, environ: Mapping[str, str], repo_id: str) -> Remotes:
        base = userfiles.config_directory(environ)
        return cls(base / "remotes" if base else None, repo_id)

    def all(self) -> list[Remote]:
        """By name. Raises `FormatError` for a file that is damaged."""
        data = None if self.directory is None else userfiles.read(self._path, forbidden=userfiles.WRITABLE)
        if data is None:
            return []
        members = encoding.Members(encoding.loads_canonical(data, _WHERE), _WHERE)
        if members.number("v") != 1 or members.text("repository") != self.repo_id:
            raise errors.FormatError(_WHERE, "is of another version or repository", hint=f"look at {self._path}")
        listed = members.get("remotes", dict)
        members.end()
        found = []
        for name, value in sorted(listed.items()):
            facts = encoding.Members(value, _WHERE)
            found.append(Remote(check_name(name), facts.text("url")))
            facts.end()
        return found

    def names(self) -> list[str]:
        return [item.name for item in self.all()]

    def find(self, name: str) -> Remote:
        """Raises `NotFound`."""
        known = self.all()
        for item in known:
            if item.name == name:
                return item
        there = ", ".join(item.name for item in known)
        hint = f"there are: {there}" if there else "add one: vimgvc remote add NAME URL"
        raise errors.NotFound("remote", name, hint=hint)

    def default(self) -> Remote:
        """`origin`, or the only one. Raises `UsageError`."""
        known = self.all()
        for item in known:
            if item.name == ORIGIN or len(known) == 1:
                return item
        if not known:
            raise errors.UsageError("there is no remote", hint="add one: vimgvc remote add NAME URL")
        raise errors.UsageError("which remote?", hint=f"say it: {', '.join(item.name for item in known)}")

    def add(self, name: str, url: str) -> Remote:
        """Raises `UsageError` for a name that is taken or cannot be one."""
        new = Remote(check_name(name), url)
        with self._locked():
            known = self.all()
            if name in [item.name for item in known]:
                raise errors.UsageError(
                    f"there is a remote '{name}' already", hint="choose another name, or remove that one"
                )
            self._save([*known, new])
        return new

    def rename(self, old: str, new: str) -> Remote:
        """Raises `NotFound`, and as `add`."""
        with self._locked():
            before = self.find(old)
            after = Remote(check_name(new), before.url)
            rest = [item for item in self.all() if item.name != old]
            if new in [item.name for item in rest]:
                raise errors.UsageError(f"there is a remote '{new}' already", hint="choose another name")
            self._save([*rest, after])
        return after

    def remove(self, name: str) -> Remote:
        """Raises `NotFound`."""
        with self._locked():
            gone = self.find(name)
            self._save([item for item in self.all() if item.name != name])
        return gone

    @property
    def _path(self) -> pathlib.Path:
        return (self.directory or pathlib.Path()) / f"{self.repo_id}.json"

    def _locked(self) -> contextlib.AbstractContextManager[None]:
        if self.directory is None:
            raise errors.UsageError("there is no place to keep remotes in", hint="set HOME or XDG_CONFIG_HOME")
        return userfiles.locked(self.directory)

    def _save(self, known: list[Remote]) -> None:
        value = {item.name: {"url": item.url} for item in known}
        userfiles.replace(self._path, encoding.dumps_canonical({"remotes": value, "repository": self.repo_id, "v": 1}))


def check_name(name: str) -> str:
    """`name` when a remote can be called that, else `UsageError`: it begins the names of branches."""
    if "/" in name or name in (_CONFLICT, FETCHED):
        raise errors.UsageError(f"not a valid name of a remote: {name!r}", hint="use letters, digits and - _ .")
    try:
        return reflog.check_name(name)
    except errors.UsageError as error:
        raise errors.UsageError(f"not a valid name of a remote: {name!r}", hint=error.hint) from None


def tracking(remote: str, branch: str) -> str:
    """The branch that says where `branch` of a remote was when it was last seen."""
    return reflog.check_name(f"{remote}/{branch}")


def is_tracking(branch: str, names: list[str]) -> bool:
    """Whether a branch follows one of the remotes of these names, or a place without one."""
    return "/" in branch and branch.partition("/")[0] in (*names, FETCHED)
