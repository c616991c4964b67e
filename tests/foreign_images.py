"""Images of foreign formats, made by qemu-img and qemu-io."""

from __future__ import annotations

import pathlib
from collections.abc import Mapping

import numpy as np

from tests import programs

#: Format and options, as qemu-img takes them: every layout that is read or written through qemu.
LAYOUTS: list[tuple[str, dict[str, str]]] = [
    ("vdi", {}),
    ("vdi", {"static": "on"}),
    ("vpc", {}),
    ("vpc", {"force_size": "on"}),
    ("vpc", {"subformat": "fixed"}),
    ("vpc", {"subformat": "fixed", "force_size": "on"}),
    ("vhdx", {}),
    ("vhdx", {"block_size": "1M"}),
    ("vhdx", {"block_size": "2M", "log_size": "2M"}),
    ("vhdx", {"subformat": "fixed"}),
    ("vhdx", {"subformat": "fixed", "block_size": "32M"}),
    ("qcow", {}),
    ("qed", {}),
    ("qed", {"cluster_size": "4k", "table_size": "2"}),
    ("qed", {"cluster_size": "4k", "table_size": "16"}),
    ("qed", {"cluster_size": "1M", "table_size": "2"}),
    ("parallels", {}),
    ("parallels", {"cluster_size": "64k"}),
    ("vmdk", {}),
    ("vmdk", {"zeroed_grain": "on"}),
    ("vmdk", {"compat6": "on"}),
    ("vmdk", {"adapter_type": "lsilogic", "hwversion": "7"}),
    ("vmdk", {"subformat": "streamOptimized"}),
    ("vmdk", {"subformat": "streamOptimized", "zeroed_grain": "on"}),
    ("vmdk", {"subformat": "monolithicFlat"}),
    ("vmdk", {"subformat": "twoGbMaxExtentSparse"}),
    ("vmdk", {"subformat": "twoGbMaxExtentFlat"}),
    ("luks", {}),
    ("luks", {"cipher-alg": "serpent-256", "cipher-mode": "cbc", "ivgen-alg": "essiv", "ivgen-hash-alg": "sha256"}),
    ("qcow2", {"encrypt.format": "luks"}),
]
PASSPHRASE = b"correct horse\n battery"


def identify(layout: tuple[str, dict[str, str]]) -> str:
    fmt, options = layout
    return "-".join([fmt, *(f"{name}={value}" for name, value in options.items())])


def secret(folder: pathlib.Path) -> pathlib.Path:
    """A file with `PASSPHRASE`."""
    path = folder / "passphrase"
    path.write_bytes(PASSPHRASE)
    return path


class Maker:
    """Makes images of one layout in a folder."""

    def __init__(self, layout: tuple[str, Mapping[str, str]], folder: pathlib.Path) -> None:
        self.fmt, options = layout
        self.options = dict(options)
        self.encrypted = self.fmt == "luks" or "encrypt.format" in options
        self.secret = secret(folder) if self.encrypted else None
        self._objects = ["--object", f"secret,id=s,file={self.secret}"] if self.encrypted else []
        if self.encrypted:
            prefix = "" if self.fmt == "luks" else "encrypt."
            self.options |= {f"{prefix}key-secret": "s"}
            if options.get("encrypt.format") != "aes":
                self.options |= {f"{prefix}iter-time": "10"}

    @property
    def writable(self) -> bool:
        """Whether qemu-io can write to such an image in any order."""
        return self.options.get("subformat") != "streamOptimized"

    def create(self, path: pathlib.Path, size: int) -> None:
        programs.qemu_img("create", "-q", "-f", self.fmt, *self._objects, *self._spelled(), path, str(size))

    def convert(self, source: pathlib.Path, path: pathlib.Path) -> None:
        """A raw file as such an image."""
        programs.qemu_img("convert", "-f", "raw", "-O", self.fmt, *self._objects, *self._spelled(), source, path)

    def to_raw(self, path: pathlib.Path, target: pathlib.Path) -> None:
        programs.qemu_img("convert", *self._objects, "-O", "raw", *self._opened(path), target)

    def write(self, path: pathlib.Path, commands: list[str]) -> None:
        """Run commands of qemu-io."""
        words = [word for command in commands for word in ("-c", command)]
        programs.qemu("qemu-io", *self._objects, *words, *self._opened(path))

    def _spelled(self) -> list[str]:
        return ["-o", ",".join(f"{name}={value}" for name, value in self.options.items())] if self.options else []

    def _opened(self, path: pathlib.Path) -> list[str]:
        how = f"driver={self.fmt},file.filename={path}"
        if self.encrypted:
            how += ",key-secret=s" if self.fmt == "luks" else ",encrypt.key-secret=s"
            how += f",encrypt.format={self.options['encrypt.format']}" if self.fmt != "luks" else ""
        return ["--image-opts", how]


def writes(size: int, seed: int) -> list[str]:
    """qemu-io commands that fill parts of a disk in shuffled order, with zeros among them, and its last sector."""
    rng = np.random.default_rng(seed)
    commands = []
    for block in rng.permutation(size // 65536)[:60].tolist():
        length = min(int(rng.integers(1, 200)) * 512, size - block * 65536)
        commands.append(f"write -q -P {block % 255 + 1} {block * 65536} {length}")
    return [*commands, f"write -q -z {size // 2 // 512 * 512} 65536", f"write -q -P 7 {size - 512} 512"]
