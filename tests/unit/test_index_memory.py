"""What an index costs: memory that does not grow with the repository, and no failure when a disk is full."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

_ROOT = pathlib.Path(__file__).parents[2]

_SCRIPT = """
import pathlib, re, resource, sys
import numpy as np
from vimgvc import errors, monitor
from vimgvc.store import index, index_object

PER_OBJECT = 1 << 18

def peak():
    return int(re.search(r"VmHWM:\\s+(\\d+)", pathlib.Path("/proc/self/status").read_text())[1]) / 1024

def ids_of(number):
    ids = np.random.default_rng(number).integers(0, 256, (PER_OBJECT, 32), np.uint8)
    return ids[ids.view(">u8")[:, 0].argsort()]

def load(name):
    number = int(name, 16)
    packs = np.zeros(1, index_object.PACK)
    packs["name"] = number + 1
    return index_object.encode(index_object.IndexBody(packs, ids_of(number), np.zeros(PER_OBJECT, index_object.PLACE)))

def refuse(name):
    raise AssertionError("an index object was read although it is in the cache")

def open_index(count, load, cache):
    return index.Index.open([f"{number:064x}" for number in range(count)], load, cache, monitor.NullMonitor())

def check(of, count):
    for number in range(count):
        ids = ids_of(number)
        found = of.lookup(ids)
        assert found.found.all()
        assert {of.pack(item).name[:2] for item in np.unique(found.pack).tolist()} == {f"{number + 1:02x}"}
        assert not of.contains(ids ^ np.uint8(1)).any()
        for start in range(0, 64 * 50, 64):
            assert of.contains(ids[start : start + 64]).all()

cache = pathlib.Path(sys.argv[1])
"""


def _run(tmp_path: pathlib.Path, script: str) -> float:
    """The number that the script prints."""
    done = subprocess.run(
        [sys.executable, "-c", _SCRIPT + script, str(tmp_path / "cache")],
        cwd=_ROOT,
        env={"TMPDIR": str(tmp_path), "PYTHONPATH": str(_ROOT), "OPENBLAS_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    return float(done.stdout)


@pytest.mark.slow
def test_d13_memory_stays_bounded(tmp_path: pathlib.Path) -> None:
    """Two million entries (80 MiB of records) are indexed and then found again in less memory than they are.

    As in production: 16 million entries have another 56 MiB of keys, and the same of everything else.
    """
    build = """
load("0")
start = peak()
open_index(8, load, cache)
print(peak() - start)
"""
    assert _run(tmp_path, build) < 70
    use = """
ids_of(0) ^ np.uint8(1)
start = peak()
check(open_index(8, refuse, cache), 8)
print(peak() - start)
"""
    assert _run(tmp_path, use) < 50


@pytest.mark.slow
def test_d8_no_space_for_the_cache(tmp_path: pathlib.Path) -> None:
    """When no file can be written the index still works, and leaves no half-written file."""
    script = """
resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000))
of = open_index(2, load, cache)
check(of, 2)
ids = np.random.default_rng(99).integers(0, 256, (300_000, 32), np.uint8)
column = np.zeros(300_000, np.uint16)
of.add_pack(bytes(range(32)), 1, 1, 1, ids, column, column)
assert of.contains(ids).all()
assert [len(body) for body in of.take_unsaved()] == [300_000]
print(len([path for path in cache.iterdir() if path.stat().st_size > 1000 or path.name.startswith(".tmp-")]))
"""
    assert _run(tmp_path, script) == 0
