"""Images that name other files: backing files and external data files."""

from __future__ import annotations

import os
import pathlib
import socket
from collections.abc import Callable, Iterator

from tests.hostile import case, qcow2
from tests.hostile.qcow2 import Spec

K = 1024
CLUSTER = 64 * K
SIZE = 4 * CLUSTER
ALLOWED = ("--allow-chain", "--chain-root", "{folder}/roots")
IMAGE = "roots/disk.image"

_NAMES = {
    "json": b'json:{"driver":"file","filename":"/etc/passwd"}',
    "nbd": b"nbd://127.0.0.1:10809/disk",
    "nbd-unix": b"nbd+unix:///disk?socket=/tmp/no-such-socket",
    "ssh": b"ssh://root@127.0.0.1/etc/passwd",
    "https": b"https://127.0.0.1/disk",
    "fat": b"fat:/etc",
    "blkdebug": b"blkdebug:/dev/null:base.raw",
    "host-device": b"host_device:/dev/vda",
    "file": b"file:base.raw",
    "unknown-scheme": b"whatever:base.raw",
}


def cases() -> list[case.Case]:
    return [*_chains(), *_names(), *_schemes(), *_kinds(), *_loops(), *_depths(), *_data_files()]


def overlay(backing: bytes, seed: int = 1, below: bytes = b"", *, form: bytes = b"") -> qcow2.Built:
    """The first cluster is its own, the rest comes from below."""
    own = {0: case.noise(seed, CLUSTER)}
    return qcow2.build(Spec(size=SIZE, clusters=dict(own), backing=backing, backing_format=form, below=below))


def _folder(folder: pathlib.Path) -> pathlib.Path:
    (folder / "roots" / "sub").mkdir(parents=True, exist_ok=True)
    (folder / "canary").write_bytes(case.CANARY)
    return folder / "roots"


def _refuse(
    row: str,
    name: str,
    backing: bytes,
    prepare: Callable[[pathlib.Path], None] | None = None,
    *,
    code: int | set[int] = case.REFUSED,
    options: tuple[str, ...] = ALLOWED,
) -> case.Case:
    """An overlay on `backing`; `prepare` puts into the root what the name leads to."""

    def make(folder: pathlib.Path) -> None:
        root = _folder(folder)
        if prepare:
            prepare(root)
        named = backing.replace(b"{folder}", os.fsencode(folder))
        (folder / IMAGE).write_bytes(overlay(named, form=b"raw").data)

    return case.case(row, name, code, make, image=IMAGE, options=options)


def _accept(row: str, name: str, make: case.Make, *named: str, options: tuple[str, ...] = ALLOWED) -> case.Case:
    return case.case(row, name, case.OK, make, image=IMAGE, options=options, named=named)


def _chains() -> Iterator[case.Case]:
    """I1: chains are followed only where the user allows it, and then as far as the roots reach."""
    base = case.noise(9, SIZE)

    def on_raw(folder: pathlib.Path, name: bytes = b"base.raw", form: bytes = b"raw") -> bytes:
        root = _folder(folder)
        (root / "base.raw").write_bytes(base)
        (root / "sub" / "base.raw").write_bytes(base)
        built = overlay(name.replace(b"{folder}", os.fsencode(folder)), below=base, form=form)
        (folder / IMAGE).write_bytes(built.data)
        return built.content

    def on_short(folder: pathlib.Path) -> bytes:
        (_folder(folder) / "base.raw").write_bytes(base[:100_000])
        built = overlay(b"base.raw", below=base[:100_000], form=b"raw")
        (folder / IMAGE).write_bytes(built.data)
        return built.content

    def on_qcow2(folder: pathlib.Path) -> bytes:
        root = _folder(folder)
        below = qcow2.build(Spec(size=SIZE, clusters={1: case.noise(4, CLUSTER), 2: qcow2.ZERO}))
        (root / "base.qcow2").write_bytes(below.data)
        built = overlay(b"base.qcow2", below=below.content, form=b"qcow2")
        (folder / IMAGE).write_bytes(built.data)
        return built.content

    yield _accept("I1", "raw-below", on_raw, "roots/base.raw")
    yield _accept("I1", "raw-in-a-folder-below", lambda at: on_raw(at, b"sub/base.raw"), "roots/sub/base.raw")
    yield _accept("I1", "dot-slash", lambda at: on_raw(at, b"./base.raw"), "roots/base.raw")
    yield _accept("I1", "short-base", on_short, "roots/base.raw")
    yield _accept("I1", "qcow2-below", on_qcow2, "roots/base.qcow2")

    def on_other_root(folder: pathlib.Path) -> bytes:
        content = on_raw(folder, b"{folder}/elsewhere/base.raw")
        (folder / "elsewhere").mkdir()
        (folder / "elsewhere" / "base.raw").write_bytes(base)
        return content

    elsewhere = ("--allow-chain", "--chain-root", "{folder}/elsewhere")
    yield case.case("I1", "not-allowed", case.REFUSED, on_raw, image=IMAGE)
    yield _accept("I1", "absolute-below-a-root", on_other_root, "elsewhere/base.raw", options=elsewhere)
    yield case.case("I1", "absolute-below-no-root", case.REFUSED, on_other_root, image=IMAGE, options=ALLOWED)
    yield _refuse("I1", "absolute-outside", b"/etc/passwd")
    yield _refuse("I1", "absolute-outside-not-allowed", b"/etc/passwd", options=())
    yield _refuse("I1", "absolute-canary", b"{folder}/canary")


