"""Whether what was put is there: an acknowledged upload may be lost or cut short (N5), a taken name others' (N9)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from vimgvc import errors
from vimgvc.backends import protocol
from vimgvc.store import objects, pack


class Taken(errors.IntegrityError):
    """The name of a pack is taken by something else."""


def put(backend: protocol.Backend, name: str, parts: Sequence[protocol.Buffer], size: int) -> None:
    """Store a pack. One that is there already counts if it is as large; raises `Taken`."""
    if not backend.put(pack.blob_name(name), parts) and (there := _size(backend, name)) != size:
        raise Taken(
            f"pack {name[:12]}",
            f"is there with {there} bytes instead of {size}" if there >= 0 else "came and went",
            hint="run the same command again: what it holds goes into another pack",
        )


def check(backend: protocol.Backend, sizes: Mapping[str, int]) -> None:
    """Raises `IntegrityError` unless each pack is there with its size. Lists them where that costs least."""
    if backend.capabilities.parallel > 1 and len(sizes) > backend.capabilities.listing:
        there = objects.pack_sizes(backend.list("packs"))
    else:
        there = _sizes(backend, list(sizes))
    for name, size in sizes.items():
        if there.get(name) != size:
            raise errors.IntegrityError(
                f"pack {name[:12]}",
                f"has {there[name]} bytes instead of {size}"
                if there.get(name, -1) >= 0
                else "was stored and is not there",
                hint="run the same command again; if it stays like that, the place loses what it is given",
            )


def _sizes(backend: protocol.Backend, names: list[str]) -> dict[str, int]:
    threads = min(backend.capabilities.parallel, len(names))
    if threads <= 1:
        return {name: _size(backend, name) for name in names}
    from concurrent import futures  # which loads the logging module

    with futures.ThreadPoolExecutor(threads, "vimgvc-sizes") as pool:
        return dict(zip(names, pool.map(lambda name: _size(backend, name), names), strict=True))


def _size(backend: protocol.Backend, name: str) -> int:
    try:
        return backend.size(pack.blob_name(name))
    except errors.NotFound:
        return -1
