"""Images opened by name: what is read as what, and whose backing files."""

from __future__ import annotations

import os
import pathlib

import pytest

from tests import programs
from tests.suites import reader
from vimgvc import errors
from vimgvc.images import registry

_SIZE = 8 << 20


def _content(path: pathlib.Path, access: registry.Access | None = None) -> bytes:
    opened = registry.open_image(path, access or registry.Access())
    try:
        return reader.read(opened.reader.pread_into, 0, opened.reader.size)
    finally:
        opened.reader.close()


def _raw(path: pathlib.Path, source_format: str = "qcow2") -> bytes:
    programs.qemu_img("convert", "-f", source_format, "-O", "raw", path, path.with_suffix(".reference"))
    return path.with_suffix(".reference").read_bytes()


@pytest.fixture
def chain(tmp_path: pathlib.Path) -> pathlib.Path:
    """top.qcow2 over middle.qcow2 over below/base.qcow2, each with data of its own."""
    (tmp_path / "below").mkdir()
    base, middle, top = (tmp_path / name for name in ("below/base.qcow2", "middle.qcow2", "top.qcow2"))
    programs.qemu_img("create", "-f", "qcow2", base, str(_SIZE))
    programs.qemu_io(base, "qcow2", "write -P 1 0 4M")
    programs.qemu_img("create", "-f", "qcow2", "-b", "below/base.qcow2", "-F", "qcow2", middle)
    programs.qemu_io(middle, "qcow2", "write -P 2 1M 100k", "write -z 2M 64k")
    programs.qemu_img("create", "-f", "qcow2", "-b", "middle.qcow2", "-F", "qcow2", top, str(_SIZE + (1 << 20)))
    programs.qemu_io(top, "qcow2", "write -P 3 1050k 4k")
    return top


def test_a_chain_is_read_with_leave_only(chain: pathlib.Path) -> None:
    """Backing files are refused by default, and read as the chain they are with --allow-chain."""
    with pytest.raises(errors.UnsafeImage, match="backing file"):
        registry.open_image(chain)
    assert _content(chain, registry.Access(chain_roots=())) == _raw(chain)


def test_i1_a_chain_stays_below_its_roots(chain: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A backing file elsewhere is refused, by whatever name, until its folder is a root."""
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    os.rename(tmp_path / "middle.qcow2", elsewhere / "middle.qcow2")
    os.rename(tmp_path / "below", elsewhere / "below")
    programs.qemu_img("rebase", "-u", "-f", "qcow2", "-b", elsewhere / "middle.qcow2", "-F", "qcow2", chain)
    # below a subfolder the chain's own root no longer holds the rest
    (tmp_path / "own").mkdir()
    moved = tmp_path / "own" / "top.qcow2"
    os.rename(chain, moved)
    with pytest.raises(errors.UnsafeImage, match="not below a folder that is allowed"):
        registry.open_image(moved, registry.Access(chain_roots=()))
    assert _content(moved, registry.Access(chain_roots=(str(elsewhere),))) == _raw(moved)


def test_i5_i6_loops_and_depth(chain: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A chain that comes back to itself, also by a hard link, and one deeper than allowed, are refused."""
    with pytest.raises(errors.UnsafeImage, match="longer than the limit of 1"):
        registry.open_image(chain, registry.Access(chain_roots=(), chain_depth=1))
    os.link(chain, tmp_path / "alias.qcow2")
    programs.qemu_img("rebase", "-u", "-f", "qcow2", "-b", "alias.qcow2", "-F", "qcow2", tmp_path / "middle.qcow2")
    with pytest.raises(errors.UnsafeImage, match="same chain"):
        registry.open_image(chain, registry.Access(chain_roots=()))


def test_i22_a_backing_file_is_what_the_header_says(chain: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A backing file recorded as raw is raw even if a guest wrote a header into it; other formats must match."""
    (tmp_path / "guest.img").write_bytes((tmp_path / "middle.qcow2").read_bytes())
    programs.qemu_img("rebase", "-u", "-f", "qcow2", "-b", "guest.img", "-F", "raw", chain)
    assert _content(chain, registry.Access(chain_roots=())) == _raw(chain)
    assert _content(chain, registry.Access(chain_roots=()))[:4] == b"QFI\xfb"
    (tmp_path / "guest.img").write_bytes(bytes(1 << 20))
    programs.qemu_img("rebase", "-u", "-f", "qcow2", "-b", "guest.img", "-F", "qcow2", chain)
    with pytest.raises(errors.UnsafeImage, match="declared to be qcow2"):
        registry.open_image(chain, registry.Access(chain_roots=()))


def test_i7_a_data_file_is_the_users_choice(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of an external data file in the header is never used; the file that the user names is."""
    monkeypatch.chdir(tmp_path)
    image = tmp_path / "disk.qcow2"
    programs.qemu_img("create", "-f", "qcow2", "-o", "data_file=disk.data,data_file_raw=on", image, str(_SIZE))
    programs.qemu_io(image, "qcow2", "write -P 9 1M 300k")
    with pytest.raises(errors.UnsafeImage, match="data in another file"):
        registry.open_image(image)
    expected = _raw(image)
    os.rename("disk.data", "moved.data")
    assert _content(image, registry.Access(data_file="moved.data")) == expected


_MEANINGLESS = [registry.Access(snapshot="x"), registry.Access(data_file="x"), registry.Access(secret_file="x")]


@pytest.mark.parametrize("access", _MEANINGLESS, ids=["snapshot", "data-file", "image-secret-file"])
def test_options_that_mean_nothing_are_refused(access: registry.Access, tmp_path: pathlib.Path) -> None:
    """What only other formats have is a usage error, so that nobody believes it had an effect."""
    path = tmp_path / "disk.img"
    path.write_bytes(bytes(512))
    with pytest.raises(errors.UsageError, match="means nothing for raw"):
        registry.open_image(path, access)


@pytest.mark.parametrize("name", ["qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels"])
def test_i19_a_disk_larger_than_allowed_is_refused(name: str, tmp_path: pathlib.Path) -> None:
    """The limit of the disk's size holds for every container."""
    path = tmp_path / f"disk.{name}"
    programs.qemu_img("create", "-f", name, path, "64M")
    with pytest.raises(errors.UnsafeImage):
        registry.open_image(path, registry.Access(declared=name, max_size=32 << 20))


@pytest.mark.parametrize("name", ["qcow2", "vmdk", "vdi", "vpc", "vhdx", "qed", "qcow", "parallels"])
def test_each_format_reads_as_its_disk(name: str, tmp_path: pathlib.Path, seed: int) -> None:
    """By name alone, the disk in every container is what QEMU reads from it; it closes without a trace."""
    source = tmp_path / "source.img"
    source.write_bytes(reader.make_sample(_SIZE, seed).content)
    path = tmp_path / f"disk.{name}"
    programs.qemu_img("convert", "-f", "raw", "-O", name, source, path)
    before = sorted(os.listdir("/proc/self/fd"))
    assert _content(path) == _raw(path, name)
    assert sorted(os.listdir("/proc/self/fd")) == before


def test_i21_a_backing_file_is_never_guessed(chain: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """A header that does not record its backing file's format is refused: a guest could have written one into it."""
    content = bytearray(chain.read_bytes())
    at = content.index(b"\xe2\x79\x2a\xca")
    content[at : at + 4] = b"\x11\x22\x33\x44"  # an extension that nobody knows is ignored
    chain.write_bytes(content)
    with pytest.raises(errors.UnsafeImage, match="does not say the format of its backing file"):
        registry.open_image(chain, registry.Access(chain_roots=()))
