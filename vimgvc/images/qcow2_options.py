"""What can be chosen about a qcow2 image, by the names that `qemu-img create -o` has for it."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from vimgvc import errors
from vimgvc.images import qcow2_layout

PREALLOCATIONS = ("off", "metadata", "falloc", "full")
_COMPRESSIONS = ("zlib", "zstd")
_COMPATS = {"0.10": "0.10", "v2": "0.10", "1.1": "1.1", "v3": "1.1"}
_REFCOUNT_BITS = (1, 2, 4, 8, 16, 32, 64)
_MIN_CLUSTER, _MAX_CLUSTER = 1 << qcow2_layout.MIN_CLUSTER_BITS, 1 << qcow2_layout.MAX_CLUSTER_BITS
_MIN_EXTENDED = 1 << qcow2_layout.MIN_EXTENDED_BITS
#: Clusters from this size on have room for the names of features, as with QEMU.
NAMES_FROM = 4096
_SIZE = re.compile(r"([0-9]{1,10})([bkKmM]?)")
_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20}


@dataclass(frozen=True, slots=True)
class Options:
    """`compressed`: data clusters are (`-c`). `backing_file` is the name as it will stand in the header."""

    cluster_size: int = 65536
    compat: str = "1.1"
    lazy_refcounts: bool = False
    extended_l2: bool = False
    preallocation: str = "off"
    compression_type: str = "zlib"
    compressed: bool = False
    refcount_bits: int = 16
    backing_file: str | None = None
    backing_format: str | None = None


def parse_options(pairs: Mapping[str, str], *, compressed: bool = False) -> Options:
    """The options that the user's `pairs` mean. Raises `UsageError`."""
    found: dict[str, object] = {"compressed": compressed}
    for name, value in pairs.items():
        if name not in _PARSERS:
            raise errors.UsageError(
                f"qcow2 has no option {name!r}",
                hint=f"known are {', '.join(sorted(set(_PARSERS) - {'backing_format'}))}",
            )
        found[_FIELDS.get(name, name)] = _PARSERS[name](name, value)
    options = dataclasses.replace(Options(), **found)  # type: ignore[arg-type] # each parser makes its field's type
    check(options)
    return options


def check(options: Options) -> None:
    """Raise `UsageError` for what contradicts itself or what QEMU would not open."""
    size = options.cluster_size
    if size & (size - 1) or not _MIN_CLUSTER <= size <= _MAX_CLUSTER:
        raise _refused("cluster_size", size, f"powers of two from {_MIN_CLUSTER} to {_MAX_CLUSTER}")
    _check_choice("compat", options.compat, ("0.10", "1.1"))
    _check_choice("preallocation", options.preallocation, PREALLOCATIONS)
    _check_choice("compression_type", options.compression_type, _COMPRESSIONS)
    if options.refcount_bits not in _REFCOUNT_BITS:
        raise _refused("refcount_bits", options.refcount_bits, ", ".join(map(str, _REFCOUNT_BITS)))
    if options.compat == "0.10":
        _check_old(options)
    if options.extended_l2 and size < _MIN_EXTENDED:
        raise _refused("cluster_size", size, f"{_MIN_EXTENDED} and more with extended_l2=on")
    if options.compressed:
        _check_compressed(options)
    _check_backing(options)


def encoded(name: str | None) -> bytes | None:
    """A name as the bytes that a file system has for it."""
    return None if name is None else name.encode("utf-8", "surrogateescape")


def _check_old(options: Options) -> None:
    plain = Options()
    for name in ("lazy_refcounts", "extended_l2", "compression_type", "refcount_bits"):
        value, only = getattr(options, name), getattr(plain, name)
        if value != only:
            raise _refused(name, _spelled(value), f"only {_spelled(only)} with compat=0.10")


def _check_compressed(options: Options) -> None:
    if options.preallocation != "off":
        raise _refused("preallocation", options.preallocation, "only off for a compressed image")
    if options.refcount_bits < 16:  # thousands of compressed clusters can share a host cluster
        raise _refused("refcount_bits", options.refcount_bits, "16 and more for a compressed image")


def _check_backing(options: Options) -> None:
    name, kind = encoded(options.backing_file), encoded(options.backing_format)
    if (name is None) != (kind is None):
        raise errors.UsageError(
            "backing_file and backing_fmt belong together", hint="without a format the backing file would be guessed at"
        )
    if name is None or kind is None:
        return
    if not 0 < len(kind) <= qcow2_layout.MAX_FORMAT:
        raise _refused("backing_fmt", options.backing_format, f"1 to {qcow2_layout.MAX_FORMAT} bytes")
    if not 0 < len(name) <= qcow2_layout.MAX_NAME or b"\0" in name:
        raise _refused("backing_file", options.backing_file, f"names of 1 to {qcow2_layout.MAX_NAME} bytes")
    header = qcow2_layout.Header(
        size=0,
        version=2 if options.compat == "0.10" else 3,
        cluster_bits=options.cluster_size.bit_length() - 1,
        backing_file=name,
        backing_format=kind,
        extensions=() if options.cluster_size >= NAMES_FROM else ((qcow2_layout.EXT_FEATURES, b""),),
    )
    try:
        qcow2_layout.encode_header(header)
    except ValueError as error:
        raise _refused("backing_file", options.backing_file, "shorter names with clusters this small") from error
    if options.preallocation != "off" and not options.extended_l2:
        raise _refused("preallocation", options.preallocation, "only off with a backing file, unless extended_l2=on")


def _check_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    if value not in allowed:
        raise _refused(name, value, ", ".join(allowed))


def _refused(name: str, value: object, allowed: str) -> errors.UsageError:
    return errors.UsageError(f"{name} is {value}; allowed are: {allowed}")


def _spelled(value: object) -> str:
    return ("on" if value else "off") if isinstance(value, bool) else str(value)


def _as_is(_: str, value: str) -> str:
    return value


def _flag(name: str, value: str) -> bool:
    _check_choice(name, value, ("on", "off"))
    return value == "on"


def _compat(name: str, value: str) -> str:
    _check_choice(name, value, tuple(_COMPATS))
    return _COMPATS[value]


def _size(name: str, value: str) -> int:
    match = _SIZE.fullmatch(value)
    if not match:
        raise _refused(name, value, "a number of bytes, or one with k or M behind it")
    return int(match[1]) * _FACTORS[match[2].lower()]


def _number(name: str, value: str) -> int:
    if not re.fullmatch(r"[0-9]{1,3}", value):
        raise _refused(name, value, ", ".join(map(str, _REFCOUNT_BITS)))
    return int(value)


_FIELDS = {"backing_fmt": "backing_format"}
_PARSERS: dict[str, Callable[[str, str], object]] = {
    "cluster_size": _size,
    "compat": _compat,
    "lazy_refcounts": _flag,
    "extended_l2": _flag,
    "preallocation": _as_is,
    "compression_type": _as_is,
    "refcount_bits": _number,
    "backing_file": _as_is,
    "backing_fmt": _as_is,
    "backing_format": _as_is,
}
