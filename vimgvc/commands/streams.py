"""Writing a disk into a pipe: from the first byte to the last, without a temporary file."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from vimgvc import errors
from vimgvc.commands import contents, kinds
from vimgvc.disk import extents, protocol
from vimgvc.images import qcow2_plan, qcow2_stream
from vimgvc.model import geometry
from vimgvc.monitor import Monitor
from vimgvc.pipeline import crew, ordered

#: Takes the next bytes.
Put = Callable[[memoryview], None]
_ZEROS = memoryview(bytes(geometry.WINDOW))


def write(content: contents.Content, kind: kinds.Kind, put: Put, threads: int | None, monitor: Monitor) -> int:
    """The container's bytes in order, to `put`; returns how many. Raises what reading and `put` raise."""
    sink = _Sink(put)
    reader = content.reader()
    try:
        if kind.format == "raw":
            for name in kind.options:
                raise errors.UsageError(f"a pipe has no {name}", hint="leave the option away")
            _put_raw(reader, sink, threads or crew.default_threads(), monitor)
        else:
            options = qcow2_plan.parse_options(kind.options, compressed=kind.compressed)
            stream = qcow2_stream.Stream(content.size, options, content.parts())
            _put_qcow2(stream, reader, sink, threads or crew.default_threads(), monitor)
    finally:
        reader.close()
    return sink.done


class _Sink:
    def __init__(self, put: Put) -> None:
        self._put = put
        self.done = 0

    def put(self, content: bytes | memoryview) -> None:
        view = memoryview(content)
        self._put(view)
        self.done += view.nbytes


def _put_raw(reader: protocol.Reader, sink: _Sink, threads: int, monitor: Monitor) -> None:
    def read(start: int) -> memoryview:
        length = min(geometry.WINDOW, reader.size - start)
        if all(one.kind is not extents.Kind.DATA for one in reader.extents(start, length)):
            return _ZEROS[:length]
        return _read(reader, start, length)

    monitor.start("exporting", reader.size)
    for view in ordered.ordered(iter(range(0, reader.size, geometry.WINDOW)), read, threads):
        sink.put(view)
        monitor.advance(view.nbytes)


def _put_qcow2(
    stream: qcow2_stream.Stream, reader: protocol.Reader, sink: _Sink, threads: int, monitor: Monitor
) -> None:
    def measure(window: extents.Extent) -> int:
        stream.measure(window.start, _read(reader, window.start, window.length))
        return window.length

    def encode(window: extents.Extent) -> tuple[int, bytes | memoryview]:
        return window.length, stream.encode(window.start, _read(reader, window.start, window.length))

    total = sum(window.length for window in stream.windows())
    if stream.two_passes:
        monitor.start("measuring", total)
        for length in ordered.ordered(stream.windows(), measure, threads):
            monitor.advance(length)
    _put_all(stream.head(), sink)
    monitor.start("exporting", total)
    for length, part in ordered.ordered(stream.windows(), encode, threads):
        sink.put(part)
        monitor.advance(length)
    _put_all(stream.tail(), sink)


def _put_all(parts: Iterator[bytes], sink: _Sink) -> None:
    for part in parts:
        sink.put(part)


def _read(reader: protocol.Reader, start: int, length: int) -> memoryview:
    view = memoryview(bytearray(length))
    reader.pread_into(start, view)
    return view
