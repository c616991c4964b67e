"""The transmission phase of NBD as two state machines (specs/nbd.md §3), driven as `wire.Feed` says.

Everything that the other side tells is checked before it is used: a reply belongs to a request, lies
inside it, says every byte once, and is complete.
"""

from __future__ import annotations

import bisect
import collections
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

import numpy as np

from vimgvc.disk import extents
from vimgvc.nbd import handshake, wire

_ZEROS = memoryview(bytes(1 << 20))
#: Chunks in one reply beyond one for each 512 bytes, the smallest that a server should send.
_SPARE_CHUNKS = 64
#: The longest read that is answered in one chunk when the client demands that (NBD_CMD_FLAG_DF).
MAX_UNFRAGMENTED = 1 << 19
#: Most extents in one of our answers; the client asks on from where it ends.
_MAX_ANSWERED = 1 << 14
_ERROR_FIXED = wire.CHUNK_ERROR.size + wire.U64.size

_KINDS = (extents.Kind.DATA, extents.Kind.ZERO, extents.Kind.HOLE)
_STATES = {
    extents.Kind.DATA: 0,
    extents.Kind.ZERO: wire.STATE_ZERO,
    extents.Kind.HOLE: wire.STATE_ZERO | wire.STATE_HOLE,
}


@dataclass(slots=True, eq=False)
class Pending:
    """A request of a client; complete when `done`.

    `buffer` takes what a read gives; `found` what is told of extents, from `offset` on, at least one
    and inside the request. With `error` (value, offset or None, message) both are undefined.
    """

    offset: int
    length: int
    buffer: memoryview | None = None
    found: Iterator[extents.Extent] | None = None
    error: tuple[int, int | None, str] | None = None
    done: bool = False
    chunks: int = 0
    covered: list[tuple[int, int]] = field(default_factory=list)

    def claim(self, start: int, length: int) -> None:
        """Bytes `[start, start + length)` of the disk are told now, for the first time."""
        end = start + length
        self.chunks += 1
        if not length or start < self.offset or end > self.offset + self.length:
            raise wire.ProtocolError(f"a chunk of {length} bytes at {start} is outside the read that it answers")
        if self.chunks > self.length // 512 + _SPARE_CHUNKS:
            raise wire.ProtocolError(f"the answer to one read has more than {self.chunks - 1} chunks")
        at = bisect.bisect(self.covered, (start, end))
        before = self.covered[at - 1][1] if at else self.offset
        after = self.covered[at][0] if at < len(self.covered) else self.offset + self.length
        if start < before or end > after:
            raise wire.ProtocolError(f"a chunk of {length} bytes at {start} repeats what another one told")
        low, high = at, at
        if at and before == start:
            low, start = at - 1, self.covered[at - 1][0]
        if at < len(self.covered) and after == end:
            high, end = at + 1, self.covered[at][1]
        self.covered[low:high] = [(start, end)]

    def complete(self) -> bool:
        if self.buffer is not None:
            return self.covered == [(self.offset, self.offset + self.length)]
        return self.found is not None


