"""When the steps of one micro-batch began and ended."""

from __future__ import annotations

import time
from collections.abc import Callable

from inferd.streams.telemetry.snapshot import Step


class StepTimer:
    """Start and end of each step of one micro-batch, in seconds of the performance clock."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self.steps: list[tuple[Step, float, float]] = []
        self._clock = clock
        self.began = self.ended = clock()

    def finish(self, step: Step) -> None:
        """Ends `step` now; it began when the previous step ended."""
        now = self._clock()
        self.steps.append((step, self.ended, now))
        self.ended = now
