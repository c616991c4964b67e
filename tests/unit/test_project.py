"""Rules of the project that no linter knows."""

from __future__ import annotations

import ast
import pathlib
import re
from collections.abc import Iterator

import pytest

from vimgvc import errors

_ROOT = pathlib.Path(__file__).parents[2]
_MODULES = sorted((_ROOT / "vimgvc").rglob("*.py"))
_FILE_LINES = 400
_FUNCTION_LINES = 60
_SECTIONS = ["Summary", "Why", "Design", "Alternatives", "Consequences"]


def _functions(path: pathlib.Path) -> Iterator[ast.FunctionDef | ast.AsyncFunctionDef]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            yield node


def _error_classes(base: type[errors.VimgvcError]) -> Iterator[type[errors.VimgvcError]]:
    yield base
    for child in base.__subclasses__():
        yield from _error_classes(child)


def test_files_are_short() -> None:
    """No module is longer than 400 lines."""
    assert len(_MODULES) > 0
    long = {str(path.relative_to(_ROOT)): lines for path in _MODULES if (lines := _lines(path)) > _FILE_LINES}
    assert long == {}


def _lines(path: pathlib.Path) -> int:
    return len(path.read_text().splitlines())


def test_functions_are_short() -> None:
    """No function is longer than 60 lines."""
    long = {
        f"{path.relative_to(_ROOT)}:{function.name}": length
        for path in _MODULES
        for function in _functions(path)
        if (length := (function.end_lineno or 0) - function.lineno + 1) > _FUNCTION_LINES
    }
    assert long == {}


def test_exit_codes_are_those_of_the_manifesto() -> None:
    """The table in the manifesto lists success and the exit codes of the error tree, and no others."""
    text = (_ROOT / "specs" / "manifesto.md").read_text()
    listed = {int(code) for code in re.findall(r"^\| (\d+) \|", text, re.MULTILINE)}
    raised = {cls.exit_code for cls in _error_classes(errors.VimgvcError)}
    assert listed == {0} | raised


@pytest.mark.parametrize("record", sorted(path.name for path in (_ROOT / "specs" / "decisions").glob("*.md")))
def test_decision_records_weigh_alternatives(record: str) -> None:
    """A decision record has the sections of the template, and one alternative is to do nothing."""
    text = (_ROOT / "specs" / "decisions" / record).read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert [one for one in headings if one in _SECTIONS] == _SECTIONS
    assert "doing nothing" in text.lower()


def test_every_dependency_has_a_decision_record() -> None:
    """What pyproject.toml requires at run time is named in the title of a decision record."""
    project = (_ROOT / "pyproject.toml").read_text()
    runtime = project[project.index("dependencies = [") : project.index("[project.scripts]")]
    wanted = set(re.findall(r'^(?:    |keyring = \[)"([a-z0-9]+)', runtime, re.MULTILINE))
    titles = {path.stem.partition("-")[2] for path in (_ROOT / "specs" / "decisions").glob("*.md")}
    assert {"numpy", "keyring"} <= wanted
    assert wanted - titles == set()