def _names() -> Iterator[case.Case]:
    """I2: names that lead out, or that mean something else to somebody."""
    missing = {1, 21}
    yield _refuse("I2", "dot-dot", b"../canary")
    yield _refuse("I2", "dot-dot-inside", b"sub/../../canary")
    yield _refuse("I2", "symlink", b"link", lambda root: (root / "link").symlink_to("../canary"))
    yield _refuse("I2", "symlink-absolute", b"link", lambda root: (root / "link").symlink_to("/etc/passwd"))
    yield _refuse("I2", "symlink-folder", b"link/canary", lambda root: (root / "link").symlink_to(".."))
    yield _refuse("I2", "proc", b"/proc/self/root/etc/passwd")
    yield _refuse("I2", "nul", b"base.raw\0.image", lambda root: _put(root / "base.raw"))
    yield _refuse("I2", "newline", b"base.raw\n", lambda root: _put(root / "base.raw"), code=missing)
    yield _refuse("I2", "1023-bytes", b"x" * 1023, code=missing)
    yield _refuse("I2", "1024-bytes", b"x" * 1024)
    yield _refuse("I2", "not-utf-8", b"\xff\xfe\x80", code=missing)
    yield _refuse("I2", "missing", b"no-such-file", code=missing)
    yield case.case("I2", "name-beyond-the-header", case.REFUSED, _overwrite(backing_offset=1 << 40, backing_size=9))
    yield case.case("I2", "name-of-4g", case.REFUSED, _overwrite(backing_offset=200, backing_size=2**32 - 1))


def _put(path: pathlib.Path) -> None:
    path.write_bytes(bytes(SIZE))


def _overwrite(**fields: int) -> case.Make:
    return qcow2.plain().set(**fields).refused()


def _schemes() -> Iterator[case.Case]:
    """I3: names with a scheme, as a chain that is allowed and as one that is not."""
    for name, backing in _NAMES.items():
        yield _refuse("I3", name, backing, lambda root: _put(root / "base.raw"))
        yield _refuse("I3", f"{name}-not-allowed", backing, options=())


def _kinds() -> Iterator[case.Case]:
    """I4: what is no regular file; a FIFO would make a reader wait for ever."""

    def listen(root: pathlib.Path) -> None:
        with socket.socket(socket.AF_UNIX) as place:
            here = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
            place.bind(f"/proc/self/fd/{here}/socket")
            os.close(here)

    yield _refuse("I4", "fifo", b"fifo", lambda root: os.mkfifo(root / "fifo"))
    yield _refuse("I4", "socket", b"socket", listen)
    yield _refuse("I4", "folder", b"sub")
    yield _refuse("I4", "device", b"/dev/zero")
    yield _refuse("I4", "proc-file", b"/proc/self/environ")

    def alone(folder: pathlib.Path) -> None:
        os.mkfifo(folder / case.IMAGE)

    yield case.case("I4", "image-is-a-fifo", case.REFUSED, alone)


