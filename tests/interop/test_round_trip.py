"""Every kind of container in, and out again as it came: the same disk, the same kind."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from tests import programs
from vimgvc.cli import main

pytestmark = pytest.mark.slow

_SIZE = 12 << 20

#: Name -> format and the options that `qemu-img convert` gets.
KINDS: dict[str, tuple[str, list[str]]] = {
    "raw": ("raw", []),
    "qcow2": ("qcow2", []),
    "qcow2 version 2": ("qcow2", ["-o", "compat=0.10"]),
    "qcow2 clusters of 512": ("qcow2", ["-o", "cluster_size=512"]),
    "qcow2 clusters of 2M": ("qcow2", ["-o", "cluster_size=2M"]),
    "qcow2 extended": ("qcow2", ["-o", "extended_l2=on,cluster_size=128k"]),
    "qcow2 lazy": ("qcow2", ["-o", "lazy_refcounts=on,refcount_bits=64"]),
    "qcow2 metadata": ("qcow2", ["-o", "preallocation=metadata"]),
    "qcow2 zlib": ("qcow2", ["-c"]),
    "qcow2 zstd": ("qcow2", ["-c", "-o", "compression_type=zstd"]),
    "qed": ("qed", []),
    "qed clusters of 4k": ("qed", ["-o", "cluster_size=4k"]),
    "qcow": ("qcow", []),
    "vmdk": ("vmdk", []),
    "vmdk flat": ("vmdk", ["-o", "subformat=monolithicFlat"]),
    "vmdk split": ("vmdk", ["-o", "subformat=twoGbMaxExtentSparse"]),
    "vmdk split flat": ("vmdk", ["-o", "subformat=twoGbMaxExtentFlat,adapter_type=lsilogic"]),
    "vmdk stream": ("vmdk", ["-o", "subformat=streamOptimized"]),
    "vdi": ("vdi", []),
    "vdi static": ("vdi", ["-o", "static=on"]),
    "vpc": ("vpc", ["-o", "force_size=on"]),
    "vpc fixed": ("vpc", ["-o", "subformat=fixed,force_size=on"]),
    "vhdx": ("vhdx", []),
    "vhdx fixed": ("vhdx", ["-o", "subformat=fixed,block_size=1M"]),
    "parallels": ("parallels", []),
}
#: Facts of `qemu-img info` that belong to one file, not to its kind.
_OWN = ("cid", "parent-cid", "extents", "filename", "corrupt", "bitmaps")


def _vimgvc(folder: pathlib.Path, *arguments: str) -> None:
    assert main.run([*arguments[:1], "-C", str(folder), "--repo", "repo", *arguments[1:]]) == 0


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A raw disk with noise, text, written zeros and holes, in pieces of many sizes."""
    path = tmp_path_factory.mktemp("disk") / "disk"
    rng = np.random.default_rng(20)
    with path.open("wb") as file:
        file.truncate(_SIZE)
        for _ in range(60):
            length = int(rng.integers(1, 100)) * 512
            file.seek(int(rng.integers(0, (_SIZE - length) // 512)) * 512)
            file.write([rng.bytes(length), b"text " * (length // 5), bytes(length)][int(rng.integers(3))])
    return path


def _facts(image: pathlib.Path, form: str) -> dict[str, Any]:
    told = json.loads(programs.qemu_img("info", "--output=json", "-f", form, image))
    specific = told.get("format-specific", {}).get("data", {})
    facts = {name: value for name, value in specific.items() if name not in _OWN}
    return {"format": told["format"], "size": told["virtual-size"], "cluster": told.get("cluster-size"), **facts}


@pytest.mark.parametrize("name", KINDS)
def test_round_trip(name: str, disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """An image is committed and exported without options: qemu finds the same kind with the same content."""
    form, options = KINDS[name]
    image, again = tmp_path / "in.image", tmp_path / "out.image"
    programs.qemu_img("convert", "-f", "raw", "-O", form, *options, disk, image)
    (tmp_path / "key").write_bytes(np.random.default_rng(1).bytes(32))
    (tmp_path / "key").chmod(0o600)
    _vimgvc(tmp_path, "init", "--key-file", "key", "--remember")
    _vimgvc(tmp_path, "commit", image.name, "--branch", "vm")
    _vimgvc(tmp_path, "export", "vm", again.name)
    assert _facts(again, form) == _facts(image, form)
    programs.qemu_img("compare", "-f", form, "-F", form, image, again)
    programs.qemu_img("compare", "-f", "raw", "-F", form, disk, again)
    if form == "qcow2":
        programs.qemu_img("check", "-f", "qcow2", again)


def test_round_trip_luks(disk: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """As the others; the passphrase is given by a file each time, and is not recorded."""
    secret = tmp_path / "secret"
    secret.write_text("a passphrase")
    programs.qemu_img(
        *("convert", "-f", "raw", "-O", "luks", "--object", f"secret,id=s,file={secret}"),
        *("-o", "key-secret=s,iter-time=10", disk, tmp_path / "in.luks"),
    )
    (tmp_path / "key").write_bytes(bytes(range(32)))
    (tmp_path / "key").chmod(0o600)
    _vimgvc(tmp_path, "init", "--key-file", "key", "--remember")
    _vimgvc(tmp_path, "commit", "in.luks", "--branch", "vm", "--image-secret-file", "secret")
    _vimgvc(tmp_path, "export", "vm", "out.luks", "--new-secret-file", "secret", "-o", "iter-time=10")
    opened = f"driver=luks,key-secret=s,file.driver=file,file.filename={tmp_path / 'out.luks'}"
    plain = f"driver=raw,file.driver=file,file.filename={disk}"
    programs.qemu_img("compare", "--object", f"secret,id=s,file={secret}", "--image-opts", opened, plain)
