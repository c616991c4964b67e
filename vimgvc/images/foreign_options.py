"""What can be chosen about formats other than raw and qcow2, by the names that `qemu-img create -o` has."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from vimgvc import errors

_Parser = Callable[[str, str], str]

_SIZE = re.compile(r"([0-9]{1,12})([bkKmMgG]?)")
_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30}
_MIB = 1 << 20

#: Names that the text of a vmdk may hold without any doubt about how they are quoted.
PLAIN_NAME = re.compile(r"[0-9A-Za-z_+()@#=-][0-9A-Za-z_+()@#= .-]*")

#: Subformats of vmdk that are several files.
SPLIT = ("monolithicFlat", "twoGbMaxExtentSparse", "twoGbMaxExtentFlat")
_FLAT = ("monolithicFlat", "twoGbMaxExtentFlat")


def parse_options(fmt: str, pairs: Mapping[str, str]) -> dict[str, str]:
    """The options for qemu that the user's `pairs` for a format (qemu's name) mean; sizes become bytes.

    Raises `UsageError` that says what is allowed.
    """
    known = _FORMATS.get(fmt)
    if known is None:
        raise errors.UsageError(f"no format {fmt!r} is written", hint=f"known are {', '.join(sorted(_FORMATS))}")
    found = {}
    for name, value in pairs.items():
        if name not in known:
            named = ", ".join(sorted(known))
            raise errors.UsageError(f"{fmt} has no option {name!r}", hint=f"known are {named}" if named else "")
        found[name] = known[name](name, value)
    if fmt == "vmdk":
        _check_vmdk(found)
    return found


def check_size(fmt: str, options: Mapping[str, str], size: int) -> None:
    """Raise `UsageError` for a disk of no bytes where a format has no such."""
    can_be_empty = fmt not in {"qcow", "vmdk"} and (fmt != "vpc" or options.get("subformat") != "fixed")
    if not size and not can_be_empty:
        raise errors.UsageError(f"{fmt} has no disks of 0 bytes", hint="choose another format, or grow the disk")


def rounded(fmt: str, size: int, to: int) -> str:
    """What the user should know of a disk whose size is no multiple of a sector."""
    return f"{fmt} counts in sectors: the disk has {size} bytes, and in it {to}; what is behind its end is zeros"


def inner_name(name: str) -> str:
    """What a vmdk in one file, which will be called `name`, calls itself; nobody looks for a file of that name."""
    return name if PLAIN_NAME.fullmatch(name) else "disk.vmdk"


def _check_vmdk(options: Mapping[str, str]) -> None:
    if options.get("subformat") in _FLAT and options.get("zeroed_grain") == "on":
        raise _refused("zeroed_grain", "on", f"only off with subformat={options['subformat']}")
    if options.get("compat6") == "on" and "hwversion" in options:
        raise _refused("hwversion", options["hwversion"], "none with compat6=on")


def _refused(name: str, value: str, allowed: str) -> errors.UsageError:
    return errors.UsageError(f"{name} is {value!r}; allowed are: {allowed}")


def _choice(*allowed: str) -> _Parser:
    def parse(name: str, value: str) -> str:
        if value not in allowed:
            raise _refused(name, value, ", ".join(allowed))
        return value

    return parse


def _power(low: int, high: int, factor: int = 1) -> _Parser:
    """A size in bytes that is a power of two."""

    def parse(name: str, value: str) -> str:
        match = _SIZE.fullmatch(value)
        size = int(match[1]) * _FACTORS[match[2].lower()] if match else 0
        if size & (size - 1) or not low * factor <= size <= high * factor:
            raise _refused(name, value, f"powers of two from {low * factor} to {high * factor}")
        return str(size)

    return parse


def _number(low: int, high: int) -> _Parser:
    def parse(name: str, value: str) -> str:
        if not re.fullmatch(r"[0-9]{1,10}", value) or not low <= int(value) <= high:
            raise _refused(name, value, f"numbers from {low} to {high}")
        return str(int(value))

    return parse


_flag = _choice("on", "off")
_hash = _choice("sha1", "sha224", "sha256", "sha384", "sha512", "ripemd160")
_ciphers = ("aes-128", "aes-192", "aes-256", "serpent-128", "serpent-192", "serpent-256")
_more_ciphers = ("twofish-128", "twofish-192", "twofish-256")

_FORMATS: dict[str, dict[str, _Parser]] = {
    "qcow": {},
    # Tables of one cluster, which qemu allows, cannot be read by it.
    "qed": {"cluster_size": _power(4096, 64 * _MIB), "table_size": _power(2, 16)},
    "vmdk": {
        "subformat": _choice("monolithicSparse", "streamOptimized", *SPLIT),
        "adapter_type": _choice("ide", "buslogic", "lsilogic", "legacyESX"),
        "hwversion": _number(1, 99),
        "toolsversion": _number(0, 2**31 - 1),
        "compat6": _flag,
        "zeroed_grain": _flag,
    },
    "vdi": {"static": _flag},
    "vpc": {"subformat": _choice("dynamic", "fixed")},
    "vhdx": {
        "subformat": _choice("dynamic", "fixed"),
        "block_size": _power(1, 256, _MIB),
        "log_size": _power(1, 128, _MIB),
    },
    "parallels": {"cluster_size": _power(4096, 64 * _MIB)},
    "luks": {
        "cipher-alg": _choice(*_ciphers, *_more_ciphers),
        "cipher-mode": _choice("xts", "cbc"),
        "ivgen-alg": _choice("plain", "plain64", "essiv"),
        "ivgen-hash-alg": _hash,
        "hash-alg": _hash,
        "iter-time": _number(1, 600_000),
    },
}

#: The formats that are known here; who writes them is told by `made_target.is_made`.
FORMATS = tuple(sorted(_FORMATS))
