"""Bounded reading and canonical JSON: formats.md §1."""

from __future__ import annotations

import json
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st

from tests import mutate
from vimgvc import errors
from vimgvc.model import encoding

_LARGEST = 2**63 - 1
_TEXT = st.text(st.characters(exclude_categories=["Cs"]))
_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-_LARGEST, _LARGEST) | _TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(_TEXT, inner, max_size=4),
    max_leaves=20,
)


def _decode(data: bytes) -> bytes:
    return encoding.dumps_canonical(encoding.loads_canonical(data, "sample"))


@hypothesis.given(_VALUES)
def test_values_come_back(value: Any) -> None:
    """Whatever has a canonical encoding is read back from it."""
    assert encoding.loads_canonical(encoding.dumps_canonical(value), "value") == value


@hypothesis.given(_VALUES, st.booleans(), st.sampled_from([None, 0, 1]), st.sampled_from([(",", ":"), (", ", ":")]))
def test_one_encoding(value: Any, ascii_only: bool, indent: int | None, separators: tuple[str, str]) -> None:
    """Any other JSON of the same value is refused."""
    data = json.dumps(value, ensure_ascii=ascii_only, indent=indent, separators=separators).encode()
    if data == encoding.dumps_canonical(value):
        assert encoding.loads_canonical(data, "value") == value
    else:
        with pytest.raises(errors.FormatError):
            encoding.loads_canonical(data, "value")


@hypothesis.given(_VALUES, st.sampled_from(["utf-16", "utf-16-le", "utf-32", "utf-8-sig"]))
def test_one_character_encoding(value: Any, codec: str) -> None:
    """JSON in any other encoding of characters is refused, also where Python's parser would guess it."""
    with pytest.raises(errors.FormatError):
        encoding.loads_canonical(encoding.dumps_canonical(value).decode().encode(codec), "value")


def test_mutants(seed: int) -> None:
    """Ten thousand variations are refused with a FormatError or encode to themselves."""
    samples = [
        b'{"a":[1,-2,null,true],"b":{"c":"\\n\\u001f\xc3\xa9"},"d":9223372036854775807}',
        b"[[[[[[[[[[[[[[[[]]]]]]]]]]]]]]]]",
        b'"\xf0\x9f\x98\x80"',
    ]
    decoded, refused = mutate.survey(_decode, mutate.mutants(seed, samples, 10_000))
    assert decoded > 10
    assert refused > 5000


@pytest.mark.parametrize("opening", [b"[", b'{"":', b'[{"a":['])
@pytest.mark.parametrize("times", [17, 1000, 200_000])
def test_nesting_is_bounded(opening: bytes, times: int) -> None:
    """Nesting is refused, however deep, without exhausting the interpreter's stack."""
    with pytest.raises(errors.FormatError):
        encoding.loads_canonical(opening * times, "nested")


def test_depth_counts_arrays_and_objects() -> None:
    """A value inside 16 arrays is within the limit; 17 arrays are not."""
    assert encoding.loads_canonical(b"[" * 16 + b"1" + b"]" * 16, "nested")
    with pytest.raises(errors.FormatError):
        encoding.loads_canonical(b"[" * 17 + b"]" * 17, "nested")


def test_size_is_bounded_before_parsing() -> None:
    """More than 64 MiB are refused before anything is parsed, exactly 64 MiB are not."""
    text = b'"' + b"a" * (encoding.MAX_JSON - 2) + b'"'
    assert len(encoding.loads_canonical(text, "long")) == encoding.MAX_JSON - 2
    longer = b'"' + b"a" * (encoding.MAX_JSON - 1) + b'"'
    assert mutate.peak(lambda: encoding.loads_canonical(longer, "long")) < 1 << 20


@hypothesis.given(st.binary(max_size=40), st.lists(st.integers(0, 50), max_size=10))
def test_cursor_gives_every_byte_once(data: bytes, lengths: list[int]) -> None:
    """Pieces come in order and complete; one beyond the end, or bytes left over, are refused."""
    cursor, at = encoding.Cursor(data, "sample"), 0
    for length in lengths:
        if at + length > len(data):
            with pytest.raises(errors.FormatError):
                cursor.take(length)
            continue
        assert cursor.take(length) == data[at : at + length]
        at += length
    if at < len(data):
        with pytest.raises(errors.FormatError):
            cursor.end()
    else:
        cursor.end()


def test_reserved_bytes() -> None:
    """Reserved bytes are taken when they are zero, and refused otherwise."""
    encoding.Cursor(bytes(3), "sample").zeros(3)
    with pytest.raises(errors.FormatError):
        encoding.Cursor(b"\0\0\1", "sample").zeros(3)


@pytest.mark.parametrize(
    ("kind", "good", "bad"),
    [
        ("text", ["", "a"], [1, None, True, [], {}]),
        ("number", [0, 1, _LARGEST], [-1, True, False, "1", None]),
        ("hex", ["ab", "00"], ["AB", "a", "abc", "", "zz", "\u0660\u0660", 1, None]),
    ],
)
def test_members_have_types(kind: str, good: list[Any], bad: list[Any]) -> None:
    """A member of another type or form is refused; booleans are not numbers."""

    def read(value: Any) -> object:
        members = encoding.Members({"m": value}, "sample")
        found = members.hex("m", 1) if kind == "hex" else getattr(members, kind)("m")
        members.end()
        return found

    assert [read(value) for value in good] == good
    for value in bad:
        with pytest.raises(errors.FormatError):
            read(value)


@pytest.mark.parametrize("value", [[], "a", 1, None, True])
def test_members_of_an_object_only(value: Any) -> None:
    """Only an object has members."""
    with pytest.raises(errors.FormatError):
        encoding.Members(value, "sample")


def test_members_are_complete_and_no_others() -> None:
    """A missing member and one that nobody asked for are refused, by name."""
    members = encoding.Members({"a": 1, "b": 2}, "sample")
    assert members.number("a") == 1
    with pytest.raises(errors.FormatError, match="'c'"):
        members.number("c")
    with pytest.raises(errors.FormatError, match="'b'"):
        members.end()


def test_a_member_that_may_be_null() -> None:
    """Null is None; anything else has to be hexadecimal."""
    assert encoding.Members({"a": None}, "sample").hex_or_none("a", 1) is None
    assert encoding.Members({"a": "ff"}, "sample").hex_or_none("a", 1) == "ff"
    for value in ("", 0, False):
        with pytest.raises(errors.FormatError):
            encoding.Members({"a": value}, "sample").hex_or_none("a", 1)
