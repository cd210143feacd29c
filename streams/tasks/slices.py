"""Long work on the event loop in slices, so that heartbeats and HTTP requests wait for one slice at most."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable
from itertools import islice
from typing import Final, TypeVar

T = TypeVar("T")

SLICE_S: Final = 0.005
"""How long the event loop is held at a time."""
PART: Final = 200
"""Items after which the time is looked at."""


class Slices:
    """Shares the event loop among long pieces of work: one of them runs at a time, so slices do not add up."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        """`clock`: seconds with any origin."""
        self._turn = asyncio.Lock()
        self._clock = clock

    async def run(self, items: Iterable[T], use: Callable[[list[T]], object]) -> None:
        """Passes all items to `use`, in lists of at most `PART`. The event loop runs when `SLICE_S` are over."""
        async with self._turn:
            remaining, started = iter(items), self._clock()
            while part := list(islice(remaining, PART)):
                use(part)
                if self._clock() - started >= SLICE_S:
                    await asyncio.sleep(0)
                    started = self._clock()
