"""Tasks end even if their first cancellation is lost."""

from __future__ import annotations

import asyncio
import contextlib

from inferd.streams.tasks.cancel_all import cancelled


async def test_a_task_that_swallows_a_cancellation_is_cancelled_again() -> None:
    lost = 0

    async def stubborn() -> None:
        nonlocal lost
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                lost += 1
                if lost > 2:
                    raise

    async def failing() -> None:
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.sleep(60)
        raise RuntimeError("nobody's concern")

    tasks = [asyncio.create_task(stubborn()), asyncio.create_task(failing())]
    await asyncio.sleep(0)
    async with asyncio.timeout(5):
        await cancelled(tasks)
    assert lost == 3
    assert all(task.done() for task in tasks)


async def test_without_tasks_it_returns_at_once() -> None:
    await cancelled([])
