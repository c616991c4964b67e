"""What specs/ says is what happens: examples are executed, and rules and vectors belong to each other."""

from __future__ import annotations

import ast
import doctest
import pathlib
import re
import sys
from typing import Any

import independent_reader as reader
import numpy as np
import pytest

from tests import repos, vector_file
from vimgvc.backends import memory
from vimgvc.chunking import cut
from vimgvc.codec import aead, deliveries, keys, sealing, segment, slots
from vimgvc.model import admitted, commit, forgotten, manifest, pin, promised, reflog
from vimgvc.repo import config, gcrecords, repository
from vimgvc.store import index_object, pack

_SPECS = pathlib.Path(__file__).parents[1] / "specs"
_FILES = sorted(_SPECS.glob("*.md"))
#: Where rules name vectors; elsewhere names like these may be something else.
_NAMING = [_SPECS / "formats.md", _SPECS / "crypto.md"]
_FENCE = re.compile(r"^```(\S*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_VECTOR = re.compile(
    r"`((?:json|config|slot|kit|leaf|inner|root|node|disk|pack|table|segment|index|commit|ref|collection|forgotten|pin|promised|delivery|admitted|sealed)_[a-z0-9_]+)`"
)
ALLOWED = {"blake3", "cryptography", "zstandard"} | set(sys.stdlib_module_names)


def _examples(path: pathlib.Path) -> list[str]:
    return [body for language, body in _FENCE.findall(path.read_text()) if language == "python-example"]


def _run(path: pathlib.Path) -> tuple[dict[str, Any], doctest.TestResults]:
    """All examples of a file in one namespace, and how they went."""
    names: dict[str, Any] = {}
    report: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.REPORT_NDIFF)
    test = doctest.DocTestParser().get_doctest("\n".join(_examples(path)), names, path.name, str(path), 0)
    result = runner.run(test, out=report.append, clear_globs=False)
    print("".join(report))  # noqa: T201 - shown with a failure
    return test.globs, result


@pytest.mark.parametrize("path", [path for path in _FILES if _examples(path)], ids=lambda path: path.name)
def test_examples_are_true(path: pathlib.Path) -> None:
    """What the examples of a specification show is what comes out when they are executed."""
    result = _run(path)[1]
    assert result.attempted > 0
    assert result.failed == 0


def test_formats_have_examples() -> None:
    """Every numbered section of formats.md that defines bytes has an example."""
    sections = re.split(r"^## ", (_SPECS / "formats.md").read_text(), flags=re.MULTILINE)[1:]
    assert len(sections) == 18
    assert [section.splitlines()[0] for section in sections if "```python-example" not in section] == ["2 Names"]


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_no_hex_stands_unexecuted(path: pathlib.Path) -> None:
    """A fenced block with a long hexadecimal number is an example that is executed."""
    others = [body for language, body in _FENCE.findall(path.read_text()) if language != "python-example"]
    assert [body for body in others if re.search(r"[0-9a-f]{16}", body)] == []


@pytest.mark.parametrize("path", _FILES, ids=lambda path: path.name)
def test_examples_need_no_vimgvc(path: pathlib.Path) -> None:
    """Examples import the standard library and the three primitives, nothing else."""
    code = [example.source for body in _examples(path) for example in doctest.DocTestParser().get_examples(body)]
    assert {name for source in code for name in imported(source)} <= ALLOWED


