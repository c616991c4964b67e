"""What qemu is told: versions that are accepted, options, graphs, and the launcher's command line. Nothing is run."""

from __future__ import annotations

import json
import pathlib
import re
import sys

import hypothesis
import hypothesis.strategies as st
import pytest

from vimgvc import errors
from vimgvc.images import block_graph, foreign_options, qemu, sandbox

_SPEC = pathlib.Path(__file__).parents[2] / "specs" / "foreign-formats.md"


@pytest.mark.parametrize(
    ("version", "safe"),
    [
        ((2, 12, 0), False),
        ((6, 2, 99), False),
        ((7, 2, 12), False),
        ((7, 2, 13), True),
        ((7, 2, 22), True),
        ((8, 0, 50), False),
        ((8, 2, 2), False),
        ((9, 0, 1), False),
        ((9, 0, 2), True),
        ((9, 1, 0), True),
        ((10, 0, 0), True),
    ],
)
def test_versions_with_the_fix(version: tuple[int, int, int], safe: bool) -> None:
    """Accepted are exactly the versions with the fix of CVE-2024-4467: 7.2.13, 9.0.2, and from 9.1 on."""
    assert qemu.is_safe(version) is safe


@pytest.mark.parametrize(
    ("said", "version"),
    [
        (b"qemu-img version 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nCopyright", (7, 2, 22)),
        (b"qemu-nbd 7.2.22 (Debian 1:7.2+dfsg-7+deb12u18+b3)\nWritten by", (7, 2, 22)),
        (b"qemu-img version 9.1\n", (9, 1, 0)),
        (b"qemu-img version 10.0.50 (v10.0.0-123-gabc)\n", (10, 0, 50)),
        (b"something else 7.2.22\n", None),
        (b"", None),
    ],
)
def test_versions_are_parsed(said: bytes, version: tuple[int, int, int] | None) -> None:
    """What the tools of several distributions print is understood, and nothing else is taken for a version."""
    found = qemu.parse_version(said)
    assert (found and found[0]) == version


_GOOD = [
    ("qed", {"cluster_size": "64k", "table_size": "4"}, {"cluster_size": "65536", "table_size": "4"}),
    ("vmdk", {"subformat": "streamOptimized", "adapter_type": "lsilogic"}, None),
    ("vmdk", {"subformat": "monolithicFlat", "hwversion": "7", "zeroed_grain": "off"}, None),
    ("vmdk", {"compat6": "on", "toolsversion": "2147483647"}, None),
    ("vdi", {"static": "on"}, None),
    ("vpc", {"subformat": "fixed"}, None),
    ("vhdx", {"block_size": "1M", "subformat": "dynamic"}, {"block_size": "1048576", "subformat": "dynamic"}),
    ("parallels", {"cluster_size": "65536"}, None),
    ("luks", {"cipher-alg": "aes-256", "cipher-mode": "xts", "iter-time": "0010"}, None),
    ("qcow", {}, None),
]


@pytest.mark.parametrize(("fmt", "given", "meant"), _GOOD)
def test_options_that_are_meant(fmt: str, given: dict[str, str], meant: dict[str, str] | None) -> None:
    """Allowed options pass, with sizes and numbers spelled in one way; parsing again changes nothing."""
    found = foreign_options.parse_options(fmt, given)
    if meant is not None:
        assert found == meant
    assert found.keys() == given.keys()
    assert foreign_options.parse_options(fmt, found) == found


@pytest.mark.parametrize(
    ("fmt", "given", "says"),
    [
        ("qed", {"cluster_size": "65537"}, "4096 to 67108864"),
        ("qed", {"cluster_size": "128M"}, "4096 to 67108864"),
        ("qed", {"cluster_size": "-4096"}, "4096"),
        ("qed", {"table_size": "1"}, "from 2 to 16"),
        ("qed", {"backing_file": "/etc/passwd"}, "backing_file"),
        ("vmdk", {"subformat": "twoGb"}, "streamOptimized"),
        ("vmdk", {"adapter_type": "ide,backing_file=/etc/shadow"}, "lsilogic"),
        ("vmdk", {"subformat": "monolithicFlat", "zeroed_grain": "on"}, "zeroed_grain"),
        ("vmdk", {"compat6": "on", "hwversion": "7"}, "hwversion"),
        ("vdi", {"static": "yes"}, "on, off"),
        ("vpc", {"force_size": "off"}, "force_size"),
        ("vhdx", {"block_state_zero": "off"}, "block_state_zero"),
        ("vhdx", {"block_size": "512M"}, "268435456"),
        ("luks", {"key-secret": "x"}, "key-secret"),
        ("luks", {"cipher-mode": "ecb"}, "xts, cbc"),
        ("luks", {"iter-time": "1" * 5000}, "numbers"),
        ("qcow", {"encrypt.format": "aes"}, "encrypt.format"),
        ("raw", {}, "raw"),
        ("dmg", {}, "dmg"),
    ],
)
def test_options_that_make_no_sense(fmt: str, given: dict[str, str], says: str) -> None:
    """What a format does not have, or not with this value, is a usage error that says what is allowed."""
    with pytest.raises(errors.UsageError) as caught:
        foreign_options.parse_options(fmt, given)
    assert says in caught.value.message + caught.value.hint


