"""The help of every command."""

from __future__ import annotations

import re

import pytest

from vimgvc import errors
from vimgvc.cli import app, main

_KEY_VERBS = ("list", "add", "remove", "change", "export", "import", "remember", "forget")
_REMOTE_VERBS = ("add", "list", "show", "rename", "remove")
_COMMANDS = [
    [],
    *([verb] for verb in app.VERBS),
    *(["key", verb] for verb in _KEY_VERBS),
    *(["remote", verb] for verb in _REMOTE_VERBS),
    ["bundle", "create"],
]


def _help(command: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    assert main.run([*command, "--help"]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("command", _COMMANDS, ids=" ".join)
def test_help_has_an_example_and_fits(
    command: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every command says what it does, shows an example of itself, and no line is longer than 83 characters."""
    monkeypatch.setenv("COLUMNS", "80")
    shown = _help(command, capsys)
    assert shown.startswith(f"Usage: {' '.join(['vimgvc', *command])} [OPTIONS]")
    examples = shown[shown.index("\nExamples:\n") :]
    assert f"  {' '.join(['vimgvc', *command])}" in examples
    assert [line for line in shown.splitlines() if len(line) > 83] == []
    assert "Options of every command:\n  -r, --repo DIR" in shown


@pytest.mark.parametrize(("group", "verbs"), [("key", _KEY_VERBS), ("remote", _REMOTE_VERBS), ("bundle", ("create",))])
def test_the_lists_of_verbs_are_complete(
    group: str, verbs: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    """The verbs tested here are those that `key` and `remote` have."""
    listed = _help([group], capsys)
    commands = listed[listed.index("Commands:") : listed.index("Options:")]
    assert set(re.findall(r"^  (\w+) ", commands, re.MULTILINE)) == set(verbs)


def _codes(cls: type[errors.VimgvcError]) -> set[int]:
    return {cls.exit_code}.union(*(_codes(child) for child in cls.__subclasses__()))


def test_help_lists_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit codes in the help are those of the error tree, success and the closed pipe."""
    shown = _help([], capsys)
    listed = {int(code) for code in re.findall(r"(?<= )(\d{1,3})(?= [a-z])", shown[shown.index("Exit codes:") :])}
    assert listed == _codes(errors.VimgvcError) | {0, main.CLOSED_PIPE}
