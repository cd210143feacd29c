"""Cancels tasks until they have ended: a single cancellation can get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Coroutine, Iterable
from typing import Any, cast

CANCEL_AGAIN_S = 0.2
_finishing: set[asyncio.Task[Any]] = set()
"""References to tasks whose caller may have ended: asyncio itself keeps none."""


async def finished(coroutine: Coroutine[Any, Any, None]) -> None:
    """Runs a coroutine to its end, even if the caller is cancelled meanwhile."""
    task = asyncio.get_running_loop().create_task(_finishing_with(coroutine))
    _finishing.add(task)
    await asyncio.shield(task)


async def _finishing_with(coroutine: Coroutine[Any, Any, None]) -> None:
    try:
        await coroutine
    finally:
        _finishing.discard(cast(asyncio.Task[Any], asyncio.current_task()))


async def all_of(coroutines: Iterable[Coroutine[Any, Any, None]]) -> None:
    """Runs all concurrently to their ends, then raises the exception of the first that failed."""
    results = await asyncio.gather(*coroutines, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result


async def cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks until all have ended; their exceptions are discarded.

    `asyncio.wait_for`, which libraries use, swallows a cancellation that comes as its inner task ends (Python 3.11):
    a task that waits in a loop would continue.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # otherwise asyncio logs that the exception was never retrieved