class Client(wire.Feed):
    """Requests out, replies in; any number of requests in flight."""

    def __init__(self, agreed: handshake.Agreement) -> None:
        self._agreed = agreed
        self._pending: dict[int, Pending] = {}
        self._cookie = 0
        super().__init__(self._steps_of_client())

    @property
    def idle(self) -> bool:
        """No request waits for its reply."""
        return not self._pending

    def read(self, offset: int, buffer: memoryview) -> tuple[bytes, Pending]:
        """A request to send; 0 < bytes <= the agreed maximum, on the agreed grid, inside the disk."""
        return self._request(wire.Command.READ, Pending(offset, buffer.nbytes, buffer))

    def status(self, offset: int, length: int) -> tuple[bytes, Pending]:
        """A request to send; 0 < length < 4 GiB, on the agreed grid, inside the disk."""
        return self._request(wire.Command.BLOCK_STATUS, Pending(offset, length))

    def disconnect(self) -> bytes:
        """The last thing to send."""
        return wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, wire.Command.DISC, 0, 0, 0)

    def _request(self, command: wire.Command, pending: Pending) -> tuple[bytes, Pending]:
        self._cookie += 1
        self._pending[self._cookie] = pending
        head = wire.REQUEST.pack(wire.REQUEST_MAGIC, 0, command, self._cookie, pending.offset, pending.length)
        return head, pending

    def _steps_of_client(self) -> wire.Steps:
        head = memoryview(bytearray(wire.CHUNK.size))
        short = head[: wire.SIMPLE_REPLY.size]
        while True:
            yield short
            (magic,) = wire.U32.unpack_from(head)
            if magic == wire.SIMPLE_REPLY_MAGIC:
                yield from self._simple(short)
            elif magic == wire.CHUNK_MAGIC and self._agreed.structured:
                yield head[len(short) :]
                yield from self._chunk(head)
            else:
                raise wire.ProtocolError(f"a reply begins with {magic:#x}")

    def _find(self, cookie: int) -> Pending:
        try:
            return self._pending[cookie]
        except KeyError:
            raise wire.ProtocolError("a reply belongs to no request") from None

    def _finish(self, cookie: int) -> None:
        pending = self._pending.pop(cookie)
        if pending.error is None and not pending.complete():
            raise wire.ProtocolError(f"the answer about {pending.length} bytes at {pending.offset} is incomplete")
        pending.done = True

    def _simple(self, head: memoryview) -> wire.Steps:
        _, error, cookie = wire.SIMPLE_REPLY.unpack(head)
        pending = self._find(cookie)
        if self._agreed.structured and (pending.buffer is not None or not error):
            raise wire.ProtocolError("a simple reply where a structured one was agreed")
        if error:
            pending.error = error, None, ""
        elif pending.buffer is not None:
            pending.claim(pending.offset, pending.length)
            yield pending.buffer
        self._finish(cookie)

    def _chunk(self, head: memoryview) -> wire.Steps:
        _, flags, kind, cookie, length = wire.CHUNK.unpack(head)
        pending = self._find(cookie)
        done = bool(flags & wire.CHUNK_DONE)
        if kind & wire.CHUNK_IS_ERROR:
            yield from _error_chunk(pending, kind, length)
        elif kind == wire.ChunkType.OFFSET_DATA and pending.buffer is not None:
            yield from _data_chunk(pending, pending.buffer, length)
        elif kind == wire.ChunkType.OFFSET_HOLE and pending.buffer is not None:
            yield from _hole_chunk(pending, pending.buffer, length)
        elif kind == wire.ChunkType.BLOCK_STATUS and pending.buffer is None:
            yield from self._status_chunk(pending, length)
        elif kind != wire.ChunkType.NONE or length or not done:
            raise wire.ProtocolError(f"a chunk of type {kind} and {length} bytes makes no sense here")
        if done:
            self._finish(cookie)

    def _status_chunk(self, pending: Pending, length: int) -> wire.Steps:
        count, rest = divmod(length - wire.U32.size, 8)
        if rest or not 0 < count <= wire.MAX_DESCRIPTORS or pending.found is not None:
            raise wire.ProtocolError(f"an answer about extents of {length} bytes makes no sense")
        context = yield from wire.take(wire.U32.size)
        if self._agreed.context is None or wire.U32.unpack(context)[0] != self._agreed.context:
            raise wire.ProtocolError("an answer about extents is for a context that was not agreed")
        # Straight into the array, which then has the only copy.
        table = np.empty((count, 2), ">u4")
        yield table.data.cast("B")
        pending.found = _descriptors(table, pending, self._agreed.size)


def _data_chunk(pending: Pending, buffer: memoryview, length: int) -> wire.Steps:
    if length <= wire.U64.size:
        raise wire.ProtocolError("a chunk of data has none")
    (offset,) = wire.U64.unpack((yield from wire.take(wire.U64.size)))
    length -= wire.U64.size
    pending.claim(offset, length)
    yield buffer[offset - pending.offset :][:length]


