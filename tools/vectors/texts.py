"""Vectors of canonical JSON (formats.md §1) and of the configuration (§4)."""

from __future__ import annotations

from collections.abc import Iterator

from vectors import kit

_LARGEST = 2**63 - 1

_JSON = {
    "json_bom": ("begins with a byte order mark", b"\xef\xbb\xbf{}"),
    "json_utf16": ("UTF-16", '{"a":1}'.encode("utf-16-le")),
    "json_utf8_overlong": ("U+0041 in two bytes", b'"\xc1\x81"'),
    "json_utf8_truncated": ("the last character lacks a byte", b'"\xe2\x82"'),
    "json_surrogate_bytes": ("half of a surrogate pair, as if it could be UTF-8", b'"\xed\xa0\x80"'),
    "json_surrogate_escape": ("half of a surrogate pair, escaped", b'"\\ud800"'),
    "json_space": ("a space behind the colon", b'{"a": 1}'),
    "json_newline_end": ("a line feed at the end", b'{"a":1}\n'),
    "json_empty": ("no value", b""),
    "json_truncated": ("the closing brace is missing", b'{"a":1'),
    "json_trailing": ("two values", b"{}{}"),
    "json_duplicate_key": ("the same member twice", b'{"a":1,"a":1}'),
    "json_unsorted": ("b before a", b'{"b":1,"a":1}'),
    "json_escape_needless": ("a letter is escaped", b'"\\u0041"'),
    "json_escape_slash": ("a slash is escaped", b'"\\/"'),
    "json_escape_upper": ("an upper-case digit in an escape", b'"\\u001F"'),
    "json_escape_long": ("a line feed in the long form", b'"\\u000a"'),
    "json_control_raw": ("a line feed that is not escaped", b'"\n"'),
    "json_integer_high": ("2^63", str(_LARGEST + 1).encode()),
    "json_integer_low": ("-2^63", str(-_LARGEST - 1).encode()),
    "json_integer_huge": ("an integer of 5000 digits", b"9" * 5000),
    "json_fraction": ("a fraction, though it is a whole number", b"1.0"),
    "json_exponent": ("an exponent", b"1e3"),
    "json_minus_zero": ("minus zero", b"-0"),
    "json_leading_zero": ("a leading zero", b"01"),
    "json_nan": ("not a number", b"NaN"),
    "json_infinity": ("infinity", b"-Infinity"),
    "json_deep_17": ("17 arrays in each other", b"[" * 17 + b"]" * 17),
    "json_deep_very": ("a thousand arrays in each other, not closed", b"[" * 1000),
}
_GOOD_JSON: dict[str, tuple[str, object]] = {
    "json_sorted_code_points": (
        "by code points, not by UTF-16 units",
        {"\U0001f600": 1, "\uffff": 2, "a": {}, "Z": []},
    ),
    "json_every_escape": ("all of U+0000 … U+007F, and more", "".join(map(chr, range(0x80))) + "é\u2028\U0001f600"),
    "json_integer_limits": ("the outermost integers", [_LARGEST, -_LARGEST, 0, -1]),
    "json_deep_16": ("16 arrays and objects in each other", None),
}

_CONFIGS: dict[str, tuple[str, str, dict[str, object] | bytes]] = {
    "config_format_unknown": (
        "Unsupported",
        "of format 2, which may look entirely different",
        {"format": 2, "new": {}},
    ),
    "config_feature_unknown": ("Unsupported", "a feature of later versions", {"features": ["delta"], "delta": 1}),
    "config_feature_number": ("FormatError", "a feature that is not text", {"features": [1]}),
    "config_format_missing": ("FormatError", "no format", b'{"features":[]}'),
    "config_format_boolean": ("FormatError", "true is not 1", {"format": True}),
    "config_member_unknown": ("FormatError", "a member that no version has", {"more": 1}),
    "config_member_missing": ("FormatError", "no identifier", b'{"chunk":{},"features":[],"format":1}'),
    "config_average": ("FormatError", "an average that is not one of the three", kit.config(8192)),
    "config_maximum": ("FormatError", "a maximum that is not four times the average", {"chunk": "maximum"}),
    "config_minimum": ("FormatError", "a minimum that is not a block", {"chunk": "minimum"}),
    "config_id_upper": ("FormatError", "an identifier in upper case", {"id": kit.REPO.hex().upper()}),
    "config_id_short": ("FormatError", "an identifier of 15 bytes", {"id": kit.REPO.hex()[:-2]}),
    "config_trailing": ("FormatError", "a line feed at the end", kit.dumps(kit.config()) + b"\n"),
}


def vectors() -> Iterator[kit.Vector]:
    for name, (comment, body) in _JSON.items():
        yield kit.Vector(name, "FormatError", "json", comment, body)
    for name, (comment, value) in _GOOD_JSON.items():
        body = b'{"":[' * 8 + b"]}" * 8 if value is None else kit.dumps(value)
        yield kit.Vector(name, "success", "json", comment, body)
    for name, (expect, comment, changes) in _CONFIGS.items():
        yield kit.Vector(name, expect, "config", comment, _config(changes))
    for average in (16384, 32768, 65536):
        body = kit.dumps(kit.config(average))
        yield kit.Vector(f"config_{average}", "success", "config", f"chunks of {average} bytes", body)
    yield _differs()


def _config(changes: dict[str, object] | bytes) -> bytes:
    if isinstance(changes, bytes):
        return changes
    if isinstance(changes.get("chunk"), str):
        chunk = {"average": 65536, "maximum": 262144, "minimum": 4096}
        changes = {"chunk": {**chunk, str(changes["chunk"]): 12288}}
    return kit.dumps({**kit.config(), **changes})


def _differs() -> kit.Vector:
    secret = bytes(range(32))
    inside = kit.dumps(kit.config(65536))
    facts = {
        "secret": f"keyfile {secret.hex()}",
        "slot": kit.slot("keyfile", secret, inside).hex(),
        "config": inside.hex(),
    }
    body = kit.dumps(kit.config(16384, id=bytes(16).hex()))
    comment = "the file claims another identifier and chunk size than the slot, which is believed"
    return kit.Vector("config_differs_from_slot", "success", "config_file", comment, body, facts)
