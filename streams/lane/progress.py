"""Progress of a lane: counted for the stall detector, and awaited by those whose next step depends on it."""

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
        """Has `listener` called whenever a partition advances; with None for any or all of them."""
        self._listeners.append(listener)

    def advance(self, partition: Partition | None = None) -> None:
        """Something was fetched, acknowledged, committed, assigned or released."""
        self.count += 1
        for listener in self._listeners:
            listener(partition)
        self._changed.set()

    def recheck(self) -> None:
        """Has conditions looked at again, without counting as progress."""
        self._changed.set()

    async def until(self, condition: Callable[[], bool]) -> None:
        """Waits until `condition` holds; it is looked at after every change."""
        while not condition():
            self._changed.clear()
            await self._changed.wait()
