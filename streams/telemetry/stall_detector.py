"""Distinguishes a worker that waits from one that is stalled."""

from __future__ import annotations

import time
from collections.abc import Callable

from inferd.streams.telemetry.snapshot import Phase

RESTING: frozenset[Phase] = frozenset({"draining", "stopped"})
"""Phases with their own deadlines."""


class StallDetector:
    """Detects a rebalance, recovery or running lane that makes no progress for `timeout_s` seconds."""

    def __init__(self, timeout_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._timeout_s = timeout_s
        self._clock = clock
        self._progress = -1
        self._progressed_at = clock()

    def check(self, phase: Phase, progress: int, *, busy: bool, fault: str | None) -> str | None:
        """The reason to end the process, or None. Call it at regular intervals.

        `progress` changes with any progress of the worker. `busy`: whether a running lane has work. `fault`: a known
        cause for waiting, such as an unreachable broker; a worker that waits for it is not stalled.
        """
        now = self._clock()
        waits = fault is not None or phase in RESTING or (phase == "running" and not busy)
        if waits or progress != self._progress:
            self._progressed_at, self._progress = now, progress
        stalled_s = now - self._progressed_at
        return f"{phase} without progress for {stalled_s:.0f} s" if stalled_s > self._timeout_s else None
