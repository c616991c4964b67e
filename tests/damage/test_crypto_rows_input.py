"""Attacks on what is sealed: rows C13 to C15 of the catalogue of faults."""

from __future__ import annotations

import pathlib
import sys
from collections.abc import Callable

import pytest
from blake3 import blake3
from vectors import kit, texts

from tests import programs, vector_file, vectors_product
from vimgvc import errors
from vimgvc.backends import memory
from vimgvc.codec import keys
from vimgvc.disk import memory as disk_memory
from vimgvc.repo import keyring, refs, repository

_WINDOW = 4 << 20


# --- C13: frames that would become more than their segment


#: The peak of resident memory is reset first: a new process inherits that of its parent.
_MEASURE = """
import pathlib, re, sys
from tests import vector_file, vectors_product
vector = vector_file.load(pathlib.Path(sys.argv[1]))
def memory(line):
    return int(re.search(line + r":\\s+(\\d+) kB", pathlib.Path("/proc/self/status").read_text())[1])
pathlib.Path("/proc/self/clear_refs").write_text("5")
before = memory("VmRSS")
print(vectors_product.outcome(vector), memory("VmHWM") - before)
"""


def _growth(vector: str) -> tuple[str, int]:
    """Outcome of a vector in a process of its own, and the MiB by which its memory grew."""
    root = pathlib.Path(__file__).parents[2]
    environment = {"PYTHONPATH": f"{root}:{root / 'tools'}"}
    outcome, kibibytes = programs.run(sys.executable, "-c", _MEASURE, vector, cwd=root, env=environment).split()
    return outcome, int(kibibytes) >> 10


def _bomb(declared: int, plain: int, directory: pathlib.Path) -> str:
    """A sealed segment of `plain` bytes for its table, whose frame declares other and yields a GiB."""
    frame = kit.frame(declared, *[(131072, b"\0")] * 8192)
    item = kit.segment([b"\0" * plain], frame=frame)
    facts = {
        "shape": f"kind=1 codec=1 plain={plain} stored={len(item.stored)}",
        "ids": item.ids[0].hex(),
        "lengths": str(plain),
    }
    path = directory / "bomb.txt"
    path.write_text(kit.Vector("bomb", "FormatError", "segment", "a bomb", item.stored, facts).text())
    return str(path)


@pytest.mark.slow
@pytest.mark.parametrize("declared", [4096, 1 << 30], ids=["declares what the table says", "declares a GiB"])
def test_c13_bomb(declared: int, tmp_path: pathlib.Path) -> None:
    """A frame that would become a GiB in a segment of 4 KiB is refused without the memory for it."""
    outcome, growth = _growth(_bomb(declared, 4096, tmp_path))
    assert outcome == "FormatError"
    assert growth < 16


@pytest.mark.slow
def test_c13_measure_sees_memory(tmp_path: pathlib.Path) -> None:
    """The measurement of a bomb shows what a good segment of 4 MiB takes."""
    item = kit.segment([b"\0" * _WINDOW], frame=kit.frame(_WINDOW, *[(131072, b"\0")] * 32))
    facts = {
        "shape": f"kind=1 codec=1 plain={_WINDOW} stored={len(item.stored)}",
        "ids": item.ids[0].hex(),
        "lengths": str(_WINDOW),
        "plain": blake3(bytes(_WINDOW)).hexdigest(),
    }
    path = tmp_path / "large.txt"
    path.write_text(kit.Vector("large", "success", "segment", "large", item.stored, facts).text())
    outcome, growth = _growth(str(path))
    assert outcome == "success"
    assert growth >= 3


# --- C14: what a table says of a segment


@pytest.mark.parametrize(
    ("vector", "expected"),
    [
        ("segment_plain_changed", errors.IntegrityError),
        ("segment_stored_changed", errors.IntegrityError),
        ("segment_codec_changed", errors.IntegrityError),
        ("segment_id_changed", errors.IntegrityError),
        ("segment_codec", errors.Unsupported),
        ("segment_raw_length", errors.IntegrityError),
    ],
)
def test_c14_table_that_lies(vector: str, expected: type[errors.VimgvcError]) -> None:
    """A table written with the key that says another length, codec or identifier: a restore fails, with nothing."""
    found = vector_file.load(vector_file.DIRECTORY / f"{vector}.txt")
    target = vectors_product.disk_of(found)
    with pytest.raises(expected):
        vectors_product.restore_segment(found, target)
    assert target.released == 0


# --- C15: encodings that are not canonical


_NOT_CANONICAL = {
    vector.name: vector.body for vector in texts.vectors() if vector.kind == "json" and vector.expect != "success"
}


