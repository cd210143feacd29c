"""Progress of a lane: counted for the stall detector, and awaited by coroutines."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from inferd.streams.lane.partition import Partition


class Progress:
    """Counts changes of a lane's state, and wakes the coroutines that wait for one."""

    def __init__(self) -> None:
        self.count = 0
        self._listeners: list[Callable[[Partition | None], None]] = []
        self._changed = asyncio.Event()

    def listen(self, listener: Callable[[Partition | None], None]) -> None:
        """Calls `listener` whenever a partition advances; with None if it may be any of them."""
        self._listeners.append(listener)

    def advance(self, partition: Partition | None = None) -> None:
        """Something was fetched, acknowledged, committed, assigned or released."""
        self.count += 1
        for listener in self._listeners:
            listener(partition)
        self._changed.set()

    def recheck(self) -> None:
        """Wakes the waiting coroutines without counting progress."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; it is checked after every change."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()
