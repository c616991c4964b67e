"""Numbers and fixed structures of the NBD protocol (specs/nbd.md), and how its state machines are fed.

The machines do no input or output. Whoever has the connection asks `wanted()` for the memory to fill
next, puts bytes there, tells `received()` how many, and sends what the machine gives it to send.
Payload goes straight to where it belongs, and any split of the stream gives the same result.
"""

from __future__ import annotations

import enum
import struct
from collections.abc import Generator

from vimgvc import errors

GREETING_MAGIC = 0x4E42444D41474943  # "NBDMAGIC"
OPTION_MAGIC = 0x49484156454F5054  # "IHAVEOPT"
OPTION_REPLY_MAGIC = 0x0003E889045565A9
REQUEST_MAGIC = 0x25609513
SIMPLE_REPLY_MAGIC = 0x67446698
CHUNK_MAGIC = 0x668E33EF

GREETING = struct.Struct(">QQH")  # two magic numbers, handshake flags
CLIENT_FLAGS = struct.Struct(">I")
OPTION = struct.Struct(">QII")  # magic, option, length
OPTION_REPLY = struct.Struct(">QIII")  # magic, option, type, length
INFO_EXPORT = struct.Struct(">HQH")  # information type, size, transmission flags
INFO_BLOCK_SIZE = struct.Struct(">HIII")  # information type, minimum, preferred, maximum
REQUEST = struct.Struct(">IHHQQI")  # magic, command flags, command, cookie, offset, length
SIMPLE_REPLY = struct.Struct(">IIQ")  # magic, error, cookie
CHUNK = struct.Struct(">IHHQI")  # magic, reply flags, type, cookie, length
CHUNK_HOLE = struct.Struct(">QI")  # offset, length
CHUNK_ERROR = struct.Struct(">IH")  # error, length of the message
U16 = struct.Struct(">H")
U32 = struct.Struct(">I")
U64 = struct.Struct(">Q")

#: Longest text of the protocol: names and messages.
MAX_STRING = 4096
#: Most bytes of one option, sent or answered.
MAX_OPTION = 4096
MAX_OPTION_REPLY = 2 * MAX_STRING
#: Most bytes of one read or write: what every server must be ready for.
MAX_REQUEST = 32 << 20
#: Most descriptors in one answer about extents.
MAX_DESCRIPTORS = 1 << 20
MAX_SIZE = (1 << 63) - 1
MAX_MINIMUM_BLOCK = 1 << 16

ALLOCATION = b"base:allocation"


# Not IntFlag: the complement of one leaves out the bits that the class does not know.
class HandshakeFlag(enum.IntEnum):
    FIXED_NEWSTYLE = 1
    NO_ZEROES = 2


class ExportFlag(enum.IntEnum):
    HAS_FLAGS = 1 << 0
    READ_ONLY = 1 << 1
    SEND_DF = 1 << 7
    CAN_MULTI_CONN = 1 << 8


class Option(enum.IntEnum):
    EXPORT_NAME = 1
    ABORT = 2
    LIST = 3
    STARTTLS = 5
    INFO = 6
    GO = 7
    STRUCTURED_REPLY = 8
    LIST_META_CONTEXT = 9
    SET_META_CONTEXT = 10


class Rep(enum.IntEnum):
    ACK = 1
    SERVER = 2
    INFO = 3
    META_CONTEXT = 4
    ERR_UNSUP = (1 << 31) + 1
    ERR_POLICY = (1 << 31) + 2
    ERR_INVALID = (1 << 31) + 3
    ERR_PLATFORM = (1 << 31) + 4
    ERR_TLS_REQD = (1 << 31) + 5
    ERR_UNKNOWN = (1 << 31) + 6
    ERR_SHUTDOWN = (1 << 31) + 7
    ERR_BLOCK_SIZE_REQD = (1 << 31) + 8
    ERR_TOO_BIG = (1 << 31) + 9


REP_IS_ERROR = 1 << 31


class Info(enum.IntEnum):
    EXPORT = 0
    NAME = 1
    DESCRIPTION = 2
    BLOCK_SIZE = 3


class Command(enum.IntEnum):
    READ = 0
    WRITE = 1
    DISC = 2
    FLUSH = 3
    TRIM = 4
    CACHE = 5
    WRITE_ZEROES = 6
    BLOCK_STATUS = 7


class CommandFlag(enum.IntEnum):
    DF = 1 << 2
    REQ_ONE = 1 << 3


class ChunkType(enum.IntEnum):
    NONE = 0
    OFFSET_DATA = 1
    OFFSET_HOLE = 2
    BLOCK_STATUS = 5
    ERROR = (1 << 15) + 1
    ERROR_OFFSET = (1 << 15) + 2


CHUNK_IS_ERROR = 1 << 15
CHUNK_DONE = 1

STATE_HOLE = 1
STATE_ZERO = 2


class Error(enum.IntEnum):
    EPERM = 1
    EIO = 5
    ENOMEM = 12
    EINVAL = 22
    ENOSPC = 28
    EOVERFLOW = 75
    ENOTSUP = 95
    ESHUTDOWN = 108


class ProtocolError(errors.VimgvcError):
    """The other side broke a rule ("protocol") or declined ("refused"); `kind` is one of these words."""

    def __init__(self, detail: str, *, kind: str = "protocol") -> None:
        super().__init__(detail)
        self.kind = kind


def error_name(code: int) -> str:
    """The name of an error value; the unknown ones count as EINVAL (proto.md, "Error values")."""
    try:
        return Error(code).name
    except ValueError:
        return Error.EINVAL.name


def text(raw: bytes) -> str:
    """Text from the other side, fit to be shown: short and printable."""
    shown = "".join(char if char.isprintable() else "?" for char in raw.decode("utf-8", "replace"))
    return shown if len(shown) <= 200 else shown[:197] + "..."


Steps = Generator[memoryview, None, None]


class Feed:
    """A state machine written as a generator of the buffers that it wants filled."""

    def __init__(self, steps: Steps) -> None:
        self._steps = steps
        self._left: memoryview | None = None
        self._advance()

    def wanted(self) -> memoryview | None:
        """Where the next bytes belong, not empty; None when the machine is at its end."""
        return self._left

    def received(self, count: int) -> None:
        """The first `count` bytes of `wanted()` are there. Raises `ProtocolError`; then it is at its end."""
        if self._left is None or not 0 < count <= self._left.nbytes:
            raise ValueError(f"{count} bytes were not wanted")
        self._left = self._left[count:]
        if not self._left.nbytes:
            self._left = None
            self._advance()

    def _advance(self) -> None:
        self._left = next((view for view in self._steps if view.nbytes), None)


def take(length: int) -> Generator[memoryview, None, bytes]:
    """For `yield from`: the next `length` bytes, which the caller has bounded."""
    room = bytearray(length)
    yield memoryview(room)
    return bytes(room)


def skip(length: int) -> Steps:
    """For `yield from`: the next `length` bytes do not matter."""
    room = memoryview(bytearray(min(length, 1 << 16)))
    while length:
        step = min(length, room.nbytes)
        yield room[:step]
        length -= step
