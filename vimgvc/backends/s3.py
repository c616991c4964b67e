"""A bucket of an S3 server, or a prefix in one, as a Backend (specs/places.md).

A blob is one PUT with `If-None-Match: *`: complete and durable when it is answered, or absent. No upload in
parts, which would not honour the condition everywhere, and could be left behind; no lock; nothing is ever
overwritten. What a server says is checked as far as it can be: lengths, ranges, the digest of what arrived,
and that an answer is S3's and not some page. Bytes get their identity above, from the program's own hashes.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

from vimgvc import errors, threads
from vimgvc.backends import (
    probe,
    protocol,
    rates,
    retries,
    s3_client,
    s3_credentials,
    s3_object,
    s3_url,
    s3_wire,
    skeleton,
)

#: Calls in flight that are worth it: measured in specs/decisions/0025-s3.md.
PARALLEL = 8
#: Names that the program's own trials take, below the prefix; no listing of blobs looks there.
_TRIALS = "probe/"
_WORDS = (b"first", b"second")
#: How often several create a name at once in a trial, and with how many times 32 bytes. OpenStack Swift gave the
#: name to more than one in every second round; eight let one such server in 200 pass.
_ROUNDS, _TRIAL_SIZE = 8, 512


def open_backend(
    url: str,
    *,
    create: bool = False,
    look: bool = True,
    environ: Mapping[str, str],
    memory: probe.Memory | None = None,
) -> S3Backend:
    """The backend at `url`. Raises `NoRepository`, `RemoteError`, or with `create` `UsageError` where something is.

    Without `look` it may be that there is nothing.
    """
    backend = connect(url, environ=environ, memory=memory)
    try:
        if create or look:
            backend.begin(create=create)
    except BaseException:
        backend.close()
        raise
    return backend


def connect(
    url: str,
    *,
    environ: Mapping[str, str],
    memory: probe.Memory | None = None,
    patience: retries.Patience = retries.PATIENCE,
    times: s3_wire.Times = s3_wire.TIMES,
    page: int = s3_object.PAGE,
    limits: rates.Limits | None = None,
    max_names: int = s3_object.MAX_NAMES,
) -> S3Backend:
    """The place at `url`, whatever is there; nothing is asked yet. `page`: names in one answer of a listing.

    Without `limits` those count that `environ` asks for.
    """
    if not s3_url.environ_region(environ) and (region := s3_credentials.region_of_profile(environ)):
        environ = {**environ, "AWS_REGION": region}
    address = s3_url.parse(url, environ)
    region = address.region or s3_url.environ_region(environ) or s3_url.DEFAULT_REGION
    wire = s3_wire.Wire(address.origin, environ, times, limits or rates.Limits.of(environ))
    client = s3_client.Client(address, region, wire, s3_credentials.Source(environ))
    retrier = retries.Retrier(patience)
    return S3Backend(address, s3_object.Objects(client, retrier, page, max_names), wire, retrier, memory)


class S3Backend:
    """Made by `open_backend` or `connect`."""

    def __init__(
        self,
        address: s3_url.Address,
        objects: s3_object.Objects,
        wire: s3_wire.Wire,
        retrier: retries.Retrier,
        memory: probe.Memory | None,
        *,
        rng: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self._url = address.url
        self._prefix = f"{address.prefix}/" if address.prefix else ""
        self._objects, self._wire, self._retrier, self._rng = objects, wire, retrier, rng
        self._probing = probe.Probing(self._url, self._try_out, self._unsafe, memory)
        self._failure: errors.VimgvcError | None = None
        self._may_delete = True
        #: What the trial found wrong.
        self._flaw = "the server was found to be unsafe before"
        threads.can_wait(self)

    def begin(self, *, create: bool) -> None:
        """See that there is a repository, or with `create` that there is room for one."""
        if not create:
            skeleton.require(self)
            return
        if skeleton.is_repository(self) or any(True for area in protocol.AREAS for _ in self.list(area)):
            raise errors.UsageError(
                f"there is a repository in {self._url} already, or what an interrupted 'init' left",
                hint="choose another prefix, or use this one",
            )
        self._probing.settle(anew=True)

    @property
    def url(self) -> str:
        return self._url

    @property
    def capabilities(self) -> protocol.Capabilities:
        known = self._probing.known()
        return protocol.Capabilities(
            durable=True,
            exclusive_create=known is None or known.exclusive_create,
            locks=False,
            removes=self._may_delete and (known is None or known.removes),
            parallel=PARALLEL,
        )

    # --- blobs -----------------------------------------------------------------------------------

    def put(self, name: str, parts: Sequence[protocol.Buffer]) -> bool:
        key = self._key(protocol.validate_name(name))
        self._probing.settle()
        doubt = s3_object.Doubt()
        try:
            return self._objects.create(key, s3_object.Body(parts), name, doubt)
        except BaseException:
            if doubt.there:
                self._failure = errors.RemoteError(
                    self._url, "in doubt", f"whether {name} is stored is not known", hint="run the same command again"
                )
            raise

    def sync(self) -> None:
        # What was answered is durable. What was not may be there, or may come to be there.
        if self._failure is not None:
            raise self._failure

    def get(self, name: str, offset: int = 0, length: int | None = None) -> bytes:
        key = self._key(protocol.validate_name(name))
        protocol.validate_range(offset, length)
        return self._objects.read(key, name, offset, length)

    def size(self, name: str) -> int:
        return self._objects.size(self._key(protocol.validate_name(name)), name)

    def list(self, area: str) -> Iterator[protocol.Item]:
        base = self._key(protocol.validate_area(area)) + "/"
        for entry in self._objects.entries(base):
            name = entry.key[len(self._prefix) :]
            if entry.key.startswith(base) and protocol.is_name(name):
                yield protocol.Item(name, entry.size)

    def lock_shared(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def lock_exclusive(self) -> contextlib.AbstractContextManager[None]:
        raise errors.Unsupported(f"locks in {self._url}", hint="none is needed to write or read there")

    def delete(self, name: str) -> None:
        self.delete_all([name])

    def delete_all(self, names: Iterable[str]) -> None:
        keys = [self._key(protocol.validate_name(name)) for name in names]
        try:
            self._objects.delete(keys)
        except errors.RemoteError as error:
            self._may_delete = self._may_delete and error.kind != "denied"
            raise

    def set_aside(self, name: str) -> None:
        key = self._key(protocol.validate_name(name))
        for free in protocol.aside_names(name):
            if self._objects.move(key, self._key(f"quarantine/{free}")):
                return

    def remove_stale(self, now: float) -> int:
        """Trials that were interrupted; nothing else is ever left."""
        limit = now - skeleton.STALE_SECONDS
        stale = [entry.key for entry in self._objects.entries(self._key(_TRIALS)) if 0 < entry.written < limit]
        self._objects.delete(stale)
        return len(stale)

    def close(self) -> None:
        self._retrier.stop()
        self._wire.close()

    def interrupt(self) -> None:
        self.close()

    def _try_out(self) -> probe.Answer:
        """Create a name twice, and names by several at once; read a part, remove all of it."""
        base = self._key(f"{_TRIALS}{self._rng(16).hex()}")
        tried = [self._objects.create(base, s3_object.Body([word]), base, s3_object.Doubt()) for word in _WORDS]
        self._flaw = "" if tried == [True, False] else "the server ignores If-None-Match"
        rounds = [] if self._flaw else [f"{base}-{number}" for number in range(_ROUNDS)]
        if not all(self._is_given_once(key) for key in rounds):
            self._flaw = "the server honours If-None-Match, but not for those that come at the same time"
        ranges = not self._flaw and self._objects.reads_parts(base, _WORDS[0])
        removes = True
        try:
            self._objects.delete([base, *rounds])
        except errors.RemoteError as error:
            if error.kind != "denied":
                raise
            removes = False
        return probe.Answer(exclusive_create=not self._flaw, ranges=ranges, removes=removes, durable=True)

    def _is_given_once(self, key: str) -> bool:
        """Whether of several that create a name at once one is told so, and has its bytes there."""
        from concurrent import futures

        bodies = [self._rng(32) * _TRIAL_SIZE for _ in range(PARALLEL)]

        def create(body: bytes) -> bool:
            return self._objects.create(key, s3_object.Body([body]), key, s3_object.Doubt())

        with futures.ThreadPoolExecutor(len(bodies), "vimgvc-trial") as crew:
            won = [body for body, mine in zip(bodies, crew.map(create, bodies), strict=True) if mine]
        return len(won) == 1 and self._objects.read(key, key, 0, None) == won[0]

    def _unsafe(self, answer: probe.Answer) -> str:
        if not answer.exclusive_create:
            return f"{self._flaw}: two writers would overwrite each other"
        return "" if answer.ranges else "the server ignores Range: all of a pack would be fetched for each part of it"

    def _key(self, name: str) -> str:
        return self._prefix + name
