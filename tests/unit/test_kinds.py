"""Which kind of container is written."""

from __future__ import annotations

from typing import Any

import pytest

from vimgvc import errors
from vimgvc.commands import kinds

_QCOW2: dict[str, Any] = {
    "format": "qcow2",
    "compat": "1.1",
    "cluster_size": 131072,
    "lazy_refcounts": True,
    "extended_l2": False,
    "refcount_bits": 16,
    "compression_type": "zstd",
    "compressed": True,
    "preallocation": "off",
    "backing_file": "/etc/shadow",
    "data_file": True,
}


def _choose(target: str, recorded: dict[str, Any], **said: Any) -> kinds.Kind:
    arguments: dict[str, Any] = {"declared": None, "given": (), "compressed": None, **said}
    return kinds.choose(target, recorded, arguments["declared"], arguments["given"], compressed=arguments["compressed"])


def test_nothing_said_gives_the_recorded_kind() -> None:
    """Format and options are those of the commit, names of other files are not."""
    assert _choose("vm.qcow2", _QCOW2) == kinds.Kind(
        "qcow2",
        {
            "compat": "1.1",
            "cluster_size": "131072",
            "lazy_refcounts": "on",
            "extended_l2": "off",
            "refcount_bits": "16",
            "compression_type": "zstd",
        },
        compressed=True,
    )
    assert _choose("vm.img", {"format": "raw"}) == kinds.Kind("raw")
    assert _choose("vm", {"format": "vmdk", "subformat": "streamOptimized"}).options == {"subformat": "streamOptimized"}
    recorded = {"format": "qed", "cluster_size": 4096, "table_size": 2}
    assert _choose("vm", recorded).options == {"cluster_size": "4096", "table_size": "2"}


def test_another_format_begins_without_options() -> None:
    """What was recorded of one format says nothing about another; aliases are known."""
    assert _choose("x.vhd", _QCOW2, declared="VHD") == kinds.Kind("vpc")


def test_what_is_said_wins() -> None:
    """Options given replace recorded ones, also several in one argument, and take with them what contradicts."""
    kind = _choose("x", _QCOW2, given=("cluster_size=4096,compat=0.10",), compressed=False)
    assert kind == kinds.Kind("qcow2", {"compat": "0.10", "cluster_size": "4096", "preallocation": "off"})
    assert kinds.parse_options(["a=1,b=x,,y", "a=2"]) == {"a": "2", "b": "x,y"}


@pytest.mark.parametrize(
    ("target", "said", "message"),
    [
        ("vm.qcow2", {}, "vm.qcow2: is named like qcow2, but without --format this disk is written as raw"),
        ("vm.VMDK", {}, "vm.VMDK: is named like vmdk, but without --format this disk is written as raw"),
        ("x", {"declared": "vhs"}, "no image format is called 'vhs'"),
        ("x", {"declared": "dmg"}, "dmg can only be read, not written"),
        ("-", {"declared": "vmdk"}, "vmdk cannot be written to standard output"),
        ("x", {"compressed": True}, "raw is not compressed by -c"),
        ("x", {"given": ("cluster_size",)}, "not an option for -o: cluster_size"),
        ("x", {"given": ("=1",)}, "not an option for -o: =1"),
    ],
)
def test_what_makes_no_sense_is_refused(target: str, said: dict[str, Any], message: str) -> None:
    """A usage error says what is wrong and has a hint."""
    with pytest.raises(errors.UsageError) as caught:
        _choose(target, {"format": "raw"}, **said)
    assert caught.value.message == message
    assert caught.value.hint


def test_a_name_that_contradicts_is_accepted_when_the_format_is_said() -> None:
    """--format decides."""
    assert _choose("vm.qcow2", {"format": "raw"}, declared="raw").format == "raw"


def test_a_luks_image_comes_back_with_its_cipher() -> None:
    """Cipher, mode and hashes of the header are said in the words of the program that writes it."""
    recorded = {"format": "luks", "cipher": "aes", "cipher_mode": "xts-plain64", "hash": "sha256", "key_bytes": 64}
    assert _choose("x", recorded).options == {
        "cipher-alg": "aes-256",
        "cipher-mode": "xts",
        "ivgen-alg": "plain64",
        "hash-alg": "sha256",
    }
    recorded |= {"cipher": "serpent", "cipher_mode": "cbc-essiv:sha256", "key_bytes": 16}
    assert _choose("x", recorded).options == {
        "cipher-alg": "serpent-128",
        "cipher-mode": "cbc",
        "ivgen-alg": "essiv",
        "ivgen-hash-alg": "sha256",
        "hash-alg": "sha256",
    }


def test_what_is_only_read_is_left_out() -> None:
    """A recorded option that nobody can write does not stand in the way."""
    recorded = {"format": "vmdk", "subformat": "vmfsSparse", "adapter_type": "lsilogic", "hwversion": "4"}
    assert _choose("x", recorded).options == {"adapter_type": "lsilogic", "hwversion": "4"}


@pytest.mark.parametrize(
    ("recorded", "wanted", "told"),
    [
        ({"format": "luks"}, "raw", True),
        ({"format": "luks"}, "luks", False),
        ({"format": "qcow2", "encryption": "aes"}, "qcow2", True),
        ({"format": "qcow2"}, "qcow2", False),
    ],
)
def test_a_disk_that_leaves_its_encryption_is_told(recorded: dict[str, Any], wanted: str, *, told: bool) -> None:
    """A disk that came encrypted does not become readable without a word."""
    assert (kinds.opens(recorded, kinds.Kind(wanted)) is not None) == told
