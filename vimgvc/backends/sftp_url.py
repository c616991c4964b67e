"""What an SFTP URL says: `sftp://[USER@]HOST[:PORT]/PATH`.

The path is absolute; `/~/PATH` counts from the directory that the server logs the user in to. USER, PORT, keys and
the way to the host come from `~/.ssh/config` where the URL does not say them. A password is not taken: it would be in
the history of the shell and in the list of processes (N22).
"""

from __future__ import annotations

import re
import urllib.parse
from dataclasses import dataclass

from vimgvc import errors

#: As specs/places.md shows it to users.
FORM = "sftp://USER@HOST/PATH"

# What a ProxyCommand of the user's configuration may put into a shell is of harmless characters, and no option.
_HOST = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,252}|[0-9A-Fa-f:.]{2,45}(?:%[A-Za-z0-9_.-]{1,32})?")
_USER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.@+\\-]{0,127}\$?")
_MAX_URL = 4096


@dataclass(frozen=True, slots=True)
class Address:
    """`user` is empty and `port` None where ssh's own configuration decides; `path` as the server gets it."""

    user: str
    host: str
    port: int | None
    path: bytes

    @property
    def url(self) -> str:
        """The address in its one canonical form."""
        user = f"{urllib.parse.quote(self.user, safe='@+')}@" if self.user else ""
        host = f"[{self.host.replace('%', '%25')}]" if ":" in self.host else self.host
        port = "" if self.port is None else f":{self.port}"
        path = self.path if self.path.startswith(b"/") else b"/~/" + self.path
        return f"sftp://{user}{host}{port}{urllib.parse.quote(path)}"


def parse(url: str) -> Address:
    """Raises `UsageError`, whose message shows no part that may be secret."""
    if len(url) > _MAX_URL or not url.isprintable():
        raise _refused("not a URL")
    try:
        parts = urllib.parse.urlsplit(url)
        port = parts.port
    except ValueError:
        raise _refused("not a URL: the port or the host makes no sense") from None
    if parts.password is not None:
        raise errors.UsageError(
            "the URL has a password in it, which others could see",
            hint="leave it out, and use a key: ssh-agent, or IdentityFile in ~/.ssh/config",
        )
    if parts.query or parts.fragment:
        raise _refused("an sftp:// URL has neither ? nor #")
    user = urllib.parse.unquote(parts.username or "")
    host = urllib.parse.unquote(parts.hostname or "")
    if not _HOST.fullmatch(host):
        raise _refused(f"not the name of a host: {host!r}")
    if user and not _USER.fullmatch(user):
        raise _refused(f"not the name of a user: {user!r}")
    return Address(user, host, port, _path(parts.path))


def _path(quoted: str) -> bytes:
    path = urllib.parse.unquote_to_bytes(quoted)
    if b"\0" in path:
        raise _refused("not the path of a directory")
    path = re.sub(rb"/+", b"/", path).rstrip(b"/")
    if path.startswith(b"/~/"):
        path = path[3:]
    if path in (b"", b"/~"):
        raise _refused("the URL names no directory for the repository")
    return path


def _refused(reason: str) -> errors.UsageError:
    return errors.UsageError(reason, hint=f"the form is {FORM}")
