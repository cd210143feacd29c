"""Progress of a job on standard error: a bar on a terminal, else lines."""

from __future__ import annotations

import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from inferd.daemon.cli.output import report
from inferd.jobs import SubmitProgress
from inferd.schemas.jobs import JobStatus

if TYPE_CHECKING:
    from rich.progress import Progress

RATE_OVER_S = 10.0
LINE_EVERY_S = 5.0


class Rate:
    """Rows per second, over a sliding window."""

    def __init__(self, over_s: float = RATE_OVER_S) -> None:
        self._over_s = over_s
        self._seen: deque[tuple[float, int]] = deque()

    def add(self, at_s: float, rows: int) -> None:
        """Records the total number of rows done at a time."""
        self._seen.append((at_s, rows))
        while len(self._seen) > 2 and self._seen[0][0] < at_s - self._over_s:
            self._seen.popleft()

    @property
    def per_s(self) -> float | None:
        """The rate; None if it is unknown yet."""
        if len(self._seen) < 2 or self._seen[-1][0] <= self._seen[0][0]:
            return None
        (first_s, first), (last_s, last) = self._seen[0], self._seen[-1]
        return max(last - first, 0) / (last_s - first_s)


def describe(status: JobStatus, rate: Rate) -> str:
    """A line with the progress of a job."""
    parts = [f"{status.status}: {status.processed:,} of {status.input_count:,} rows, {status.failed:,} failed"]
    per_s = rate.per_s
    if per_s and not status.ended:
        parts += [f"{per_s:,.0f} rows/s", f"{(status.input_count - status.processed) / per_s:,.0f} s left"]
    return ", ".join(parts)


@contextmanager
def shown_job() -> Iterator[Callable[[JobStatus], None]]:
    """Yields a function that shows the status of a watched job."""
    rate = Rate()
    with _bar("job") as bar:
        reported_at = float("-inf")

        def show(status: JobStatus) -> None:
            nonlocal reported_at
            rate.add(status.updated_at / 1_000, status.processed)
            if bar is not None:
                text = describe(status, rate)
                bar.update(bar.task_ids[0], description=text, total=status.input_count, completed=status.processed)
            elif status.ended or time.monotonic() - reported_at >= LINE_EVERY_S:
                reported_at = time.monotonic()
                report(describe(status, rate))

        yield show


@contextmanager
def shown_submission(count: int | None) -> Iterator[Callable[[SubmitProgress], None]]:
    """Yields a function that shows how many of `count` rows (None: unknown) are sent."""
    with _bar("submitting") as bar:
        if bar is not None:
            bar.update(bar.task_ids[0], total=count)

        def show(progress: SubmitProgress) -> None:
            if bar is not None:
                bar.update(bar.task_ids[0], completed=progress.rows)

        yield show


@contextmanager
def _bar(what: str) -> Iterator[Progress | None]:
    if not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        progress.add_task(what, total=None)
        yield progress
