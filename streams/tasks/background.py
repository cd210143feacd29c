"""Tasks that run beside their owner until it closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from inferd.streams.tasks.callbacks import Crashed, when_done
from inferd.streams.tasks.cancel_all import cancelled


class BackgroundTasks:
    """Starts tasks; an exception of one of them is passed to `crashed`."""

    def __init__(self, crashed: Crashed) -> None:
        self.crashed = crashed
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        when_done(task, self._ended, self.crashed)
        return task

    async def close(self) -> None:
        """Cancels all tasks, and waits for their end."""
        await cancelled(self._running)

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.crashed(error)
