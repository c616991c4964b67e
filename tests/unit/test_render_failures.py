"""How failures end: which words, which exit code, and nothing secret."""

from __future__ import annotations

import errno
import io
import json
import sys
import threading

import pytest

from vimgvc import errors
from vimgvc.cli import app, main, options, output, progress

_SECRET = "correct horse battery staple"


def _fail(monkeypatch: pytest.MonkeyPatch, failure: BaseException) -> None:
    def invoke(arguments: list[str]) -> None:
        raise failure

    monkeypatch.setattr(app, "invoke", invoke)


_FAILURES = {
    "typed": (errors.Busy("held", hint="wait"), 11, "held", "wait"),
    "typed without a hint": (errors.NoKey("none opens"), 12, "none opens", "check what you gave; [...]"),
    "ctrl-c": (KeyboardInterrupt(), 130, "interrupted", "run the same command again to continue"),
    "memory": (MemoryError(), 1, "out of memory", "close other programs, [...]"),
    "full": (OSError(errno.ENOSPC, "No space left on device", "f"), 24, "f: No space left on device", "free [...]"),
    "quota": (OSError(errno.EDQUOT, "Disk quota exceeded", "f"), 24, "f: Disk quota exceeded", "free [...]"),
    "files": (OSError(errno.EMFILE, "Too many open files"), 1, "operating system: Too many open files", "raise [...]"),
    "defect": (ValueError(_SECRET), 1, "internal error: ValueError at [...]", "this is a defect of vimgvc; [...]"),
    "recursion": (RecursionError(_SECRET), 1, "internal error: RecursionError at [...]", "this is a defect [...]"),
}


def _is(shown: str, expected: str) -> bool:
    return shown.startswith(expected.removesuffix("[...]")) if expected.endswith("[...]") else shown == expected


