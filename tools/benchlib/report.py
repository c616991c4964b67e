"""The results as text: a table of medians, a table of stored bytes, and the targets."""

from __future__ import annotations

from collections.abc import Sequence

from benchlib.results import MIB, TARGETS, Results, Target


def text(results: Results, notes: Sequence[str], targets: Sequence[Target] = TARGETS) -> str:
    parts = [_seconds(results), _stored(results), _targets(results, targets), "\n".join(notes)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Markdown that also reads well as it is."""
    widths = [max(len(row[column]) for row in (head, *rows)) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        first, *others = [
            cell.ljust(width) if n == 0 else cell.rjust(width)
            for n, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return "| " + " | ".join([first, *others]) + " |"

    rule = (
        "|" + "|".join("-" * (width + 2) if n == 0 else "-" * (width + 1) + ":" for n, width in enumerate(widths)) + "|"
    )
    return "\n".join([line(head), rule, *(line(row) for row in rows)])


def _seconds(results: Results) -> str:
    tools = results.tools()
    if not tools:
        return ""
    rows = []
    for measure in results.measures():
        row = [measure]
        for tool in tools:
            values = results.seconds(measure, tool)
            middle = results.median(measure, tool)
            once = "*" if len(values) == 1 else ""
            row.append("" if middle is None else f"{middle:.2f}{once}")
        rows.append(row)
    rows.append(["peak memory, MiB", *(f"{(results.peak(tool) or 0) >> 20}" for tool in tools)])
    return _table(["seconds, median (* one run)", *tools], rows)


def _stored(results: Results) -> str:
    if not results.stored:
        return ""
    tools = [tool for tool in results.tools() if any(tool in stored for stored in results.stored.values())]
    rows = [
        [measure, *(f"{stored[tool] / MIB:.1f}" if tool in stored else "" for tool in tools)]
        for measure, stored in results.stored.items()
    ]
    return _table(["stored, MiB", *tools], rows)


def _targets(results: Results, targets: Sequence[Target]) -> str:
    rows = []
    for target in targets:
        value = target.value(results)
        if value is None:
            continue
        sign = ">=" if target.at_least else "<="
        verdict = "yes" if target.met(value) else "NO"
        rows.append(
            [target.text, f"{sign} {_number(target.bound)} {target.unit}", f"{_number(value)} {target.unit}", verdict]
        )
    return _table(["target", "promised", "measured", "met"], rows) if rows else ""


def _number(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.2f}".rstrip("0").rstrip(".")
