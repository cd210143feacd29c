"""Tells a waiting worker from a stalled one."""

from __future__ import annotations

import time
from collections.abc import Callable

from inferd.streams.telemetry.snapshot import Phase

RESTING: frozenset[Phase] = frozenset({"draining", "stopped"})
"""Phases that have deadlines of their own."""


class StallDetector:
    """Detects a rebalance, recovery or running lane that makes no progress for `timeout_s` seconds."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._progress = -1
        self._moved_at = clock()

    def look(self, phase: Phase, progress: int, *, busy: bool, fault: str | None) -> str | None:
        """To be called now and then: why the process must end, or None.

        `progress` changes with everything that moves; `busy`: whether a running lane has work; `fault`: what is waited
        for, where that is known: whoever waits for a broker is not stuck.
        """
        now = self._clock()
        waits = fault is not None or phase in RESTING or (phase == "running" and not busy)
        if waits or progress != self._progress:
            self._moved_at, self._progress = now, progress
        stood_s = now - self._moved_at
        return f"{phase} without progress for {stood_s:.0f} s" if stood_s > self._timeout_s else None
