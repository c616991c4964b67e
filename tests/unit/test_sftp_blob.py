"""What is done at once on an SFTP channel."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Coroutine
from typing import Any

import pytest

from vimgvc.backends import sftp_blob


@pytest.mark.parametrize("failing", range(6))
def test_a_failure_leaves_nothing_that_never_began(failing: int) -> None:
    """The first failure ends what is under way; of what was made nothing is dropped without having been run."""
    made: list[Coroutine[Any, Any, None]] = []

    async def work(number: int) -> None:
        await asyncio.sleep(0)
        if number == failing:
            raise KeyError(number)

    def works() -> Any:
        for number in range(8):
            made.append(work(number))
            yield made[-1]

    async def run() -> None:
        await sftp_blob.all_of(works(), 2)

    with pytest.raises(KeyError):
        asyncio.run(run())
    assert failing < len(made) <= failing + 3
    assert all(inspect.getcoroutinestate(one) == inspect.CORO_CLOSED for one in made)
