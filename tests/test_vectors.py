"""Every vector is read, or refused with the class of error that it expects, by both readers."""

from __future__ import annotations

import pathlib

import pytest
from vectors import __main__ as generator

from tests import test_specs, vector_file, vectors_product, vectors_reader
from vimgvc import errors

_ROOT = pathlib.Path(__file__).parents[1]
_VECTORS = vector_file.load_all()
_COUNT = 365
_READER_LINES = 400


def _named(vectors: list[vector_file.Vector]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("vector", vectors, ids=lambda vector: vector.name)


@_named(_VECTORS)
def test_package(vector: vector_file.Vector) -> None:
    """The package refuses one defect with the right class; what it reads, it encodes to the same bytes again."""
    assert vectors_product.outcome(vector) == vector.expect


@_named([vector for vector in _VECTORS if vector.kind not in vectors_reader.UNKNOWN])
def test_independent_reader(vector: vector_file.Vector, tmp_path: pathlib.Path) -> None:
    """The reader that was written from the specification alone comes to the same verdict."""
    assert vectors_reader.outcome(vector, tmp_path) == vector.expect


@_named([vector for vector in _VECTORS if "released" in vector.facts and "kind=1" in vector.facts["shape"]])
def test_released(vector: vector_file.Vector) -> None:
    """A restore from a defective segment writes nothing but chunks that were checked before the defect."""
    assert vectors_product.released(vector) == int(vector.facts["released"])


def test_released_counts() -> None:
    """The count that proves nothing is released counts what a good segment releases."""
    (good,) = [vector for vector in _VECTORS if vector.name == "segment_zstd"]
    assert vectors_product.released(good) == 8192


def test_no_vector_is_lost() -> None:
    """All vectors are there, of all kinds, and of every kind one that is read and one that is refused."""
    assert len(_VECTORS) == _COUNT
    assert {vector.kind for vector in _VECTORS} == vectors_product.READERS.keys()
    assert vectors_reader.READERS.keys() | vectors_reader.UNKNOWN == vectors_product.READERS.keys()
    read = {vector.kind for vector in _VECTORS if vector.expect == "success"}
    refused = {vector.kind for vector in _VECTORS if vector.expect != "success"}
    assert read == vectors_product.READERS.keys()
    assert refused == vectors_product.READERS.keys() - {"config_file"}


def test_expected_classes_exist() -> None:
    """What a vector expects is success or a class of the error tree."""
    expected = {vector.expect for vector in _VECTORS}
    assert expected == {"success", "FormatError", "IntegrityError", "NoKey", "SlotDamaged", "Unsupported"}
    assert all(issubclass(getattr(errors, name), errors.VimgvcError) for name in expected - {"success"})


def test_vectors_are_what_the_generator_makes() -> None:
    """Nobody edited a vector by hand, and none was forgotten."""
    found = {path.stem: path.read_text() for path in vector_file.DIRECTORY.glob("*.txt")}
    assert generator.texts_by_name() == found


@pytest.mark.parametrize(
    "path", ["independent_reader.py", *(f"vectors/{p.name}" for p in _ROOT.glob("tools/vectors/*.py"))]
)
def test_second_implementation_shares_no_code(path: str) -> None:
    """The generator and the reader import the standard library, the primitives and themselves."""
    imports = test_specs.imported((_ROOT / "tools" / path).read_text())
    own = {"vectors"} if path.startswith("vectors/") else set()
    assert imports - own <= test_specs.ALLOWED


def test_reader_is_short() -> None:
    """The second reader is at most 400 lines: short enough to be written again."""
    assert len((_ROOT / "tools" / "independent_reader.py").read_text().splitlines()) <= _READER_LINES