def imported(source: str) -> set[str]:
    """The top-level packages that `source` imports."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").partition(".")[0])
    return found


def test_every_vector_is_named_in_a_rule_and_every_named_one_exists() -> None:
    """A vector that a rule names has its file, and every file is named by a rule: by one."""
    named = [name for path in _NAMING for name in _VECTOR.findall(path.read_text())]
    files = [path.stem for path in vector_file.DIRECTORY.glob("*.txt")]
    assert sorted(named) == sorted(files)


def test_vectors_behind_accepted_are_accepted_and_no_others() -> None:
    """The vectors that the specification calls accepted are those that expect success."""
    text = (_SPECS / "formats.md").read_text()
    lists = re.findall(r"[Aa]ccepted: ((?:`\w+`(?:, )?)+)", text)
    accepted = {name for listed in lists for name in _VECTOR.findall(listed)}
    assert accepted == {vector.name for vector in vector_file.load_all() if vector.expect == "success"}


def test_examples_of_formats_are_a_repository(tmp_path: pathlib.Path) -> None:
    """The files made in the examples are a repository that both readers open and restore."""
    made = _run(_SPECS / "formats.md")[0]
    backend, monitor = memory.MemoryBackend(), repos.Collector()
    for name, blob in made["files"].items():
        backend.put(name, [blob])
        (tmp_path / "repo" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "repo" / name).write_bytes(blob)

    repo = repository.Repository.open(backend, [keys.Secret(keys.KEYFILE, made["secret"])], monitor=monitor)
    assert repo.verify("data", None, monitor).problems == []
    assert monitor.problems == []
    assert repos.restore(repo, "vm") == made["disk"]

    other = reader.Repository(tmp_path / "repo", "keyfile", made["secret"])
    other.restore(other.resolve("vm"), "vm", tmp_path / "disk")
    assert (tmp_path / "disk").read_bytes() == made["disk"]


def test_package_writes_the_bytes_of_the_examples() -> None:
    """Given the same random bytes, the package makes the very structures of the examples."""
    made = _run(_SPECS / "formats.md")[0]
    files, blocks, ids = made["files"], made["blocks"], made["ids"]
    seals = sealing.Sealing(keys.PurposeKeys(made["RK"]), made["repo"], lambda length: b"\xaa" * length)

    assert seals.keys.fingerprint == made["K"]["fingerprint"].hex()[:16]
    assert config.Config(made["repo"].hex(), 65536).encode() == files["config"]
    window = np.frombuffer(b"".join(blocks), "<u8").reshape(-1, 512)
    runs = cut.Cutter(seals.keys.cut, 65536).runs(window)
    assert [seals.chunk_id(block) for block in blocks if any(block)] == ids
    assert manifest.Leaf(tuple(runs), b"".join(ids)).encode() == made["leaf"]
    assert manifest.Root(len(made["disk"]), seals.node_id(made["leaf"])).encode() == made["root"]

    found = commit.decode(made["commit_id"].hex(), made["commit"])
    assert seals.commit_id(found.encode()) == found.id
    assert seals.seal(aead.COMMIT, found.encode(), made["commit_id"]) == files[f"commits/{found.id}"]
    entry = reflog.decode(made["entry"], "example")
    assert seals.seal(aead.REF, entry.encode(), made["blind"] + bytes([1, 0, 0, 0, 0, 0, 0, 0])) == made["ref"]
    assert f"refs/{seals.blind(entry.kind, entry.name)}/{1:016x}" == made["place"]
    record = forgotten.decode(made["record"], "example")
    assert seals.seal(aead.FORGOTTEN, record.encode(), made["older"]) == made["forgotten"]
    promise = promised.decode(made["promise"], "example")
    assert seals.seal(aead.PROMISED, promise.encode(), made["older"]) == made["promised"]
    mark = pin.decode(made["pin"], "example")
    assert seals.seal(aead.PIN, mark.encode(), made["pin_id"]) == made["pinned"]
    done = admitted.decode(made["done"], "example")
    assert seals.seal(aead.ADMITTED, done.encode(), made["delivery"]) == made["admitted"]
    condemned = gcrecords.decode(made["condemned"], "example")
    assert gcrecords.name(condemned.epoch, condemned.phase) == made["collection_place"]
    context = gcrecords.context(condemned.epoch, condemned.phase)
    assert seals.seal(aead.COLLECTION, condemned.encode(), context) == made["collection"]
    index = index_object.decode(seals.open(aead.INDEX, made["index"], "example"))
    assert seals.seal(aead.INDEX, index_object.encode(index)) == made["index"]


def test_package_writes_the_delivery_of_the_examples() -> None:
    """Given the same random bytes, the package makes the very write key and key of a delivery of the examples."""
    made = _run(_SPECS / "formats.md")[0]
    slot = slots.open_write_slot(made["files"][f"keys/{made['write_slot']['id']}-0"], made["RK"])
    assert (slot.branch, slot.info.label) == ("web1/", "web1")
    key = deliveries.write_key(made["repo"].hex(), slot)
    assert key.encode() == made["canonical"](made["key_file"]) + b"\n"
    assert deliveries.parse_write_key(key.encode()) == key
    fresh = deliveries.Fresh(made["S"], made["delivery"], made["ephemeral"])
    sealed = deliveries.seal(
        key, fresh, (made["older"].hex(), 1_767_323_045_000_000_000), lambda length: b"\xaa" * length
    )
    assert sealed == made["delivery_key"]


def test_package_writes_the_packs_of_the_examples() -> None:
    """Given the same random bytes, the package makes the very packs of the examples."""
    made = _run(_SPECS / "formats.md")[0]
    seals = sealing.Sealing(keys.PurposeKeys(made["RK"]), made["repo"], lambda length: b"\xaa" * length)
    sealer = segment.Sealer(
        seals.keys.segment, seals.repo, lambda: bytes(range(12)), level=3, verify=True, capacity=4096
    )
    nodes = [made["leaf"], made["root"]]
    ids = b"".join(seals.node_id(node) for node in nodes)
    tree = sealer.seal(segment.TREE, bytearray(b"".join(nodes)), sum(map(len, nodes)), ids)
    data = segment.Shape(segment.DATA, 1, 8192, len(made["first"])), memoryview(made["first"])
    for kind, (shape, stored), held, lengths, expected in (
        (segment.DATA, data, b"".join(made["ids"]), [4096, 4096], made["data_pack"]),
        (segment.TREE, tree, ids, list(map(len, nodes)), made["tree_pack"]),
    ):
        builder = pack.Builder(kind, seals.repo, bytearray(4096))
        builder.add(shape, stored, held, lengths)
        finished = builder.finish(lambda body: seals.seal(aead.TABLE, body))
        assert b"".join(bytes(part) for part in finished.parts) == expected
        assert f"packs/{finished.name[:2]}/{finished.name}" in made["files"]
