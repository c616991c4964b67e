"""Root keys kept for the user, so that daily commands derive nothing from a passphrase.

One file per repository below the user's configuration: it holds the root key, or says that the
system's keyring does. Reading it never imports the `keyring` package unless it says so.
What is remembered is as safe as the account: whoever can read the user's files can open the repository.
"""

from __future__ import annotations

import hmac
import importlib
import pathlib
from collections.abc import Callable, Mapping
from typing import Protocol

from vimgvc import errors
from vimgvc.codec import keys
from vimgvc.model import encoding
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import keyring, userfiles

SYSTEM = "the system's keyring"
_SERVICE = "vimgvc"
_FILE, _RING = "file", "keyring"
_WHERE = "remembered key"
_AGAIN = "forget it with 'vimgvc key forget' and remember it again"
_SILENT = NullMonitor()


class Ring(Protocol):
    """What is used of the `keyring` package. Any call may raise anything."""

    def get_password(self, service: str, username: str) -> str | None: ...

    def set_password(self, service: str, username: str, password: str) -> None: ...

    def delete_password(self, service: str, username: str) -> None: ...


def system_ring() -> Ring | None:
    """The system's keyring, if its package is installed and it keeps what it is given."""
    try:
        package = importlib.import_module("keyring")
        found: Ring = package.get_keyring()
        # Below 1 are the ones that refuse everything or keep it in a plain file.
        return found if package.get_keyring().priority >= 1 else None
    except Exception:  # noqa: BLE001 - a broken desktop must not stop a backup
        return None


class KeyMemory:
    """Remembered root keys in `directory` (None: there is no place for any) and in a keyring."""

    def __init__(self, directory: pathlib.Path | None, ring: Callable[[], Ring | None] = system_ring) -> None:
        self._directory = directory
        self._ring = ring

    @classmethod
    def of_user(cls, environ: Mapping[str, str]) -> KeyMemory:
        base = userfiles.config_directory(environ)
        return cls(base / "keys" if base else None)

    def remember(self, repo_id: str, unlocked: keyring.Unlocked) -> str:
        """Keep the root key; says where: `SYSTEM` or the path of a file."""
        path = self._path(repo_id)
        if path is None:
            raise errors.UsageError("there is no place to remember a key in", hint="set HOME or XDG_CONFIG_HOME")
        facts = {
            "config": unlocked.config.decode(),
            "fingerprint": keys.PurposeKeys(unlocked.root).fingerprint,
            "v": 1,
        }
        root = unlocked.root.hex()
        if self._to_ring(repo_id, root):
            userfiles.replace(path, encoding.dumps_canonical({**facts, "where": _RING}))
            return SYSTEM
        userfiles.replace(path, encoding.dumps_canonical({**facts, "root": root, "where": _FILE}))
        return str(path)

    def recall(self, repo_id: str, monitor: Monitor = _SILENT) -> keyring.Unlocked | None:
        """What was remembered; None when nothing was, or when it is unsafe or damaged (which is reported)."""
        path = self._path(repo_id)
        try:
            data = None if path is None else userfiles.read(path, forbidden=userfiles.READABLE)
            return None if data is None else self._parse(repo_id, data)
        except errors.VimgvcError as error:
            monitor.problem(f"the remembered key is not used: {error.message}; {error.hint}")
            return None

    def forget(self, repo_id: str) -> bool:
        """Whether there was anything to forget."""
        path = self._path(repo_id)
        # Also when the file says otherwise: what was remembered earlier may be there.
        self._ask_ring(lambda ring: ring.delete_password(_SERVICE, repo_id))
        return path is not None and userfiles.remove(path)

    def _path(self, repo_id: str) -> pathlib.Path | None:
        encoding.check_hex(repo_id, 16, "repository identifier")
        return None if self._directory is None else self._directory / f"{repo_id}.json"

    def _parse(self, repo_id: str, data: bytes) -> keyring.Unlocked:
        members = encoding.Members(encoding.loads_canonical(data, _WHERE), _WHERE)
        if members.number("v") != 1:
            raise errors.FormatError(_WHERE, "is of another version", hint=_AGAIN)
        config, fingerprint = members.text("config").encode(), members.text("fingerprint")
        if members.text("where") == _FILE:
            root = members.hex("root", keys.ROOT_SIZE)
        else:
            root = self._ask_ring(lambda ring: ring.get_password(_SERVICE, repo_id)) or ""
        members.end()
        key = bytes.fromhex(encoding.check_hex(root, keys.ROOT_SIZE, _WHERE))
        if keys.PurposeKeys(key).fingerprint != fingerprint:
            raise errors.FormatError(_WHERE, "is damaged", hint=_AGAIN)
        return keyring.Unlocked(key, config)

    def _to_ring(self, repo_id: str, root: str) -> bool:
        """Whether the system's keyring took it and gives it back."""

        def keep(ring: Ring) -> str | None:
            ring.set_password(_SERVICE, repo_id, root)
            return ring.get_password(_SERVICE, repo_id)

        return hmac.compare_digest((self._ask_ring(keep) or "").encode(), root.encode())

    def _ask_ring(self, call: Callable[[Ring], str | None]) -> str | None:
        """The answer of the system's keyring; None when there is none or it fails."""
        ring = self._ring()
        try:
            return None if ring is None else call(ring)
        except Exception:  # noqa: BLE001 - the package raises whatever its desktop does
            return None