def _spoilt(body: bytes) -> dict[str, bytes]:
    """A JSON object with each defect of the vectors put into it, as one more member or around it."""
    inside = {name: body[:-1] + b',"zz":' + defect + b"}" for name, defect in _NOT_CANONICAL.items()}
    return inside | {
        "trailing space": body + b" ",
        "trailing line feed": body + b"\n",
        "twice": body + body,
        "first member twice": b"{" + body[1:].partition(b",")[0] + b"," + body[1:],
        "space inside": body.replace(b",", b", ", 1),
        "empty": b"",
        "zero byte": body + b"\0",
    }


@pytest.mark.parametrize("where", ["commit", "ref", "config", "slot"])
def test_c15_json(where: str) -> None:
    """No spoilt JSON is taken for a commit, a ref entry, a configuration or a key slot, sealed with the key or not."""
    good: dict[str, tuple[bytes, Callable[[bytes], object]]] = {
        "commit": (kit.dumps(kit.commit()), _read_commit),
        "ref": (kit.dumps(kit.entry()), _read_ref),
        "config": (kit.dumps(kit.config()), _read_config),
        "slot": (kit.slot("keyfile", bytes(32), kit.dumps(kit.config())), _read_slot),
    }
    body, read = good[where]
    read(body)
    spoilt = _spoilt(body)
    assert len(spoilt) > 30
    for name, data in spoilt.items():
        assert _refusal(read, data), name


def _refusal(read: Callable[[bytes], object], data: bytes) -> str:
    """Why `data` is not read; empty when it is."""
    try:
        read(data)
    except errors.IntegrityError as error:
        return error.reason
    return ""


def _kit_repository() -> repository.Repository:
    unlocked = keyring.Unlocked(kit.ROOT, kit.dumps(kit.config()))
    return repository.Repository.open(memory.MemoryBackend(), unlocked=unlocked)


def _read_commit(body: bytes) -> object:
    repo, name = _kit_repository(), kit.keyed("commit id", body)
    repo.backend.put(f"commits/{name.hex()}", [kit.seal(b"C", body, name)])
    return repo.graph.load(name.hex())


def _read_ref(body: bytes) -> object:
    repo = _kit_repository()
    repo.backend.put(f"refs/{kit.blind().hex()}/{1:016x}", [kit.seal(b"R", body, kit.place())])
    return refs.Refs(repo.backend, repo.seals).read(kit.blind().hex(), 1)


def _read_config(body: bytes) -> object:
    unlocked = keyring.Unlocked(kit.ROOT, body)
    return repository.Repository.open(memory.MemoryBackend(), unlocked=unlocked)


def _read_slot(body: bytes) -> object:
    place = memory.MemoryBackend()
    for copy in "01":
        place.put(f"keys/{'01' * 16}-{copy}", [body])
    return keyring.Keyring(place).unlock(keys.Secret(keys.KEYFILE, bytes(32)))


@pytest.mark.parametrize("extra", [b"\0", bytes(32), b"{}"])
def test_c15_trailing_bytes(extra: bytes) -> None:
    """Bytes behind the end of a node, a table, a sealed object or a pack are refused, sealed with the key or not."""
    data = kit.segment([b"U" * 4096])
    leaf = kit.leaf([(1, data.ids[0])])
    root = kit.root(0, 4096, kit.keyed("node id", leaf))
    longer_leaf = leaf + extra
    packs = {
        "leaf": [data, kit.segment([kit.root(0, 4096, kit.keyed("node id", longer_leaf)), longer_leaf], kit.TREE)],
        "root": [data, kit.segment([root + extra, leaf], kit.TREE)],
    }
    for found, tree_segment in packs.values():
        blobs = [kit.pack([found]), kit.pack([tree_segment])]
        with pytest.raises(errors.FormatError):
            _restore(blobs, tree_segment.ids[0].hex())
    whole = kit.segment([root, leaf], kit.TREE)
    good = [kit.pack([data]), kit.pack([whole])]
    assert _restore(good, whole.ids[0].hex()) == b"U" * 4096
    sealed = kit.seal(b"T", kit.table_of([data]))
    for spoilt in (
        kit.pack([data], kit.table_of([data]) + extra),
        kit.pack([data], copies=[sealed + extra] * 2),
        kit.pack([data]) + extra,
    ):
        with pytest.raises(errors.IntegrityError):
            _restore([spoilt, good[1]], whole.ids[0].hex())


def _restore(packs: list[bytes], root: str) -> bytes:
    target = disk_memory.MemoryDisk(4096)
    vectors_product.restore(_BLANK, packs, root, target)
    return target.content()


_BLANK = vector_file.Vector("blank", "success", "disk", "", kit.ROOT, kit.REPO, {}, b"")