def _hole_chunk(pending: Pending, buffer: memoryview, length: int) -> wire.Steps:
    if length != wire.CHUNK_HOLE.size:
        raise wire.ProtocolError(f"a chunk that tells of a hole has {length} bytes")
    offset, length = wire.CHUNK_HOLE.unpack((yield from wire.take(wire.CHUNK_HOLE.size)))
    pending.claim(offset, length)
    start, end = offset - pending.offset, offset - pending.offset + length
    for at in range(start, end, _ZEROS.nbytes):
        step = min(_ZEROS.nbytes, end - at)
        buffer[at : at + step] = _ZEROS[:step]


def _error_chunk(pending: Pending, kind: int, length: int) -> wire.Steps:
    if not wire.CHUNK_ERROR.size <= length <= wire.MAX_STRING + _ERROR_FIXED:
        raise wire.ProtocolError(f"a chunk that tells of an error has {length} bytes")
    pending.chunks += 1
    data = yield from wire.take(length)
    error, message = wire.CHUNK_ERROR.unpack_from(data)
    rest = data[wire.CHUNK_ERROR.size + message :]
    wanted = wire.U64.size if kind == wire.ChunkType.ERROR_OFFSET else 0
    too_short = wire.CHUNK_ERROR.size + message > length or len(rest) < wanted
    if not error or too_short or pending.chunks > pending.length // 512 + _SPARE_CHUNKS:
        raise wire.ProtocolError("a chunk that tells of an error makes no sense")
    offset: int | None = None
    if wanted:
        (offset,) = wire.U64.unpack_from(rest)
        if not pending.offset <= offset < pending.offset + pending.length:
            raise wire.ProtocolError(f"an error at {offset} is outside the request that it answers")
    if pending.error is None:
        pending.error = error, offset, wire.text(data[wire.CHUNK_ERROR.size :][:message])


def _descriptors(table: np.ndarray, pending: Pending, size: int) -> Iterator[extents.Extent]:
    """The extents of an answer: checked whole, then told one by one, merged and clipped."""
    lengths = table[:, 0].astype(np.uint64)
    ends = np.cumsum(lengths)
    if not lengths.all():
        raise wire.ProtocolError("an extent has no length")
    if (len(ends) > 1 and ends[-2] >= pending.length) or int(ends[-1]) > size - pending.offset:
        raise wire.ProtocolError(f"the extents from {pending.offset} go beyond what was asked for")
    # Only what reads as zeros is one; a hole of undefined content is data.
    states = table[:, 1]
    kinds = np.where(states & wire.STATE_ZERO != 0, 1 + (states & wire.STATE_HOLE), 0)
    last = np.append(np.flatnonzero(kinds[1:] != kinds[:-1]), len(kinds) - 1)
    return _told(kinds[last], np.minimum(ends[last], pending.length), pending.offset)


def _told(kinds: np.ndarray, ends: np.ndarray, offset: int) -> Iterator[extents.Extent]:
    start = 0
    for kind, end in zip(kinds.tolist(), ends.tolist(), strict=True):
        yield extents.Extent(offset + start, end - start, _KINDS[kind])
        start = end


@dataclass(frozen=True, slots=True)
class Request:
    """What a client wants: a READ or BLOCK_STATUS inside the disk, unless `error` is to be answered."""

    command: int
    cookie: int
    offset: int
    length: int
    flags: int
    error: wire.Error | None = None


