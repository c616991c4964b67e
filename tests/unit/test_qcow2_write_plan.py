"""Where everything lies in an image that is to be written, and what options allow."""

from __future__ import annotations

import doctest
import pathlib
import re
import tracemalloc
from typing import Any

import numpy as np
import pytest

from tests.unit import test_qcow2_write_stream as streams
from vimgvc import errors
from vimgvc.disk import extents
from vimgvc.images import qcow2_plan, qcow2_stream, units

DATA, ZERO, HOLE = extents.Kind.DATA, extents.Kind.ZERO, extents.Kind.HOLE
_SPEC = pathlib.Path(__file__).parents[2] / "specs" / "qcow2.md"


def _example() -> dict[str, Any]:
    """What the examples of the specification have made."""
    bodies = re.findall(r"^```python-example\n(.*?)^```$", _SPEC.read_text(), re.MULTILINE | re.DOTALL)
    test = doctest.DocTestParser().get_doctest("\n".join(bodies), {}, "qcow2.md", str(_SPEC), 0)
    assert doctest.DocTestRunner().run(test, clear_globs=False).failed == 0
    return test.globs


def test_images_are_those_of_the_specification() -> None:
    """Byte for byte, what is streamed is what the worked examples of specs/qcow2.md show."""
    made = _example()
    disk = bytearray(made["size"])
    for number, content in made["data"].items():
        disk[number * 65536 : (number + 1) * 65536] = content
    data = [extents.Extent(number * 65536, 65536, DATA) for number in made["data"]]
    for compressed, expected in [(False, made["image"]), (True, made["compressed"])]:
        options = qcow2_plan.Options(compressed=compressed)
        image = streams.stream(qcow2_stream.Stream(len(disk), options, data), bytes(disk))
        assert image[-len(expected) :] == expected
        assert len(image) == len(expected) + (2 * 65536 if compressed else 0)


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        ({"colour": "red"}, "qcow2 has no option 'colour'"),
        ({"cluster_size": "3000"}, "cluster_size is 3000; allowed are: powers of two from 512 to 2097152"),
        ({"cluster_size": "256"}, "cluster_size is 256; allowed are"),
        ({"cluster_size": "4M"}, "cluster_size is 4194304; allowed are"),
        ({"cluster_size": "64G"}, "cluster_size is 64G; allowed are: a number"),
        ({"cluster_size": "-1"}, "cluster_size is -1; allowed are"),
        ({"compat": "1.0"}, "compat is 1.0; allowed are: 0.10, v2, 1.1, v3"),
        ({"lazy_refcounts": "maybe"}, "lazy_refcounts is maybe; allowed are: on, off"),
        ({"preallocation": "some"}, "preallocation is some; allowed are: off, metadata, falloc, full"),
        ({"compression_type": "lz4"}, "compression_type is lz4; allowed are: zlib, zstd"),
        ({"refcount_bits": "3"}, "refcount_bits is 3; allowed are: 1, 2, 4, 8, 16, 32, 64"),
        ({"refcount_bits": "x"}, "refcount_bits is x; allowed are"),
        ({"compat": "0.10", "lazy_refcounts": "on"}, "lazy_refcounts is on; allowed are: only off with compat=0.10"),
        ({"compat": "0.10", "extended_l2": "on"}, "extended_l2 is on; allowed are: only off with compat=0.10"),
        ({"compat": "v2", "compression_type": "zstd"}, "compression_type is zstd; allowed are: only zlib"),
        ({"compat": "v2", "refcount_bits": "8"}, "refcount_bits is 8; allowed are: only 16"),
        ({"extended_l2": "on", "cluster_size": "8k"}, "cluster_size is 8192; allowed are: 16384 and more"),
        ({"-c": "", "preallocation": "full"}, "preallocation is full; allowed are: only off for a compressed image"),
        ({"-c": "", "refcount_bits": "8"}, "refcount_bits is 8; allowed are: 16 and more for a compressed image"),
        ({"backing_file": "a"}, "backing_file and backing_fmt belong together"),
        ({"backing_fmt": "raw"}, "backing_file and backing_fmt belong together"),
        ({"backing_file": "a" * 1024, "backing_fmt": "raw"}, "allowed are: names of 1 to 1023 bytes"),
        ({"backing_file": "", "backing_fmt": "raw"}, "allowed are: names of 1 to 1023 bytes"),
        ({"backing_file": "a", "backing_fmt": "r" * 16}, "allowed are: 1 to 15 bytes"),
        ({"backing_file": "a" * 500, "backing_fmt": "raw", "cluster_size": "512"}, "shorter names"),
        ({"backing_file": "a", "backing_fmt": "raw", "preallocation": "falloc"}, "only off with a backing file"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_refused(pairs: dict[str, str], message: str) -> None:
    """Each is a usage error that names the option, its value and what is allowed."""
    pairs = dict(pairs)
    compressed = pairs.pop("-c", None) is not None
    with pytest.raises(errors.UsageError, match=re.escape(message)):
        qcow2_plan.parse_options(pairs, compressed=compressed)


def test_options_are_parsed() -> None:
    """Sizes have units, versions two names; what is not said is as QEMU has it."""
    assert qcow2_plan.parse_options({}) == qcow2_plan.Options()
    pairs = {"cluster_size": "2M", "compat": "v3", "lazy_refcounts": "on", "extended_l2": "on", "refcount_bits": "64"}
    pairs |= {"preallocation": "falloc", "compression_type": "zstd", "backing_file": "b", "backing_fmt": "raw"}
    assert qcow2_plan.parse_options(pairs) == qcow2_plan.Options(
        cluster_size=2 << 20,
        lazy_refcounts=True,
        extended_l2=True,
        preallocation="falloc",
        compression_type="zstd",
        refcount_bits=64,
        backing_file="b",
        backing_format="raw",
    )
    assert qcow2_plan.parse_options({"compat": "v2", "cluster_size": "4k"}).compat == "0.10"


@pytest.mark.slow
def test_disks_too_large_for_their_clusters_are_refused() -> None:
    """A disk that needs tables which QEMU does not open is a usage error that says how large one may be."""
    with pytest.raises(errors.UsageError, match="allows a disk of 137438953472 bytes, not of 137438953473"):
        qcow2_plan.Plan((128 << 30) + 1, qcow2_plan.Options(cluster_size=512), [])
    assert qcow2_plan.Plan(128 << 30, qcow2_plan.Options(cluster_size=512), []).l1_entries == 4 << 20
    whole = [extents.Extent(0, 128 << 30, DATA)]
    with pytest.raises(errors.UsageError, match="too small for a file of"):
        qcow2_plan.Plan(128 << 30, qcow2_plan.Options(cluster_size=512, refcount_bits=64), whole)


@pytest.mark.slow
def test_a_dense_terabyte_needs_little_memory() -> None:
    """The plan of 1 TiB, and making its tables, stay below 64 MiB."""
    tracemalloc.start()
    plan = qcow2_plan.Plan(1 << 40, qcow2_plan.Options(), [extents.Extent(0, 1 << 40, DATA)])
    total = sum(len(piece) for piece in plan.head())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert total == plan.data_offset
    assert plan.file_size == plan.data_offset + (1 << 40)
    assert peak < 64 << 20


@pytest.mark.parametrize(("compat", "extended"), [("0.10", False), ("1.1", False), ("1.1", True)])
def test_pieces_of_overlays(compat: str, extended: bool) -> None:
    """Units that zeros cover are zero, units that anything else touches are written whole, the rest is not there."""
    unit, size = 65536 // 32 if extended else 65536, (1 << 20) + 512
    options = qcow2_plan.Options(compat=compat, extended_l2=extended, backing_file="b", backing_format="raw")
    changed = [
        extents.Extent(unit, unit // 2, ZERO),  # a part
        extents.Extent(3 * unit, 2 * unit, ZERO),
        extents.Extent(6 * unit - 512, 512, ZERO),
        extents.Extent(6 * unit, 1, DATA),
        extents.Extent(8 * unit, unit, HOLE),
        extents.Extent(1 << 20, 512, ZERO),  # to the end
    ]
    plan = qcow2_plan.Plan(size, options, changed)
    zeros = [(3 * unit, 5 * unit), (1 << 20, size)]
    written = [(unit, 2 * unit), (5 * unit, 7 * unit)]
    if compat == "0.10":
        zeros, written = [], [(unit, 2 * unit), (3 * unit, 7 * unit), (1 << 20, size)]
    assert [(item.start, item.end) for item in plan.pieces()] == written
    kinds = list(plan.kinds(0, size))
    assert [(item.start, item.end) for item in kinds if item.kind is ZERO] == zeros
    assert [(item.start, item.end) for item in kinds if item.kind is DATA] == written


def test_fingerprints_tell_plans_apart() -> None:
    """Another size, option or extent is another plan; the same ones are the same."""
    base = [extents.Extent(0, 4096, DATA)]
    prints = {
        qcow2_plan.Plan(1 << 20, qcow2_plan.Options(), base).fingerprint(),
        qcow2_plan.Plan(1 << 21, qcow2_plan.Options(), base).fingerprint(),
        qcow2_plan.Plan(1 << 20, qcow2_plan.Options(lazy_refcounts=True), base).fingerprint(),
        qcow2_plan.Plan(1 << 20, qcow2_plan.Options(), [extents.Extent(65536, 4096, DATA)]).fingerprint(),
    }
    assert len(prints) == 4
    assert qcow2_plan.Plan(1 << 20, qcow2_plan.Options(), base).fingerprint() in prints


@pytest.mark.slow
@pytest.mark.parametrize("count", [0, 1, 511, 512, 513, 100_000, units.BLOCK + 1, 2 * units.BLOCK + 777])
@pytest.mark.parametrize("density", [0.0, 0.0001, 0.5, 0.999, 1.0])
def test_unit_sets_are_sets(count: int, density: float, seed: int) -> None:
    """Membership, ranks, runs, masks, words and groups are those of plain numpy, also across blocks."""
    rng = np.random.default_rng(seed)
    members = rng.random(count) < density
    builder = units.Builder(count)
    steps = np.diff(members.astype(np.int8), prepend=0, append=0)
    expected = list(zip(np.flatnonzero(steps == 1).tolist(), np.flatnonzero(steps == -1).tolist(), strict=True))
    for first, end in expected:
        middle = int(rng.integers(first, end + 1))
        builder.add(first, middle)
        builder.add(middle, end)
    found = builder.done()
    assert found.total == members.sum()
    assert list(found.runs()) == expected
    below = np.concatenate([[0], np.cumsum(members)])
    for number in [0, count, *rng.integers(0, count + 1, 50).tolist()]:
        assert found.rank(number) == below[number]
        assert number == count or (number in found) == members[number]
        end = int(rng.integers(number, count + 1))
        assert found.has_all(number, end) == members[number:end].all()
        assert (found.mask(number, end + 9) == np.append(members[number:end], found.mask(end, end + 9))).all()
    number, end = sorted(rng.integers(0, count + 1, 2).tolist())
    inside = [(max(first, number), min(last, end)) for first, last in expected]
    assert list(found.runs(number, end)) == [(first, last) for first, last in inside if first < last]
    for size in (2, 32, 4096):
        padded = np.append(members, np.zeros(-count % size, np.bool_)).reshape(-1, size)
        assert (found.grouped(size).mask(0, len(padded)) == padded.any(axis=1)).all()
    words = np.packbits(np.append(members, np.zeros(-count % 32 + 64, np.bool_)), bitorder="little").view("<u4")
    assert (found.words(0, len(words)) == words).all()
