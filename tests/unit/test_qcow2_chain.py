"""Names inside images: what they may lead to, and that nothing else is opened."""

from __future__ import annotations

import os
import pathlib
import socket

import pytest

from vimgvc import errors
from vimgvc.images import chain, raw


@pytest.fixture
def root(tmp_path: pathlib.Path) -> pathlib.Path:
    """A folder with images in it, and a secret beside it."""
    folder = tmp_path / "root"
    (folder / "sub").mkdir(parents=True)
    for path in (folder / "top", folder / "base", folder / "sub" / "deep", tmp_path / "secret"):
        path.write_bytes(str(path).encode())
    return folder


def _open(root: pathlib.Path, name: bytes, folder: pathlib.Path | None = None) -> raw.RawReader:
    return chain.open_below([str(root)], str(folder or root), name, "top")


@pytest.mark.parametrize(
    ("name", "folder", "found"),
    [
        (b"base", "", "base"),
        (b"./sub//deep", "", "sub/deep"),
        (b"../base", "sub", "base"),
        (b"../root/sub/deep", "", "sub/deep"),
    ],
)
def test_names_below_the_roots_are_opened(name: bytes, folder: str, found: str, root: pathlib.Path) -> None:
    """A path is relative to the image's folder, and may wander as long as it ends below a root."""
    reader = _open(root, name, root / folder)
    assert reader.path == str(root / found)
    content = bytearray(reader.size)
    reader.pread_into(0, memoryview(content))
    assert content == (root / found).read_bytes()
    reader.close()


def test_absolute_names_below_the_roots_are_opened(root: pathlib.Path) -> None:
    """An absolute path below a root is as good as a relative one, also if the root is reached by a link."""
    _open(root, os.fsencode(root / "base")).close()
    (root.parent / "alias").symlink_to(root)
    _open(root.parent / "alias", os.fsencode(root.parent / "alias" / "base")).close()
    _open(root.parent / "alias", b"base").close()


def test_i01_absolute_name_outside(root: pathlib.Path) -> None:
    """A name outside the roots is refused, and so is every name if there are no roots."""
    for name in (b"/etc/passwd", os.fsencode(root.parent / "secret"), os.fsencode(root) + b"extra/base", b"/"):
        with pytest.raises(errors.UnsafeImage, match="not below"):
            _open(root, name)
    with pytest.raises(errors.UnsafeImage, match="not below"):
        chain.open_below([], str(root), b"base", "top")


@pytest.mark.parametrize(
    "name",
    [b"../secret", b"sub/../../secret", b"base\0", b"base\n", b"", b"a" * 1024, b"\xff\xfe", "b\u202ease".encode()],
)
def test_i02_odd_names(name: bytes, root: pathlib.Path) -> None:
    """Names that climb out, or that are no text of 1 to 1023 bytes without control characters, are refused."""
    with pytest.raises(errors.UnsafeImage):
        _open(root, name)


def test_i02_longest_name(root: pathlib.Path) -> None:
    """A name of 1023 bytes is a name."""
    _open(root, b"./" * 509 + b"/base").close()


def test_i02_symbolic_links(root: pathlib.Path) -> None:
    """No symbolic link below a root is followed, neither as the file nor on the way to it."""
    (root / "link").symlink_to(root.parent / "secret")
    (root / "inner").symlink_to("base")
    (root / "way").symlink_to("sub")
    for name in (b"link", b"inner", b"way/deep"):
        with pytest.raises(errors.UnsafeImage, match="symbolic link"):
            _open(root, name)


@pytest.mark.parametrize(
    "name",
    [
        b'json:{"driver":"file","filename":"base"}',
        b"nbd://localhost/x",
        b"ssh://host/x",
        b"https://host/x",
        b"fat:base",
        b"blkdebug::base",
        b"host_device:base",
        b"file:base",
    ],
)
def test_i03_protocols(name: bytes, root: pathlib.Path) -> None:
    """A name that QEMU would take for a protocol is refused, even if a file is called so."""
    if b"/" not in name:
        (root / os.fsdecode(name)).write_bytes(b"x")
    with pytest.raises(errors.UnsafeImage, match="protocol"):
        _open(root, name)


def test_i04_no_regular_file(root: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is no regular file is refused without waiting for it."""
    os.mkfifo(root / "pipe")
    monkeypatch.chdir(root)
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("socket")
        for name in (b"pipe", b"socket", b"sub", b"."):
            with pytest.raises(errors.UnsafeImage):
                _open(root, name)
    with pytest.raises(errors.UnsafeImage, match="character device"):
        chain.open_below(["/dev"], str(root), b"/dev/null", "top")
    with pytest.raises(errors.UnsafeImage, match="made up"):
        chain.open_below(["/proc"], str(root), b"/proc/version", "top")


def test_missing_file_is_not_found(root: pathlib.Path) -> None:
    """A name below a root that leads nowhere is a file that is missing."""
    for name in (b"nothing", b"none/base"):
        with pytest.raises(errors.NotFound):
            _open(root, name)


def test_i05_loops(root: pathlib.Path) -> None:
    """A chain that comes back to one of its own files is refused, under whatever name the file appears."""
    os.link(root / "top", root / "hard")
    top = raw.RawReader(root / "top")
    for name in (b"top", b"hard"):
        with pytest.raises(errors.UnsafeImage, match="same chain"):
            chain.Chain(top, [str(root)], 16).open(top, name)
    links = chain.Chain(top, [str(root)], 16)
    base = links.open(top, b"base")
    deep = links.open(base, b"sub/deep")
    for name in (b"../top", b"../base", b"deep"):
        with pytest.raises(errors.UnsafeImage, match="same chain"):
            links.open(deep, name)
    for reader in (top, base, deep):
        reader.close()


@pytest.mark.parametrize("depth", [1, 16, 64])
def test_i06_depth(depth: int, root: pathlib.Path) -> None:
    """As many backing files as the limit says are opened, and not one more; no limit is above 64."""
    for number in range(depth + 1):
        (root / f"{number}").write_bytes(b"x")
    top = raw.RawReader(root / "top")
    links, readers = chain.Chain(top, [str(root)], depth if depth < 64 else 1000), [top]
    for number in range(depth):
        readers.append(links.open(readers[-1], b"%d" % number))
    with pytest.raises(errors.UnsafeImage, match=f"limit of {depth}"):
        links.open(readers[-1], b"%d" % depth)
    for reader in readers:
        reader.close()
