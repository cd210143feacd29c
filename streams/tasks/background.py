"""Tasks that run beside their owner until it closes them."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

from inferd.streams.tasks.callbacks import OnCrash, when_done
from inferd.streams.tasks.cancel_all import cancelled


class BackgroundTasks:
    """Starts tasks; an exception of one of them is passed to `on_crash`."""

    def __init__(self, on_crash: OnCrash) -> None:
        self.on_crash = on_crash
        self._running: set[asyncio.Task[None]] = set()

    def start(self, coroutine: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(coroutine)
        self._running.add(task)
        when_done(task, self._ended, self.on_crash)
        return task

    async def close(self) -> None:
        """Cancels all tasks, and waits for their end."""
        await cancelled(self._running)

    def _ended(self, task: asyncio.Future[None]) -> None:
        self._running.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            self.on_crash(error)
