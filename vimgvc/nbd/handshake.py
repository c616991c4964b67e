"""The handshake of NBD as two state machines: fixed newstyle, ended by NBD_OPT_GO (specs/nbd.md §2).

Each is driven as `wire.Feed` says; before every look at `wanted()`, `outgoing()` is sent. At the end
`agreement` tells what transmission works with.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from dataclasses import dataclass

from vimgvc.nbd import wire

#: Context id of base:allocation on our server: any number does.
_CONTEXT = 1
#: What a server puts up with before it hangs up.
_MAX_ERRORS = 32
_MAX_OPTIONS = 256
#: Options that are too long are skipped up to here; longer ones end the connection.
_MAX_SKIPPED = 1 << 16
#: Replies that a client reads to one option.
_MAX_REPLIES = 64

_SERVER_FLAGS = wire.HandshakeFlag.FIXED_NEWSTYLE | wire.HandshakeFlag.NO_ZEROES
_PREFERRED = 4096


@dataclass(frozen=True, slots=True)
class Agreement:
    """What both sides know when transmission begins.

    `context` is the id under which base:allocation is reported, None without it. `minimum` divides
    offsets and lengths of all requests; `maximum` bounds what one read may ask for.
    """

    size: int
    flags: int
    structured: bool
    context: int | None
    minimum: int = 1
    maximum: int = wire.MAX_REQUEST


class _Side(wire.Feed):
    agreement: Agreement | None = None

    def __init__(self, steps: wire.Steps) -> None:
        self._out: list[bytes] = []
        super().__init__(steps)

    def outgoing(self) -> bytes:
        """What is to be sent now; each byte is given once."""
        out = b"".join(self._out)
        self._out.clear()
        return out


class Client(_Side):
    """Asks for `export`, structured replies and base:allocation."""

    def __init__(self, export: str) -> None:
        self._name = export.encode()
        if len(self._name) > wire.MAX_STRING:
            raise wire.ProtocolError(f"the name of an export has at most {wire.MAX_STRING} bytes")
        super().__init__(self._steps_of_client())

    def _steps_of_client(self) -> wire.Steps:
        magic, style, flags = wire.GREETING.unpack((yield from wire.take(wire.GREETING.size)))
        if magic != wire.GREETING_MAGIC:
            raise wire.ProtocolError("the other side does not speak NBD")
        if style != wire.OPTION_MAGIC or not flags & wire.HandshakeFlag.FIXED_NEWSTYLE:
            raise wire.ProtocolError("the server speaks only an old form of NBD, without fixed newstyle negotiation")
        self._out.append(wire.CLIENT_FLAGS.pack(flags & _SERVER_FLAGS))

        structured = (yield from self._ask(wire.Option.STRUCTURED_REPLY, b""))[-1][0] == wire.Rep.ACK
        context = (yield from self._ask_context()) if structured else None
        yield from self._ask_go(context, structured=structured)

    def _ask(self, option: wire.Option, data: bytes) -> Generator[memoryview, None, list[tuple[int, bytes]]]:
        """Send an option: all replies, the last of which is ACK or an error."""
        self._out += [wire.OPTION.pack(wire.OPTION_MAGIC, option, len(data)), data]
        replies: list[tuple[int, bytes]] = []
        while len(replies) < _MAX_REPLIES:
            head = yield from wire.take(wire.OPTION_REPLY.size)
            magic, about, kind, length = wire.OPTION_REPLY.unpack(head)
            if magic != wire.OPTION_REPLY_MAGIC or about != option:
                raise wire.ProtocolError("the answer to an option is for another one")
            if length > wire.MAX_OPTION_REPLY:
                raise wire.ProtocolError(
                    f"an answer to an option has {length} bytes, at most {wire.MAX_OPTION_REPLY} are allowed"
                )
            replies.append((kind, (yield from wire.take(length))))
            if kind == wire.Rep.ACK or kind & wire.REP_IS_ERROR:
                return replies
        raise wire.ProtocolError(f"more than {_MAX_REPLIES} answers to one option")

    def _ask_context(self) -> Generator[memoryview, None, int | None]:
        name, query = self._name, wire.ALLOCATION
        data = _counted(name) + wire.U32.pack(1) + _counted(query)
        *given, (end, _) = yield from self._ask(wire.Option.SET_META_CONTEXT, data)
        if end != wire.Rep.ACK:
            return None
        found = [reply for kind, reply in given if kind == wire.Rep.META_CONTEXT]
        if any(reply[4:] != query for reply in found) or len(found) > 1:
            raise wire.ProtocolError("the server gives metadata contexts that were not asked for")
        return int(wire.U32.unpack_from(found[0])[0]) if found else None

    def _ask_go(self, context: int | None, *, structured: bool) -> wire.Steps:
        data = _counted(self._name) + wire.U16.pack(1) + wire.U16.pack(wire.Info.BLOCK_SIZE)
        *given, (end, text) = yield from self._ask(wire.Option.GO, data)
        if end != wire.Rep.ACK:
            raise _refusal(end, text, wire.text(self._name))
        export: tuple[int, int] | None = None
        limits = (1, wire.MAX_REQUEST)
        for kind, reply in given:
            if kind != wire.Rep.INFO or len(reply) < wire.U16.size:
                raise wire.ProtocolError("an answer to NBD_OPT_GO is no information")
            what = wire.U16.unpack_from(reply)[0]
            if what == wire.Info.EXPORT:
                export = _export_info(reply)
            elif what == wire.Info.BLOCK_SIZE:
                limits = _block_sizes(reply)
        if export is None:
            raise wire.ProtocolError("the server does not tell the size of the export")
        size, flags = export
        if size % limits[0]:
            raise wire.ProtocolError(f"the size of the export, {size}, is no multiple of its block size, {limits[0]}")
        self.agreement = Agreement(size, flags, structured, context, *limits)


class Server(_Side):
    """Offers one export of `size` bytes, read-only, under the name `export`.

    `agreement` stays None when the client leaves.
    """

    def __init__(self, export: str, size: int) -> None:
        self._name, self._size = export.encode(), size
        self._structured, self._context = False, False
        super().__init__(self._steps_of_server())

    def _steps_of_server(self) -> wire.Steps:
        self._out.append(wire.GREETING.pack(wire.GREETING_MAGIC, wire.OPTION_MAGIC, _SERVER_FLAGS))
        (flags,) = wire.CLIENT_FLAGS.unpack((yield from wire.take(wire.CLIENT_FLAGS.size)))
        if flags & ~_SERVER_FLAGS or not flags & wire.HandshakeFlag.FIXED_NEWSTYLE:
            raise wire.ProtocolError(f"client flags {flags:#x} are not fixed newstyle")
        mistakes = 0
        for _ in range(_MAX_OPTIONS):
            magic, option, length = wire.OPTION.unpack((yield from wire.take(wire.OPTION.size)))
            if magic != wire.OPTION_MAGIC:
                raise wire.ProtocolError("what should be an option is none")
            if length > wire.MAX_OPTION:
                yield from self._too_long(option, length)
                mistakes += 1
            elif option == wire.Option.EXPORT_NAME:
                self._old_end((yield from wire.take(length)), zeroes=not flags & wire.HandshakeFlag.NO_ZEROES)
                return
            else:
                answer = self._answer(option, (yield from wire.take(length)))
                mistakes += answer != wire.Rep.ACK
                self._reply(option, answer)
                if self.agreement is not None or option == wire.Option.ABORT:
                    return
            if mistakes >= _MAX_ERRORS:
                raise wire.ProtocolError(f"{mistakes} options were wrong")
        raise wire.ProtocolError(f"no export was chosen with {_MAX_OPTIONS} options")

    def _too_long(self, option: int, length: int) -> wire.Steps:
        if length > _MAX_SKIPPED or option == wire.Option.EXPORT_NAME:
            raise wire.ProtocolError(f"an option has {length} bytes")
        yield from wire.skip(length)
        self._reply(option, wire.Rep.ERR_TOO_BIG)

    def _reply(self, option: int, kind: int, data: bytes = b"") -> None:
        self._out += [wire.OPTION_REPLY.pack(wire.OPTION_REPLY_MAGIC, option, kind, len(data)), data]

    def _answer(self, option: int, data: bytes) -> wire.Rep:
        """Do what an option asks, sending all but the last reply, which is returned."""
        match option:
            case wire.Option.ABORT:
                return wire.Rep.ACK
            case wire.Option.LIST if not data:
                self._reply(option, wire.Rep.SERVER, _counted(self._name))
                return wire.Rep.ACK
            case wire.Option.STRUCTURED_REPLY if not data:
                self._structured = True
                return wire.Rep.ACK
            case wire.Option.LIST | wire.Option.STRUCTURED_REPLY:
                return wire.Rep.ERR_INVALID
            case wire.Option.INFO | wire.Option.GO:
                return self._go(option, data)
            case wire.Option.LIST_META_CONTEXT | wire.Option.SET_META_CONTEXT:
                return self._contexts(option, data)
            case _:
                return wire.Rep.ERR_UNSUP

    def _go(self, option: int, data: bytes) -> wire.Rep:
        parsed = _parse_go(data)
        if parsed is None:
            return wire.Rep.ERR_INVALID
        name, wishes = parsed
        if name != self._name:
            return wire.Rep.ERR_UNKNOWN
        self._reply(option, wire.Rep.INFO, wire.INFO_EXPORT.pack(wire.Info.EXPORT, self._size, self._flags()))
        if wire.Info.NAME in wishes:
            self._reply(option, wire.Rep.INFO, wire.U16.pack(wire.Info.NAME) + self._name)
        if wire.Info.BLOCK_SIZE in wishes:
            sizes = wire.INFO_BLOCK_SIZE.pack(wire.Info.BLOCK_SIZE, 1, _PREFERRED, wire.MAX_REQUEST)
            self._reply(option, wire.Rep.INFO, sizes)
        if option == wire.Option.GO:
            self._agree()
        return wire.Rep.ACK

    def _contexts(self, option: int, data: bytes) -> wire.Rep:
        setting = option == wire.Option.SET_META_CONTEXT
        self._context = self._context and not setting
        parsed = _parse_contexts(data) if self._structured else None
        if parsed is None:
            return wire.Rep.ERR_INVALID
        name, queries = parsed
        if name != self._name:
            return wire.Rep.ERR_UNKNOWN
        listed = not setting and (not queries or b"base:" in queries)
        if listed or wire.ALLOCATION in queries:
            self._context = self._context or setting
            number = wire.U32.pack(_CONTEXT if setting else 0)
            self._reply(option, wire.Rep.META_CONTEXT, number + wire.ALLOCATION)
        return wire.Rep.ACK

    def _old_end(self, name: bytes, *, zeroes: bool) -> None:
        if name != self._name:
            raise wire.ProtocolError("the client asks for an export that does not exist")
        self._out += [wire.U64.pack(self._size), wire.U16.pack(self._flags()), bytes(124 if zeroes else 0)]
        self._agree()

    def _agree(self) -> None:
        context = _CONTEXT if self._context else None
        self.agreement = Agreement(self._size, self._flags(), self._structured, context)

    def _flags(self) -> int:
        flags = wire.ExportFlag.HAS_FLAGS | wire.ExportFlag.READ_ONLY | wire.ExportFlag.CAN_MULTI_CONN
        return flags | wire.ExportFlag.SEND_DF if self._structured else flags


def _counted(name: bytes) -> bytes:
    return wire.U32.pack(len(name)) + name


def _export_info(reply: bytes) -> tuple[int, int]:
    if len(reply) != wire.INFO_EXPORT.size:
        raise wire.ProtocolError("the description of the export has a wrong length")
    _, size, flags = wire.INFO_EXPORT.unpack(reply)
    if size > wire.MAX_SIZE or not flags & wire.ExportFlag.HAS_FLAGS:
        raise wire.ProtocolError(f"an export of {size} bytes with flags {flags:#x} makes no sense")
    return size, flags


def _block_sizes(reply: bytes) -> tuple[int, int]:
    """Minimum block and largest request."""
    if len(reply) != wire.INFO_BLOCK_SIZE.size:
        raise wire.ProtocolError("the block sizes of the export have a wrong length")
    _, minimum, _, maximum = wire.INFO_BLOCK_SIZE.unpack(reply)
    if minimum.bit_count() != 1 or minimum > wire.MAX_MINIMUM_BLOCK or maximum < minimum:
        raise wire.ProtocolError(f"block sizes from {minimum} to {maximum} make no sense")
    return minimum, min(maximum, wire.MAX_REQUEST) // minimum * minimum


def _refusal(kind: int, text: bytes, name: str) -> wire.ProtocolError:
    why = {
        wire.Rep.ERR_UNKNOWN: f"has no export called '{name}'",
        wire.Rep.ERR_TLS_REQD: "demands TLS",
        wire.Rep.ERR_UNSUP: "does not know NBD_OPT_GO",
        wire.Rep.ERR_SHUTDOWN: "is shutting down",
    }.get(wire.Rep(kind) if kind in set(wire.Rep) else wire.Rep.ACK, f"refuses the export (answer {kind:#x})")
    said = f": {wire.text(text)}" if text else ""
    return wire.ProtocolError(f"the server {why}{said}", kind="refused")


def _parse_go(data: bytes) -> tuple[bytes, set[int]] | None:
    """Name and wanted information of NBD_OPT_INFO and NBD_OPT_GO; None if malformed."""
    if len(data) < wire.U32.size + wire.U16.size:
        return None
    (length,) = wire.U32.unpack_from(data)
    rest = data[wire.U32.size + length :]
    if len(rest) < wire.U16.size or len(rest) != wire.U16.size * (1 + wire.U16.unpack_from(rest)[0]):
        return None
    wishes = {number for (number,) in wire.U16.iter_unpack(rest[wire.U16.size :])}
    return data[wire.U32.size :][:length], wishes


def _parse_contexts(data: bytes) -> tuple[bytes, list[bytes]] | None:
    """Name and queries of the options about metadata contexts; None if malformed."""
    try:
        parts = _strings(data)
        name = next(parts)
        queries = list(parts)
    except (ValueError, StopIteration):
        return None
    return name, queries


def _strings(data: bytes) -> Iterator[bytes]:
    """A counted string, a count, and that many counted strings; `ValueError` unless that is all."""

    def number(at: int) -> int:
        if at + wire.U32.size > len(data):
            raise ValueError
        return int(wire.U32.unpack_from(data, at)[0])

    def string(at: int) -> tuple[bytes, int]:
        start = at + wire.U32.size
        end = start + number(at)
        if end > len(data):
            raise ValueError
        return data[start:end], end

    name, at = string(0)
    yield name
    count, at = number(at), at + wire.U32.size
    for _ in range(count):
        query, at = string(at)
        yield query
    if at != len(data):
        raise ValueError