@hypothesis.given(
    st.sampled_from(foreign_options.FORMATS),
    st.dictionaries(
        st.sampled_from(
            [
                "cluster_size",
                "subformat",
                "adapter_type",
                "hwversion",
                "static",
                "block_size",
                "iter-time",
                "cipher-alg",
            ]
        ),
        st.text(max_size=20) | st.sampled_from(["on", "1M", "fixed", "ide", "4", "aes-256", "monolithicSparse"]),
        max_size=3,
    ),
)
def test_options_cannot_smuggle(fmt: str, given: dict[str, str]) -> None:
    """Whatever is given, what comes out needs no quoting: no comma starts another option."""
    try:
        found = foreign_options.parse_options(fmt, given)
    except errors.UsageError:
        return
    assert all(re.fullmatch(r"[0-9A-Za-z_-]+", text) for pair in found.items() for text in pair)


def test_every_allowed_option_is_specified() -> None:
    """Section 5 of the specification names every option of every format, and no format is missing."""
    text = _SPEC.read_text()
    for fmt, known in foreign_options._FORMATS.items():
        assert f"`{fmt}`" in text
        assert [name for name in known if f"`{name}`" not in text] == []


def test_graphs_are_those_of_the_specification() -> None:
    """The JSON examples of section 2 are what qemu gets, member for member."""
    blocks = re.compile(r"^```json\n(.*?)^```$", re.MULTILINE | re.DOTALL).findall(_SPEC.read_text())
    whole, part = (json.loads(body) for body in blocks)
    assert block_graph.image("vmdk", 12) == whole
    assert block_graph.image("vmdk", 12, offset=1536, length=65536) == part


@pytest.mark.parametrize("fmt", ["vmdk", "vdi", "vpc", "vhdx", "qcow", "qed", "parallels", "luks", "qcow2", "dmg"])
@pytest.mark.parametrize("device", [False, True])
def test_graphs_leave_nothing_to_guess(fmt: str, device: bool) -> None:
    """Every node names its driver, none has a backing file, and the only file is the descriptor."""
    node = json.loads(block_graph.name(block_graph.image(fmt, 31, device=device)).removeprefix("json:"))
    assert node["backing"] is None
    assert node["read-only"] is True
    assert (node["driver"], node["file"]["driver"]) == (fmt, "host_device" if device else "file")
    assert node["file"]["filename"] == "/proc/self/fd/31"
    assert ("key-secret" in node) is (fmt == "luks")


def test_encrypted_clusters_name_their_secret() -> None:
    """An image with encrypted clusters is opened with the method of its header and our secret."""
    node = block_graph.image("qcow2", 31, options={"encrypt.format": "aes"})
    assert (node["encrypt.format"], node["encrypt.key-secret"]) == ("aes", block_graph.SECRET)
    assert "key-secret" not in node


def test_the_launcher_is_isolated() -> None:
    """The launcher is this Python without the user's packages and variables; its limits are all in one argument."""
    policy = sandbox.Policy(
        cpu=7, reads=[20], folder=21, listen=22, scratch=[sandbox.Scratch("/tmp/x", 21)], extra=[23]
    )
    command = sandbox.command(policy, 24, "/usr/bin/qemu-img", ["--version"])
    assert command[:3] == [sys.executable, "-I", "-S"]
    assert pathlib.Path(command[3]).name == "sandbox_child.py"
    assert command[5:] == ["/usr/bin/qemu-img", "--version"]
    limits = json.loads(command[4])
    assert (limits["cpu"], limits["memory"], limits["reads"], limits["listen"]) == (7, 2 << 30, [20], 22)
    assert limits["file_bytes"] == sandbox.MESSAGES
    assert sorted(set(policy.descriptors())) == [20, 21, 22, 23]


@pytest.mark.parametrize(
    ("message", "code", "kind"),
    [
        ('image: is locked: Failed to get "write" lock', 1, errors.Busy),
        ("Invalid password, cannot unlock any keyslot", 1, errors.NoKey),
        ("Image not in VMDK format", 1, errors.UnsafeImage),
        ("does not answer", None, errors.UnsafeImage),
        ("was ended by SIGKILL", -9, errors.VimgvcError),
        ("sandbox: landlock", sandbox.NOT_CONFINED, errors.VimgvcError),
    ],
)
def test_refusals_are_typed(message: str, code: int | None, kind: type[errors.VimgvcError]) -> None:
    """What qemu says when it does not open an image becomes the error that says what to do."""
    error = qemu.refusal(message, code, "vm.vmdk")
    assert type(error) is kind
    assert "vm.vmdk" in error.message
