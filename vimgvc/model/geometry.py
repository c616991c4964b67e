"""Blocks, windows and tree levels (specs/formats.md §6, §7)."""

from __future__ import annotations

BLOCK = 4096
WINDOW = 4 << 20
BLOCKS_PER_WINDOW = WINDOW // BLOCK
FANOUT = 64
AVERAGES = (16384, 32768, 65536)
ID_SIZE = 32
ZERO_ID = bytes(ID_SIZE)


def windows(size: int) -> int:
    """Number of windows of a disk of `size` bytes."""
    return -(-size // WINDOW)


def window_blocks(size: int, window: int) -> int:
    """Number of blocks of one window; only the last may have fewer than 1024."""
    return -(-min(WINDOW, size - window * WINDOW) // BLOCK)


def top_level(size: int) -> int:
    """Level of the top node: the least L with 64^L windows or more."""
    level, reach = 0, 1
    while reach < windows(size):
        level, reach = level + 1, reach * FANOUT
    return level


def span(level: int) -> int:
    """Windows below a node of `level`."""
    span_windows: int = FANOUT**level
    return span_windows
