"""Ending tasks for good: a cancellation can get lost."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from typing import Any

CANCEL_AGAIN_S = 0.2


async def cancelled(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancels tasks until all have ended; what they raise is nobody's concern any more.

    `asyncio.wait_for`, which libraries use, swallows a cancellation that comes as its inner task ends (Python 3.11):
    who waited in a loop goes on.
    """
    left = set(tasks)
    while left:
        for task in left:
            task.cancel()
        done, left = await asyncio.wait(left, timeout=CANCEL_AGAIN_S)
        for task in done:
            if not task.cancelled():
                task.exception()  # or asyncio complains that nobody has looked
