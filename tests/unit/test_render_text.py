"""Escaping, sizes, times."""

from __future__ import annotations

import sys
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests import programs
from vimgvc.cli import text

_HOSTILE = {
    "escape sequence": ("\x1b[2Jgone", "\\x1b[2Jgone"),
    "line feed": ("one\ntwo", "one\\ntwo"),
    "carriage return": ("shown\rhidden", "shown\\rhidden"),
    "bell and delete": ("\x07\x7f", "\\x07\\x7f"),
    "c1 control": ("\x9b31m", "\\x9b31m"),
    "right-to-left override": ("gpj.\u202eexe", "gpj.\\u202eexe"),
    "isolate": ("\u2066x\u2069", "\\u2066x\\u2069"),
    "line separator": ("a\u2028b", "a\\u2028b"),
    "zero width": ("a\u200bb", "a\\u200bb"),
    "tag character": ("\U000e0041", "\\U000e0041"),
    "undecodable byte": ("caf\udce9", "caf\\xe9"),
    "lone surrogate": ("\ud800", "\\ud800"),
}


@pytest.mark.parametrize(("hostile", "shown"), _HOSTILE.values(), ids=_HOSTILE)
def test_x11_hostile_text_is_escaped(hostile: str, shown: str) -> None:
    """What could move the cursor, start a line or reverse what follows is shown as its code."""
    assert shown == text.escape(hostile)


@pytest.mark.parametrize("name", ["vm", "Größe", "仮想機械\u3000一", "машина №5", "a\u00a0b", "🖥 désktop", "C:\\disk"])
def test_ordinary_text_stays(name: str) -> None:
    """Letters of any script, ordinary spaces and backslashes are not touched."""
    assert name == text.escape(name)


@given(st.text(st.characters(), max_size=20))
def test_x11_nothing_escaped_is_active(anything: str) -> None:
    """Whatever goes in, what comes out is one line of characters that only show themselves."""
    for char in text.escape(anything):
        assert unicodedata.category(char)[0] != "C"
        assert unicodedata.category(char) not in ("Zl", "Zp")


def test_messages_keep_their_lines_and_lose_the_rest() -> None:
    """Only line feeds part the lines of a message; the end of the last line is none of them."""
    assert text.lines("one\n\ntwo\x1b[0m\rx\n\n") == ["one", "", "two\\x1b[0m\\rx"]
    assert text.subject("\nfirst\nsecond") == "first [...]"
    assert text.subject("only\n") == "only"


@pytest.mark.parametrize(
    ("count", "shown"),
    [
        (0, "0 B"),
        (511, "511 B"),
        (1023, "1023 B"),
        (1024, "1.0 KiB"),
        (1536, "1.5 KiB"),
        (102297, "99.9 KiB"),
        (102400, "100 KiB"),
        (1048063, "1023 KiB"),
        (1048064, "1.0 MiB"),
        (1 << 30, "1.0 GiB"),
        (8 << 30, "8.0 GiB"),
        (3 << 40, "3.0 TiB"),
        (2**63 - 1, "8.0 EiB"),
        (2**80, "1048576 EiB"),
    ],
)
def test_sizes_are_binary_with_three_digits(count: int, shown: str) -> None:
    """A size has the largest unit that leaves at least one, and no digits that say nothing."""
    assert shown == text.size(count)


@given(st.integers(0, 2**70), st.integers(0, 2**70))
def test_larger_sizes_never_look_smaller(one: int, other: int) -> None:
    """The unit and number shown grow with the size."""

    def value(shown: str) -> float:
        number, unit = shown.split()
        return float(number) * 1024.0 ** ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"].index(unit)

    small, large = sorted((one, other))
    assert value(text.size(small)) <= value(text.size(large))


def test_exact_sizes_show_every_byte() -> None:
    """A size of more than a few bytes is shown in both ways."""
    assert text.exact_size(1000) == "1000 B"
    assert text.exact_size(8 << 30) == "8.0 GiB (8,589,934,592 bytes)"


@pytest.mark.parametrize(
    ("typed", "count"),
    [
        ("0", 0),
        ("512", 512),
        ("512B", 512),
        ("64K", 65536),
        ("64KiB", 65536),
        ("64k", 65536),
        ("1G", 1 << 30),
        ("1GB", 10**9),
        ("2 MiB", 2 << 20),
    ],
)
def test_sizes_are_read_as_people_write_them(typed: str, count: int) -> None:
    """K and KiB are 1024, KB is 1000."""
    assert count == text.parse_size(typed)


@pytest.mark.parametrize("typed", ["", "K", "-1", "1.5G", "64X", "1e9", "٣", "1 2", "9" * 30])
def test_what_is_no_size_is_refused(typed: str) -> None:
    """Anything but a whole number with a known unit is None."""
    assert text.parse_size(typed) is None


@pytest.mark.parametrize(
    ("value", "shown"), [(0.04, "0.0 s"), (59.94, "59.9 s"), (61, "1:01 min"), (3725, "1:02:05 h")]
)
def test_durations(value: float, shown: str) -> None:
    """Seconds up to a minute, then a clock."""
    assert shown == text.seconds(value)


@pytest.mark.parametrize(("number", "shown"), [(0, "0 commits"), (1, "1 commit"), (12345, "12,345 commits")])
def test_counts_agree_with_their_noun(number: int, shown: str) -> None:
    """One of something is singular, everything else plural."""
    assert shown == text.count(number, "commit")


@pytest.mark.parametrize(
    ("zone", "shown"), [("Asia/Kolkata", "2026-05-02 03:30:07 +0530"), ("UTC0", "2026-05-01 22:00:07 +0000")]
)
def test_dates_are_local(zone: str, shown: str) -> None:
    """The time of a commit is shown in the zone of whoever looks."""
    code = "from vimgvc.cli import text; print(text.date('2026-05-01T22:00:07Z'))"
    environment = {"TZ": zone, "PYTHONPATH": "."}
    assert f"{shown}\n" == programs.run(sys.executable, "-c", code, env=environment)


@pytest.mark.parametrize("stamp", ["9999-99-99T99:99:99Z", "0000-00-00T00:00:00Z", "nonsense\x1b"])
def test_impossible_dates_do_not_stop_a_log(stamp: str) -> None:
    """A time that no calendar has is still shown as something harmless."""
    assert text.date(stamp).isprintable()


def test_colour_is_switched_off_again() -> None:
    """The plain style adds nothing; the coloured one always switches back."""
    assert text.Style().id("x") == "x"
    for paint in (text.Style(colour=True).id, text.Style(colour=True).bad):
        assert paint("x").endswith("x\x1b[0m")
        assert paint("") == ""
