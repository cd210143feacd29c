"""Notices an event loop that stood still for so long that the group has given its partitions to others.

A worker that wakes from that is a zombie and must leave at once. Three look out for it: a timer of the loop, which
also sees that the whole process was stopped for a while; a thread, which sees a loop that hangs; and faulthandler's
own timer, which needs no interpreter lock, for code that hangs while it holds that.
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
    """Calls `on_zombie` with the seconds that the loop stood still once they exceed `timeout_s`; `on_lag` at each beat.

    `on_zombie` may be called from the thread, and is expected not to return.
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
        """Measures the lag of the running loop from now on."""
        self._last_beat = self._clock()
        self._schedule()

    def arm(self) -> None:
        """Also ends a zombie from now on: we are about to join the group. More than once is the same as once."""
        if not self._armed:
            self._armed = True
            self._last_beat = self._clock()
            self._thread.start()

    def stop(self) -> None:
        """Looks away."""
        self._ended.set()
        if self._timer:
            self._timer.cancel()
        if self._armed:
            faulthandler.cancel_dump_traceback_later()

    def beat(self) -> None:
        """The loop turns: notes it, and how late it is."""
        now = self._clock()
        still_s = now - self._last_beat
        if self._armed and still_s > self._timeout_s:
            self._on_zombie(still_s)
        self._last_beat = now
        self._on_lag(max(still_s - self._interval_s, 0.0))
        self._schedule()

    def _schedule(self) -> None:
        if self._ended.is_set():
            return
        self._timer = asyncio.get_running_loop().call_later(self._interval_s, self.beat)
        if self._armed:
            faulthandler.dump_traceback_later(self._timeout_s * LAST_RESORT_FACTOR, exit=True, file=STDERR_FD)

    def _watch(self) -> None:
        while not self._ended.wait(self._interval_s):
            still_s = self._clock() - self._last_beat
            if still_s > self._timeout_s:
                self._on_zombie(still_s)
                return
