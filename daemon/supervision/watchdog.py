"""Detects an event loop that was blocked for so long that its partitions were assigned to other workers.

Such a worker is a zombie and must exit at once. Three timers detect it: a timer of the loop, which also notices that
the whole process was suspended; a thread, which notices a loop that hangs; and faulthandler's timer, which needs no
interpreter lock, for code that hangs while it holds the lock.
"""

from __future__ import annotations

import asyncio
import faulthandler
import threading
import time
from collections.abc import Callable

BEATS_PER_TIMEOUT = 10
BEAT_S_MAX = 1.0
LAST_RESORT_FACTOR = 2.0
STDERR_FD = 2


class Watchdog:
    """Calls `on_zombie` once the loop was blocked for more than `timeout_s`, and `on_lag` at each beat (seconds).

    `on_zombie` may be called from a thread, and is expected not to return.
    """

    def __init__(
        self,
        timeout_s: float,
        on_zombie: Callable[[float], None],
        on_lag: Callable[[float], None] = lambda _seconds: None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._timeout_s = timeout_s
        self._interval_s = min(timeout_s / BEATS_PER_TIMEOUT, BEAT_S_MAX)
        self._on_zombie, self._on_lag, self._clock = on_zombie, on_lag, clock
        self._last_beat = clock()
        self._armed = False
        self._ended = threading.Event()
        self._timer: asyncio.TimerHandle | None = None
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)

    def start(self) -> None:
        """Starts to measure the lag of the running loop."""
        self._last_beat = self._clock()
        self._schedule()

    def arm(self) -> None:
        """Starts to detect zombies, before the worker joins the group. Idempotent."""
        if not self._armed:
            self._armed = True
            self._last_beat = self._clock()
            self._thread.start()

    def stop(self) -> None:
        """Stops measuring and detecting."""
        self._ended.set()
        if self._timer:
            self._timer.cancel()
        if self._armed:
            faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """Records that the loop runs, and by how much this beat is late."""
        now = self._clock()
        blocked_s = now - self._last_beat
        if self._armed and blocked_s > self._timeout_s:
            self._on_zombie(blocked_s)
        self._last_beat = now
        self._on_lag(max(blocked_s - self._interval_s, 0.0))
        self._schedule()

    def _schedule(self) -> None:
        if self._ended.is_set():
            return
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self.beat)
        if self._armed:
            faulthandler.dump_traceback_later(self._timeout_s * LAST_RESORT_FACTOR, exit=True, file=STDERR_FD)

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            blocked_s = self._clock() - self._last_beat
            if blocked_s > self._timeout_s:
                self._on_zombie(blocked_s)
                return
