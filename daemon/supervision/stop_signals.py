"""SIGTERM, SIGINT and SIGHUP: the first asks for an ordered stop, a second one ends the process at once."""

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
"""Signals so close together are one request: a terminal and a supervisor both pass on the same Ctrl-C."""


class StopSignals:
    """A context in which these signals are ours. Works before, while and after a loop runs, also while it hangs."""

    def __init__(self, end: Callable[[int], Any] = os._exit, clock: Callable[[], float] = time.monotonic) -> None:
        self.name: str | None = None
        """Of the signal that asked to stop, if one did."""
        self._end, self._clock = end, clock
        self._asked_at = 0.0
        self._loop: asyncio.AbstractEventLoop | None = None
        self._event = asyncio.Event()
        self._before: dict[signal.Signals, Any] = {}

    def __enter__(self) -> Self:
        for number in SIGNALS:
            if number == signal.SIGHUP and signal.getsignal(number) == signal.SIG_IGN:
                continue  # nohup: the process is meant to outlive its terminal
            self._before[number] = signal.signal(number, self.receive)
        return self

    def __exit__(self, *_: object) -> None:
        for number, disposition in self._before.items():
            signal.signal(number, disposition)

    async def wait(self) -> str:
        """Name of the signal that asks to stop, once one does."""
        self._loop = asyncio.get_running_loop()
        if self.name is None:
            await self._event.wait()
        assert self.name is not None
        return self.name

    def receive(self, number: int, _frame: FrameType | None = None) -> None:
        """A signal has arrived."""
        now = self._clock()
        if self.name is None:
            self.name, self._asked_at = signal.Signals(number).name, now
            if self._loop:
                self._loop.call_soon_threadsafe(self._event.set)
        elif now - self._asked_at >= SAME_REQUEST_S:
            self._end(128 + number)


@contextmanager
def terminable() -> Iterator[None]:
    """A block that SIGTERM leaves as Ctrl-C does, so that what was started is stopped on the way out."""

    def interrupt(_number: int, _frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
