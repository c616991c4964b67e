"""A disk as rows of cells, those that changed in other letters and colours."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from vimgvc.cli import text

if TYPE_CHECKING:
    from vimgvc.commands import diff, heat

_ROWS = 16
#: Nothing, a little, up to a half, more, all of it.
_SHADES, _PLAIN = "·░▒▓█", ".-+x#"
#: Beside the cells: the offset before them, a little room behind them for names.
_BESIDE = 16


def cells(width: int) -> tuple[int, int]:
    """(cells in a row, cells in all) on a terminal of `width` columns."""
    columns = 128 if width >= 128 + _BESIDE else 64 if width >= 64 + _BESIDE else 32
    return columns, columns * _ROWS


def lines(grid: heat.Grid, parts: Sequence[diff.Part], columns: int, style: text.Style, encoding: str) -> Iterator[str]:
    """`columns` cells a row, and at its end the partitions that begin in it."""
    shades = _SHADES if _has(encoding) else _PLAIN
    levels = [_level(share) for share in grid.shares.tolist()]
    yield (
        f"  a cell is {text.size(grid.cell)}: {shades[0]} unchanged, {shades[1]} up to 25 % changed, "
        f"{shades[2]} 50 %, {shades[3]} less than all, {shades[4]} all"
    )
    for at in range(0, len(levels), columns):
        row = levels[at : at + columns]
        start, end = at * grid.cell, (at + len(row)) * grid.cell
        names = " ".join(part.name for part in parts if start <= part.start < end)
        drawn = "".join(
            _coloured(style, level, shades[level] * len(list(run))) for level, run in itertools.groupby(row)
        )
        yield f"  {text.size(start):>9} {drawn}{' ' * (columns - len(row)) if names else ''} {names}".rstrip()


def _level(share: float) -> int:
    return 0 if share <= 0 else 1 if share <= 0.25 else 2 if share <= 0.5 else 3 if share < 1 else 4


def _coloured(style: text.Style, level: int, drawn: str) -> str:
    return (style.faint, style.id, style.id, style.bad, style.bad)[level](drawn)


def _has(encoding: str) -> bool:
    try:
        _SHADES.encode(encoding)
    except (UnicodeEncodeError, LookupError):
        return False
    return True
