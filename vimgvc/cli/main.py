"""The program: one place where every failure becomes two lines and an exit code.

    vimgvc: error: what went wrong
    vimgvc: hint: what to do next

Lower case, no full stop, no traceback. The exit code is the error class's (`vimgvc.errors`).
"""

from __future__ import annotations

import os
import pathlib
import sys

from vimgvc import errors

#: What a shell reports for a program that died of SIGPIPE, which is what a closed pipe means here.
CLOSED_PIPE = 141
_TRACEBACK = "VIMGVC_TRACEBACK"
#: How many new objects the search for cycles waits for; with Python's own numbers it takes a sixth of the start.
_COLLECTING = (20_000, 50, 100)

#: By class, the first that fits.
HINTS: dict[type[errors.VimgvcError], str] = {
    errors.UsageError: "see 'vimgvc --help'",
    errors.NotFound: "check how it is spelled",
    errors.NoRepository: "make one with 'vimgvc init', or name one with --repo DIR",
    errors.Busy: "run the same command again when the other one has ended",
    errors.NoKey: "check what you gave; 'vimgvc key list' shows what opens the repository",
    errors.UnsafeImage: "do not open this image with other programs either; 'commit --as-raw' keeps the file as it is",
    errors.NoSpace: "free some space and run the same command again",
    errors.BackendError: "check the path, then run the same command again",
    errors.VimgvcError: "run the same command with --verbose to see more",
}


def main() -> int:
    """The entry point of the program `vimgvc`; returns its exit code."""
    import gc

    from vimgvc.cli import signals

    gc.set_threshold(*_COLLECTING)
    # numpy's library for matrices, which nothing here uses, would start a thread for each core that waits busily
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    _hold_standard_descriptors()
    _forbid_core_dumps()
    signals.install()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    code = run(sys.argv[1:])
    _drop_what_cannot_be_written()
    gc.freeze()  # else the interpreter looks through everything for cycles, several times, before it ends
    return code


def run(arguments: list[str]) -> int:
    """Do what `arguments` say and return the exit code; nothing but a second signal ends the process."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        return CLOSED_PIPE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001 - the one place where failures end
        return _report(error, arguments)
    return code


def _dispatch(arguments: list[str]) -> int:
    if arguments == ["--version"]:  # without a parser: 0.05 s less
        import vimgvc

        print(f"vimgvc {vimgvc.__version__}")
        return 0
    from vimgvc.cli import app

    return app.invoke(arguments)


def _report(error: BaseException, arguments: list[str]) -> int:
    from vimgvc.cli import output

    known = as_vimgvc_error(error)
    known.hint = known.hint or _hint(known)
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    try:
        if os.environ.get(_TRACEBACK):
            _print_traceback(error)
        output.Output(sys.stdout, sys.stderr, os.environ, json="--json" in options).failure(known)
        sys.stderr.flush()
    except OSError:
        pass  # nobody can be told; the exit code tells
    return known.exit_code


def as_vimgvc_error(error: BaseException) -> errors.VimgvcError:
    """Any failure as one of the error tree."""
    if isinstance(error, errors.VimgvcError):
        return error
    if isinstance(error, KeyboardInterrupt):
        return errors.Interrupted("interrupted", hint="run the same command again to continue")
    if isinstance(error, MemoryError):
        return errors.VimgvcError("out of memory", hint="close other programs, or use fewer --threads")
    if isinstance(error, OSError):
        return errors.from_os_error(error, str(error.filename or "operating system"))
    # Only the kind and the place: the text of an unexpected exception may hold anything, even a secret.
    return errors.VimgvcError(
        f"internal error: {type(error).__name__}{_place(error)}",
        hint=f"this is a defect of vimgvc; run the same command with {_TRACEBACK}=1 and report what it prints",
    )


def _hint(error: errors.VimgvcError) -> str:
    """What to do about an error that does not say so itself."""
    return next(hint for kind, hint in HINTS.items() if isinstance(error, kind))


def _place(error: BaseException) -> str:
    """The last line of ours that the error came through."""
    place, at = "", error.__traceback__
    while at is not None:
        file = pathlib.PurePath(at.tb_frame.f_code.co_filename)
        if "vimgvc" in file.parts:
            place = f" at {file.parent.name}/{file.name}:{at.tb_lineno}"
        at = at.tb_next
    return place


def _print_traceback(error: BaseException) -> None:
    import traceback

    traceback.print_exception(error, file=sys.stderr)


def _hold_standard_descriptors() -> None:
    """Open what is closed of 0, 1 and 2: else a repository file could get the number and the words meant for it."""
    while (descriptor := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(descriptor, True)
    os.close(descriptor)
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: PTH123, SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: PTH123, SIM115


def _drop_what_cannot_be_written() -> None:
    """Whoever waits for the output knows by now; the interpreter would try once more at its end, and complain."""
    for descriptor, stream in ((1, sys.stdout), (2, sys.stderr)):
        try:
            stream.flush()
        except OSError:
            os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)


def _forbid_core_dumps() -> None:
    """A core dump would hold keys (C17)."""
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, resource.getrlimit(resource.RLIMIT_CORE)[1]))
