"""Reads an iterator in a thread, so that blocking reads of a file or a terminal do not block the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncIterator, Iterator
from typing import Generic, TypeVar

T = TypeVar("T")

AHEAD_ITEMS = 4_096


async def read_ahead(items: Iterator[T], ahead: int = AHEAD_ITEMS) -> AsyncIterator[T]:
    """Yields the items in order, as soon as they are read; at most `ahead` items are buffered.

    An error of `items` is raised after the items before it.
    """
    reader = _Reader(items, ahead)
    # A daemon thread: a read from a terminal cannot be interrupted.
    threading.Thread(target=reader.read, name="read-ahead", daemon=True).start()
    while True:
        await reader.wait()
        while reader.items:
            item = reader.take()
            if isinstance(item, _End):
                if item.error is not None:
                    raise item.error
                return
            yield item


class _End:
    """The end of the items, after `error` if it is not None."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Reader(Generic[T]):
    """A bounded queue from the reading thread to the event loop."""

    def __init__(self, source: Iterator[T], ahead: int) -> None:
        self.items: deque[T | _End] = deque()
        self._source = source
        self._loop = asyncio.get_running_loop()
        self._arrived = asyncio.Event()
        self._free = threading.Semaphore(ahead)

    def read(self) -> None:
        """Reads all items; runs in the thread."""
        try:
            for item in self._source:
                self._free.acquire()
                self._put(item)
        except BaseException as error:  # noqa: BLE001  (read_ahead raises it)
            self._put(_End(error))
        else:
            self._put(_End(None))

    async def wait(self) -> None:
        """Waits until there may be items."""
        await self._arrived.wait()
        # Cleared before the items are taken, so that an item added from now on sets it again.
        self._arrived.clear()

    def take(self) -> T | _End:
        """Removes and returns the next item."""
        item = self.items.popleft()
        self._free.release()
        return item

    def _put(self, item: T | _End) -> None:
        self.items.append(item)
        if not self._arrived.is_set() and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._arrived.set)