@pytest.mark.parametrize("case", _FAILURES.values(), ids=_FAILURES)
def test_every_failure_is_two_lines(
    case: tuple[BaseException, int, str, str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever is raised becomes an error line, a hint line and an exit code; C20: no text of foreign exceptions."""
    failure, code, message, hint = case
    _fail(monkeypatch, failure)
    assert main.run(["log"]) == code
    told = capsys.readouterr()
    assert told.out == ""
    error_line, hint_line = told.err.splitlines()
    assert error_line.startswith("vimgvc: error: ")
    assert _is(error_line.removeprefix("vimgvc: error: "), message)
    assert hint_line.startswith("vimgvc: hint: ")
    assert _is(hint_line.removeprefix("vimgvc: hint: "), hint)
    assert _SECRET not in told.err


def test_failures_as_json(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """With --json the same is one line of JSON; an option after `--` is none."""
    _fail(monkeypatch, errors.Unsupported("delta", hint="newer"))
    assert main.run(["log", "--json"]) == 23
    assert json.loads(capsys.readouterr().err) == {
        "error": {"kind": "unsupported", "message": "unsupported feature: delta", "hint": "newer", "exit_code": 23}
    }
    main.run(["log", "--", "--json"])
    assert capsys.readouterr().err.startswith("vimgvc: error: ")


def test_x11_errors_are_escaped(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A path in an error can neither start a line nor reach the terminal raw."""
    _fail(monkeypatch, errors.VimgvcError("a\nvimgvc: error: forged\x1b[0m", hint="b\rc"))
    main.run(["log"])
    assert capsys.readouterr().err.splitlines() == [
        "vimgvc: error: a\\nvimgvc: error: forged\\x1b[0m",
        "vimgvc: hint: b\\rc",
    ]


def test_a_traceback_on_demand(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """VIMGVC_TRACEBACK shows where a defect is; the two lines still come last."""
    monkeypatch.setenv("VIMGVC_TRACEBACK", "1")
    _fail(monkeypatch, ZeroDivisionError("x"))
    assert main.run(["log"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines[0] == "Traceback (most recent call last):"
    assert lines[-2].startswith("vimgvc: error: internal error: ZeroDivisionError at cli/main.py:")


def test_a_reader_that_left(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A closed pipe is reported by the exit code alone."""
    _fail(monkeypatch, BrokenPipeError())
    assert main.run(["log"]) == main.CLOSED_PIPE
    assert capsys.readouterr() == ("", "")


def test_every_error_class_has_a_hint() -> None:
    """No error is shown without saying what to do next."""
    assert main.as_vimgvc_error(errors.VimgvcError("x")).hint == ""
    classes: list[type[errors.VimgvcError]] = [errors.VimgvcError, *errors.VimgvcError.__subclasses__()]
    for cls in classes:
        assert any(issubclass(cls, kind) for kind in main.HINTS), cls


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _output(**settings: bool) -> output.Output:
    return output.Output(io.StringIO(), _Terminal(), {"TERM": "xterm"}, **settings)


def test_quiet_and_json_decide_what_is_printed() -> None:
    """--json prints the document only, --quiet leaves out what was done, verbose adds detail."""
    for settings, expected in (
        ({}, "line\n"),
        ({"quiet": True}, ""),
        ({"json": True, "quiet": True}, '{\n  "a": 1\n}\n'),
    ):
        out = _output(**settings)
        out.done({"a": 1}, ["line"])
        assert isinstance(out.stdout, io.StringIO)
        assert out.stdout.getvalue() == expected
    for settings, expected in (
        ({}, "vimgvc: b\n"),
        ({"quiet": True}, ""),
        ({"verbose": True}, "vimgvc: a\nvimgvc: b\n"),
    ):
        out = _output(**settings)
        out.detail("a")
        out.note("b")
        assert isinstance(out.stderr, io.StringIO)
        assert out.stderr.getvalue() == expected


@pytest.mark.parametrize(
    ("terminal", "environment", "coloured"),
    [
        (True, {"TERM": "xterm"}, True),
        (True, {"TERM": "xterm", "NO_COLOR": ""}, True),
        (True, {"TERM": "xterm", "NO_COLOR": "1"}, False),
        (True, {"TERM": "dumb"}, False),
        (True, {}, False),
        (False, {"TERM": "xterm"}, False),
    ],
)
def test_colour_only_where_it_is_wanted(*, terminal: bool, environment: dict[str, str], coloured: bool) -> None:
    """A terminal that can, and nobody who asked for none (https://no-color.org: empty is not set)."""
    stream = _Terminal() if terminal else io.StringIO()
    assert output.Output(stream, stream, environment).style.colour is coloured


def test_a_bar_waits_half_a_second() -> None:
    """Short work shows no bar, and rich is not even imported for it."""
    now = [100.0]
    before = set(sys.modules)
    out = _output()
    bar = progress.Bar(out, lambda: now[0])
    bar.start("committing vm", 100)
    now[0] += 0.4
    bar.advance(50)
    bar.close()
    assert isinstance(out.stderr, io.StringIO)
    assert out.stderr.getvalue() == ""
    assert {name for name in set(sys.modules) - before if name.startswith("rich")} == set()


def test_a_bar_says_rate_time_left_and_savings() -> None:
    """From what was reported and the clock alone, whatever the number of reports."""
    now = [100.0]
    bar = progress.Bar(_output(), lambda: now[0])
    bar.start("committing vm", 400 << 20)
    now[0] += 10
    for _ in range(100):
        bar.advance(1 << 20, new=1 << 19, stored=1 << 17)
    assert bar.facts() == "100 MiB, 10.0 MiB/s, 0:30 left, dedup 2.0:1, compression 4.0:1"
    bar.start("verifying commits", 7200, "commits")
    now[0] += 1
    bar.advance(1)
    assert bar.facts() == "1 commits, 1:59:59 left"
    bar.close()


def test_a_bar_is_not_torn_by_messages() -> None:
    """Warnings appear whole and in order, also from other threads while the bar is drawn."""
    now = [100.0]
    out = _output()
    bar = progress.Bar(out, lambda: now[0])
    bar.start("committing vm", 1000)
    now[0] += 1
    bar.advance(1)

    def work(name: str) -> None:
        for number in range(20):
            bar.advance(1)
            bar.problem(f"{name} {number}")

    threads = [threading.Thread(target=work, args=(name,)) for name in "ab"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bar.close()
    assert isinstance(out.stderr, io.StringIO)
    shown = out.stderr.getvalue()
    for name in "ab":
        places = [shown.index(f"vimgvc: warning: {name} {number}\n") for number in range(20)]
        assert places == sorted(places)


def test_later_options_win() -> None:
    """What is given after the verb goes before what was given before it; what is not given changes nothing."""
    before = options.Globals(repo="a", quiet=True, key_file="k")
    assert before.then(options.Globals(repo="b")) == options.Globals(repo="b", quiet=True, key_file="k")
    assert before.then(options.Globals()) == before


@pytest.mark.parametrize(
    "given",
    [
        options.Globals(quiet=True, verbose=True),
        options.Globals(password_file="a", password_command="b"),
        options.Globals(key_file="a", recovery_code=True),
    ],
)
def test_options_that_exclude_each_other(given: options.Globals) -> None:
    """Two sources of a secret, or quiet and verbose, are a mistake, not a matter of order."""
    with pytest.raises(errors.UsageError):
        given.check()