def _loops() -> Iterator[case.Case]:
    """I5: chains that come back to where they were, by whatever name."""

    def ring(*names: str) -> case.Make:
        def make(folder: pathlib.Path) -> None:
            root = _folder(folder)
            for name, below in zip(names, [*names[1:], names[0]], strict=True):
                (root / name).write_bytes(overlay(below.encode(), form=b"qcow2").data)

        return make

    def hard_link(folder: pathlib.Path) -> None:
        root = _folder(folder)
        (folder / IMAGE).write_bytes(overlay(b"alias", form=b"qcow2").data)
        os.link(folder / IMAGE, root / "alias")

    for name, make in {
        "itself": ring("disk.image"),
        "two": ring("disk.image", "b"),
        "three": ring("disk.image", "b", "c"),
        "hard-link": hard_link,
    }.items():
        yield case.case("I5", name, case.REFUSED, make, image=IMAGE, options=ALLOWED, named=("roots/*",))


def _depths() -> Iterator[case.Case]:
    """I6: sixteen backing files are followed, not more."""

    def chain(depth: int) -> case.Make:
        def make(folder: pathlib.Path) -> bytes:
            root = _folder(folder)
            content = case.noise(1000, SIZE)
            (root / "0").write_bytes(content)
            for at in range(1, depth + 1):
                name = "disk.image" if at == depth else str(at)
                own: dict[int, qcow2.Cluster] = {at % 4: case.noise(at, CLUSTER)} if at % 3 == 0 else {}
                form = b"raw" if at == 1 else b"qcow2"
                spec = Spec(
                    size=SIZE, bits=16, clusters=own, backing=str(at - 1).encode(), backing_format=form, below=content
                )
                built = qcow2.build(spec)
                (root / name).write_bytes(built.data)
                content = built.content
            return content

        return make

    yield _accept("I6", "chain-of-16", chain(16), "roots/*")
    for depth in (17, 300):
        yield case.case(
            "I6", f"chain-of-{depth}", case.REFUSED, chain(depth), image=IMAGE, options=ALLOWED, named=("roots/*",)
        )


def _data_files() -> Iterator[case.Case]:
    """I7: the data lies in another file, which only the user may name."""
    clusters: dict[int, qcow2.Cluster] = {0: case.noise(1, CLUSTER), 2: case.noise(2, CLUSTER), 3: qcow2.ZERO}
    named = (0x44415441, b"../canary")
    given = ("--data-file", "{folder}/roots/data")

    def image(*, raw: bool = False, header_name: bool = True, length: int | None = None) -> case.Make:
        def make(folder: pathlib.Path) -> bytes:
            root = _folder(folder)
            built = qcow2.build(
                Spec(size=SIZE, clusters=clusters, data_file=True, extensions=[named] if header_name else [])
            )
            if raw:
                built.set(autoclear=2)
            (folder / IMAGE).write_bytes(built.data)
            (root / "data").write_bytes(built.outside[:length])
            return built.content

        return make

    def nothing_named(folder: pathlib.Path) -> None:
        root = _folder(folder)
        _put(root / "data")
        (folder / IMAGE).write_bytes(qcow2.plain().data)

    def fifo(folder: pathlib.Path) -> None:
        image()(folder)
        os.unlink(folder / "roots/data")
        os.mkfifo(folder / "roots/data")

    yield _accept("I7", "given", image(), "roots/data", options=given)
    yield _accept("I7", "given-no-name", image(header_name=False), "roots/data", options=given)
    yield _accept("I7", "given-data-file-raw", image(raw=True), "roots/data", options=given)
    yield case.case("I7", "not-given", case.REFUSED, image(), image=IMAGE)
    yield case.case("I7", "not-given-no-name", case.REFUSED, image(header_name=False), image=IMAGE)
    yield case.case("I7", "chain-allows-no-data-file", case.REFUSED, image(), image=IMAGE, options=ALLOWED)
    short = image(length=CLUSTER)
    yield case.case("I7", "given-too-short", {20, 21}, short, image=IMAGE, options=given, named=("roots/data",))
    yield case.case("I4", "data-file-is-a-fifo", case.REFUSED, fifo, image=IMAGE, options=given)
    yield case.case(
        "I7", "given-but-not-wanted", {2, 21}, nothing_named, image=IMAGE, options=given, named=("roots/data",)
    )
