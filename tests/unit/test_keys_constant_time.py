"""What authenticates is compared in constant time, everywhere in the package."""

from __future__ import annotations

import ast
import pathlib
import re

import pytest

import vimgvc

PACKAGE = pathlib.Path(vimgvc.__file__).parent
_AUTHENTICATES = re.compile(r"(?:\w*_)?(?:mac|hmac|commitment|checksum)(?:_\w*)?")
#: In the codec a tag belongs to a ciphertext; elsewhere it names a commit.
_IN_CODEC = re.compile(r"(?:\w*_)?tag(?:_\w*)?")


def leaks(source: str, *, codec: bool) -> list[int]:
    """The lines on which something that authenticates is compared with == or !=, or is looked for with `in`."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Compare) and any(isinstance(op, ast.Eq | ast.NotEq | ast.In) for op in node.ops):
            sides = [node.left, *node.comparators]
            if any(_authenticates(side, codec=codec) for side in sides):
                found.append(node.lineno)
    return found


def _authenticates(side: ast.expr, *, codec: bool) -> bool:
    names = [part.id for part in ast.walk(side) if isinstance(part, ast.Name)]
    names += [part.attr for part in ast.walk(side) if isinstance(part, ast.Attribute)]
    return any(_AUTHENTICATES.fullmatch(name) or (codec and _IN_CODEC.fullmatch(name)) for name in names)


@pytest.mark.parametrize("path", sorted(PACKAGE.rglob("*.py")), ids=lambda path: str(path.relative_to(PACKAGE)))
def test_c21_nothing_that_authenticates_is_compared_with_equals(path: pathlib.Path) -> None:
    """No module compares a tag, MAC, commitment or checksum other than with `hmac.compare_digest`."""
    assert leaks(path.read_text(), codec="codec" in path.parts) == []


@pytest.mark.parametrize(
    "line",
    [
        "tag == expected",
        "if blake3(header, key=k).digest() != slot.commitment: pass",
        "value['x'] == self.mac",
        "checksum_of(x) == y",
        "x in checksum",
        "while not a == b.commitment_of(c): pass",
    ],
)
def test_c21_the_check_sees_a_leak(line: str) -> None:
    """The check above finds each of these."""
    assert leaks(line, codec=True) == [1]


@pytest.mark.parametrize(
    "line", ["stage == 1", "reflog.TAG == kind", "hmac.compare_digest(mac, other)", "machine != x"]
)
def test_c21_the_check_raises_no_false_alarm(line: str) -> None:
    """The check above leaves these alone."""
    assert leaks(line, codec=True) == []
