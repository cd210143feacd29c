"""SIGTERM, SIGINT and SIGHUP: the first requests a graceful stop, a second one ends the process at once."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn, Self

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
SAME_REQUEST_S = 0.5
"""Signals within that time count as one: a terminal and a supervisor may both forward the same Ctrl-C."""


class StopSignals:
    """Context manager that handles these signals, before, during and after the event loop, even if the loop hangs."""

    def __init__(self, end: Callable[[int], Any] = os._exit, clock: Callable[[], float] = time.monotonic) -> None:
        self.name: str | None = None
        """Name of the signal that requested the stop; None if none did."""
        self._end, self._clock = end, clock
        self._asked_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: the process must outlive its terminal
            self._before[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, disposition in self._before.items():
            signal.signal(number, disposition)

    async def wait(self) -> str:
        """Waits for a signal; its name."""
        self._loop = asyncio.get_running_loop()
        if self.name is None:
            await self._event.wait()
        assert self.name is not None
        return self.name

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """The signal handler."""
        now = self._clock()
        if self.name is None:
            self.name, self._asked_at = signal.Signals(number).name, now
            if self._loop:
                self._loop.call_soon_threadsafe(self._event.set)
        elif now - self._asked_at >= SAME_REQUEST_S:
            self._end(128 + number)


@contextmanager
def terminable() -> Iterator[None]:
    """Context manager in which SIGTERM raises KeyboardInterrupt, so that enclosing blocks clean up."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
