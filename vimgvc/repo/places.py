"""What places over the network were found to promise, remembered for this user.

Kept in the user's state directory, a file for each place: `probes/<hash of its URL>.json`, canonical
JSON with the URL, what was found (`backends.probe.Answer`) and when. An answer older than 30 days, or
from the future, counts as none; so does one that is damaged. What cannot be kept is asked again.

Whoever opens a backend by URL passes this on, S3 and SFTP alike:

    memory = places.Places.of_user(environ, monitor)
    backend = registry.open_backend(url, environ=environ, memory=memory)

The backend asks it with `recall` before its first blob is put, tries the place if there is no answer,
and tells it with `note`. Unsafe places are refused by the backend and never noted.
"""

from __future__ import annotations

import dataclasses
import pathlib
import time
from collections.abc import Callable, Mapping

from blake3 import blake3

from vimgvc import errors
from vimgvc.backends import probe
from vimgvc.model import encoding
from vimgvc.monitor import Monitor, NullMonitor
from vimgvc.repo import userfiles

#: How long an answer is believed, in seconds.
BELIEVED = 30 * 86400

_WHERE = "remembered place"
_SILENT = NullMonitor()
_FLAGS = tuple(field.name for field in dataclasses.fields(probe.Answer))


class Places:
    """A `backends.probe.Memory` in `directory`; None remembers nothing."""

    def __init__(
        self, directory: pathlib.Path | None, monitor: Monitor = _SILENT, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._directory, self._monitor, self._clock = directory, monitor, clock

    @classmethod
    def of_user(cls, environ: Mapping[str, str], monitor: Monitor = _SILENT) -> Places:
        return cls(userfiles.state_directory(environ), monitor)

    def recall(self, url: str) -> probe.Answer | None:
        if self._directory is None:
            return None
        try:
            data = userfiles.read(self._path(url), forbidden=userfiles.WRITABLE)
            return None if data is None else self._decode(data, url)
        except errors.VimgvcError:
            return None  # costs a few requests

    def note(self, url: str, answer: probe.Answer) -> None:
        if self._directory is None:
            return
        found = {"asked": int(self._clock()), "url": url, "v": 1, **dataclasses.asdict(answer)}
        try:
            userfiles.replace(self._path(url), encoding.dumps_canonical(found))
        except (errors.BackendError, errors.NoSpace) as error:
            self._monitor.note(f"what {url} can do is not remembered: {error.message}")

    def forget(self, url: str) -> None:
        """Have the place tried again at the next writing."""
        if self._directory is not None:
            userfiles.remove(self._path(url))

    def _decode(self, data: bytes, url: str) -> probe.Answer | None:
        members = encoding.Members(encoding.loads_canonical(data, _WHERE), _WHERE)
        members.version(_WHERE)
        if members.text("url") != url:
            raise errors.FormatError(_WHERE, "is about another place")
        age = self._clock() - members.number("asked")
        answer = probe.Answer(**{flag: members.get(flag, bool) for flag in _FLAGS})
        members.end()
        return answer if 0 <= age <= BELIEVED else None

    def _path(self, url: str) -> pathlib.Path:
        assert self._directory is not None
        return self._directory / "probes" / f"{blake3(url.encode()).hexdigest(16)}.json"
