"""Parallel work whose results are wanted in order."""

from __future__ import annotations

import collections
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from concurrent import futures

T = TypeVar("T")
R = TypeVar("R")


def each(items: Iterable[T], work: Callable[[T], R], parallel: int) -> Iterator[R]:
    """As `ordered`, without threads where only one call at a time is worth it (`Capabilities.parallel`)."""
    return ordered(iter(items), work, parallel) if parallel > 1 else map(work, items)


def ordered(items: Iterator[T], work: Callable[[T], R], threads: int) -> Generator[R, None, None]:
    """`work(item)` of every item, in the order of `items`, done by `threads` threads.

    `items` is advanced in the caller's thread, at most 2·`threads` items ahead of what was yielded.
    The first failure in the order of the items is raised where its result would be; nothing new is
    begun then, nor after the iterator is closed, and every thread has ended when either returns.
    """
    from concurrent import futures  # which loads the logging module

    ahead = 2 * max(1, threads)
    waiting: collections.deque[futures.Future[R]] = collections.deque()
    with futures.ThreadPoolExecutor(max(1, threads), thread_name_prefix="vimgvc") as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, item))
                if len(waiting) >= ahead:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
