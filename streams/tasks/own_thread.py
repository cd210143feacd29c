"""A thread for calls that may take any time, so that they delay neither the event loop nor other calls."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class OwnThread:
    """One thread, which is started at the first call."""

    def __init__(self, name: str) -> None:
        self._executor = ThreadPoolExecutor(1, thread_name_prefix=name)

    async def call(self, function: Callable[[], T]) -> T:
        """The result of `function`, called in the thread after earlier calls; raises what it raises."""
        return await asyncio.get_running_loop().run_in_executor(self._executor, function)
