"""What qemu is to open, said in full: every node and its driver, so that nothing is guessed or looked up.

A graph names files only as /proc/self/fd/N, which the child inherits from us. `"backing": null` makes a
driver ignore the name in its header.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

#: The id of the one secret that a child gets.
SECRET = "secret0"  # noqa: S105 - the name of it


def inherited(fd: int) -> str:
    """The name under which a child opens a descriptor that it inherited."""
    return f"/proc/self/fd/{fd}"


def image(
    fmt: str,
    fd: int,
    *,
    options: Mapping[str, str] | None = None,
    device: bool = False,
    offset: int = 0,
    length: int | None = None,
) -> dict[str, Any]:
    """The node that reads an image of qemu's format `fmt` in a descriptor.

    `options`: what else the driver is told; with "encrypt.format" ("luks" or "aes"), and for luks itself,
    the passphrase is `SECRET`. `device`: it is a block device. `offset`, `length`: the image is this part
    of the file, in bytes.
    """
    storage: dict[str, Any] = {"driver": "host_device" if device else "file", "filename": inherited(fd)}
    if offset or length is not None:
        storage = {"driver": "raw", "offset": offset, "file": storage}
        if length is not None:
            storage["size"] = length
    node: dict[str, Any] = {"driver": fmt, "read-only": True, "backing": None, "file": storage, **(options or {})}
    if "encrypt.format" in node:
        node["encrypt.key-secret"] = SECRET
    elif fmt == "luks":
        node["key-secret"] = SECRET
    return node


def export(address: str) -> dict[str, Any]:
    """The node that reads the only export of an NBD server on a Unix socket, as the bytes it is."""
    server = {"type": "unix", "path": address}
    storage = {"driver": "nbd", "export": "", "server": server}
    return {"driver": "raw", "read-only": True, "file": storage}


def name(graph: dict[str, Any]) -> str:
    """The graph as the file name that qemu's tools take."""
    return "json:" + json.dumps(graph)


def secret(fd: int) -> list[str]:
    """The options that give a child the secret in a descriptor; its bytes as they are."""
    return ["--object", f"secret,id={SECRET},file={inherited(fd)}"]
