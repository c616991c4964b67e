"""What an SFTP session leaves for later."""

from __future__ import annotations

import asyncio
import gc

from vimgvc.backends import sftp_session


def test_what_is_ended_before_it_began_is_put_away() -> None:
    """A connection that ends at once leaves no coroutine that nobody ever waited for, which Python would tell of."""
    done = []

    async def work() -> None:
        done.append(1)

    async def end_at_once() -> None:
        later = sftp_session.Later()
        later.add(work())
        (task,) = later.tasks
        task.cancel()
        await asyncio.wait({task})
        assert not later.tasks

    asyncio.run(end_at_once())
    gc.collect()
    assert done == []
