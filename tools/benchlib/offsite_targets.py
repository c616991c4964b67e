"""What copies to other places are to reach."""

from __future__ import annotations

from collections.abc import Callable

from benchlib.results import Results, Target

OWN = "vimgvc"
NOTES = (
    "S3: Ceph's gateway with everything in memory; SFTP: OpenSSH. Both on the same cores as what is measured.",
    "copy: three versions of the Debian disk to an empty place, by vimgvc push, restic copy, rclone sync.",
    "rclone copies the repository of vimgvc, with its defaults. borg copies nothing: it records the three disks there.",
    "ms: round trip of a line that a program makes longer; 0 ms is the same program.",
)


def _ratio(above: tuple[str, str], below: tuple[str, str]) -> Callable[[Results], float | None]:
    """Of two medians of (measure, tool)."""

    def value(results: Results) -> float | None:
        over, under = results.median(*above), results.median(*below)
        return over / under if over and under else None

    return value


def _number(key: str) -> Callable[[Results], float | None]:
    return lambda results: results.numbers.get(key)


def _direct(results: Results) -> float | None:
    """Speed of all three commits to S3 by those to this machine."""
    measures = [name for name in results.measures() if name.startswith("commit ")]
    near = [results.median(name, OWN) for name in measures]
    far = [results.median(name, "vimgvc to S3") for name in measures]
    if not measures or None in near + far:
        return None
    return sum(one or 0 for one in near) / sum(one or 0 for one in far)


def _copies(place: str) -> list[Target]:
    measure = f"copy to {place}"
    own = (measure, OWN)
    found = [
        Target(f"{measure}: faster than restic copy", _ratio((measure, "restic"), own), 5, at_least=True, unit="x"),
        Target(f"{measure}: speed of rclone", _ratio((measure, "rclone"), own), 0.9, at_least=True, unit="x"),
    ]
    if place == "SFTP":
        borg = _ratio((measure, "borg"), own)
        found.append(Target(f"{measure}: faster than borg", borg, 1, at_least=True, unit="x"))
    return found


def _line(place: str) -> list[Target]:
    long = _ratio((f"to {place}, 0 ms", OWN), (f"to {place}, 50 ms", OWN))
    return [
        Target(f"1 % more to {place}: bytes by those stored", _number(f"wire {place}"), 1.05, at_least=False, unit="x"),
        Target(f"to {place} with 50 ms: speed of 0 ms", long, 0.7, at_least=True, unit="x"),
    ]


TARGETS = (
    *_copies("S3"),
    *_copies("SFTP"),
    *_line("S3"),
    *_line("SFTP"),
    Target("1 % more to S3: requests beside packs", _number("requests beside packs"), 12, at_least=False, unit=""),
    Target("commit to S3: speed of one to this machine", _direct, 0.8, at_least=True, unit="x"),
    Target("push, clone, pull of 1 TiB: memory", _number("tebi MiB"), 300, at_least=False, unit="MiB"),
    Target("8 writers: commits that do not restore", _number("fleet lost"), 0, at_least=False, unit=""),
    Target("8 writers: problems found", _number("fleet problems"), 0, at_least=False, unit=""),
)