class Server(wire.Feed):
    """Requests in, replies out. Ends (`wanted()` is None) when the client says goodbye."""

    def __init__(self, agreed: handshake.Agreement) -> None:
        self._agreed = agreed
        #: Requests that came, in order; whoever answers takes them out.
        self.requests: collections.deque[Request] = collections.deque()
        super().__init__(self._steps_of_server())

    @property
    def structured(self) -> bool:
        return self._agreed.structured

    def _steps_of_server(self) -> wire.Steps:
        head = memoryview(bytearray(wire.REQUEST.size))
        while True:
            yield head
            magic, flags, command, cookie, offset, length = wire.REQUEST.unpack(head)
            if magic != wire.REQUEST_MAGIC:
                raise wire.ProtocolError(f"a request begins with {magic:#x}")
            if command == wire.Command.DISC:
                return
            if command == wire.Command.WRITE:
                if length > wire.MAX_REQUEST:
                    raise wire.ProtocolError(f"a write of {length} bytes")
                yield from wire.skip(length)
            error = self._mistake(command, flags, offset, length)
            self.requests.append(Request(command, cookie, offset, length, flags, error))

    def _mistake(self, command: int, flags: int, offset: int, length: int) -> wire.Error | None:
        if command in (wire.Command.WRITE, wire.Command.TRIM, wire.Command.WRITE_ZEROES):
            return wire.Error.EPERM
        allowed = 0
        if command == wire.Command.READ:
            allowed = wire.CommandFlag.DF if self._agreed.structured else 0
        elif command == wire.Command.BLOCK_STATUS and self._agreed.context is not None:
            allowed = wire.CommandFlag.REQ_ONE
        else:
            return wire.Error.EINVAL
        if flags & ~allowed or not length or offset + length > self._agreed.size:
            return wire.Error.EINVAL
        if command == wire.Command.READ and length > (MAX_UNFRAGMENTED if flags else wire.MAX_REQUEST):
            return wire.Error.EOVERFLOW if flags else wire.Error.EINVAL
        return None

    def data(self, request: Request, offset: int, length: int, *, done: bool) -> bytes:
        """The head of `length` bytes of the disk, which follow; `done` when they end the reply.

        Without structured replies there is one for the whole request, before its first byte.
        """
        if not self._agreed.structured:
            return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, 0, request.cookie)
        return _head(request, wire.ChunkType.OFFSET_DATA, 8 + length, done=done) + wire.U64.pack(offset)

    def hole(self, request: Request, offset: int, length: int, *, done: bool) -> bytes:
        """Zeros; with structured replies only."""
        head = _head(request, wire.ChunkType.OFFSET_HOLE, wire.CHUNK_HOLE.size, done=done)
        return head + wire.CHUNK_HOLE.pack(offset, length)

    def error(self, request: Request, error: wire.Error, message: str = "", offset: int | None = None) -> bytes:
        """The end of a reply: what failed and, for requests inside the disk, at which byte of it."""
        if not self._agreed.structured:
            return wire.SIMPLE_REPLY.pack(wire.SIMPLE_REPLY_MAGIC, error, request.cookie)
        text = message.encode("utf-8", "replace")[: wire.MAX_STRING]
        data = wire.CHUNK_ERROR.pack(error, len(text)) + text
        kind = wire.ChunkType.ERROR
        if offset is not None:
            kind, data = wire.ChunkType.ERROR_OFFSET, data + wire.U64.pack(offset)
        return _head(request, kind, len(data), done=True) + data

    def status(self, request: Request, items: Iterable[extents.Extent]) -> bytes:
        """The answer to BLOCK_STATUS from extents that cover the request; it may end early."""
        most = 1 if request.flags & wire.CommandFlag.REQ_ONE else _MAX_ANSWERED
        told = [struct for struct, _ in zip(_pack_states(items), range(most), strict=False)]
        data = wire.U32.pack(self._agreed.context or 0) + b"".join(told)
        return _head(request, wire.ChunkType.BLOCK_STATUS, len(data), done=True) + data


def _pack_states(items: Iterable[extents.Extent]) -> Iterator[bytes]:
    for item in items:
        yield wire.U32.pack(item.length) + wire.U32.pack(_STATES[item.kind])


def _head(request: Request, kind: int, length: int, *, done: bool) -> bytes:
    return wire.CHUNK.pack(wire.CHUNK_MAGIC, wire.CHUNK_DONE if done else 0, kind, request.cookie, length)
