"""A thread of low priority for calls that may hang, which nobody waits for when the process ends."""

from __future__ import annotations

import asyncio
import ctypes
import math
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from queue import SimpleQueue
from typing import Any, Final, TypeVar

T = TypeVar("T")

NICE_MAX: Final = 19
NICE: Final = 5
"""How much lower than that of the others the priority is. Not more: while the thread holds the interpreter lock, the
others wait for it, however busy the machine is."""
SWITCH_INTERVAL_S: Final = 0.0005
"""How long the thread may hold the interpreter lock while others wait for it; Python's default is ten times as long."""
POLL_S: Final = 0.05
"""How often the CPU time of a call is looked at."""
ABANDONED_MAX: Final = 3
"""Threads that hang at the same time; after that nothing is called any more."""


class LowThread:
    """Runs one call after the other. A call that takes too long is abandoned together with its thread."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._thread: _Thread | None = None
        self._abandoned: list[_Thread] = []

    @property
    def usable(self) -> bool:
        """Whether calls are possible: fewer than `ABANDONED_MAX` threads hang."""
        return self.hanging < ABANDONED_MAX

    @property
    def hanging(self) -> int:
        """How many abandoned threads have not ended."""
        self._abandoned = [thread for thread in self._abandoned if thread.is_alive()]
        return len(self._abandoned)

    async def call(self, function: Callable[[], T], timeout_s: float, cpu_s: float = math.inf) -> T:
        """The result of `function`; raises what it raises, and `TimeoutError` if it takes more than `timeout_s`, or
        more than `cpu_s` of CPU time of its thread (on Linux alone).

        The thread of a call that took too long, or whose caller was cancelled, is not used again. It is ended if it
        runs Python code; a library that hangs keeps it.
        """
        if self._thread is None:
            self._thread = _Thread(self._name)
            self._thread.start()
        thread, result = self._thread, asyncio.get_running_loop().create_future()
        thread.calls.put(_Call(function, asyncio.get_running_loop(), result))
        usual_s = sys.getswitchinterval()
        sys.setswitchinterval(min(usual_s, SWITCH_INTERVAL_S))
        try:
            await _end(result, thread, timeout_s, cpu_s)
            return result.result()  # type: ignore[no-any-return]
        finally:
            sys.setswitchinterval(usual_s)
            if not result.done():
                result.cancel()
                self._abandoned.append(thread)
                self._thread = None
                thread.abandon()
            del result  # an exception in it refers to this frame, and keeps what the call used

    def close(self) -> None:
        """Ends the thread after its current call, without waiting for it."""
        if self._thread is not None:
            self._thread.calls.put(None)
            self._thread = None


async def _end(result: asyncio.Future[Any], thread: _Thread, timeout_s: float, cpu_s: float) -> None:
    """Waits until there is a result; `TimeoutError` if that takes too long."""
    clock = asyncio.get_running_loop().time
    ends, used_s = clock() + timeout_s, thread.cpu_s()
    while not result.done():
        left_s = ends - clock()
        if left_s <= 0:
            raise TimeoutError(f"it took more than {timeout_s:g} s")
        if thread.cpu_s() - used_s > cpu_s:
            raise TimeoutError(f"it took more than {cpu_s:.2g} s of CPU time")
        await asyncio.wait([result], timeout=min(left_s, POLL_S))


@dataclass(slots=True)
class _Call:
    function: Callable[[], Any]
    loop: asyncio.AbstractEventLoop
    result: asyncio.Future[Any] | None

    def run(self) -> None:
        value, error = _outcome(self.function)
        assert self.result is not None
        _report(self.loop, self.result, value, error)
        # The traceback refers to this frame: an exception that stays here would be kept in a circle.
        self.result, value, error = None, None, None


def _report(loop: asyncio.AbstractEventLoop, result: asyncio.Future[Any], value: Any, error: Exception | None) -> None:
    def report() -> None:
        if result.done():
            return
        if error is None:
            result.set_result(value)
        else:
            result.set_exception(error)

    with suppress(RuntimeError):  # the event loop is closed
        loop.call_soon_threadsafe(report)


class _AbandonedError(BaseException):
    """Ends an abandoned thread."""


def _outcome(function: Callable[[], Any]) -> tuple[Any, Exception | None]:
    """What `function` returns or raises."""
    try:
        return function(), None
    except Exception as error:  # noqa: BLE001  # it belongs to the caller
        return None, error


class _Thread(threading.Thread):
    def __init__(self, name: str) -> None:
        super().__init__(name=name, daemon=True)
        self.calls: SimpleQueue[_Call | None] = SimpleQueue()
        self._clock: int | None = None

    def cpu_s(self) -> float:
        """Seconds of CPU time that the thread has taken; 0 where that cannot be told."""
        if self._clock is None:
            return 0.0
        with suppress(OSError):  # it has ended
            return time.clock_gettime(self._clock)
        return 0.0

    def run(self) -> None:
        _lower_priority()
        if sys.platform == "linux":
            self._clock = time.pthread_getcpuclockid(threading.get_ident())
        with suppress(_AbandonedError):
            while (call := self.calls.get()) is not None:
                call.run()
                del call  # nothing of it is kept until the next one

    def abandon(self) -> None:
        """Ends the thread: at once in Python code, otherwise when its call returns."""
        self.calls.put(None)
        if self.ident is not None:
            ctypes.pythonapi.PyThreadState_SetAsyncExc(ctypes.c_ulong(self.ident), ctypes.py_object(_AbandonedError))


def _lower_priority() -> None:
    """Lowers the priority of this thread; on Linux alone, threads have one of their own."""
    if sys.platform == "linux":
        with suppress(OSError):
            this = threading.get_native_id()
            os.setpriority(os.PRIO_PROCESS, this, min(NICE_MAX, os.getpriority(os.PRIO_PROCESS, this) + NICE))
