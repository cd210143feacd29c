"""The batch jobs of one predictor in this process: each run to its end in one thread, in the order of submission.

What is kept is bounded: past so many rows the results of the oldest job that ended make room, and past so many jobs
nothing is known of it any longer.
"""

from __future__ import annotations

import threading
import time
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import structlog

from inferd.schemas.errors import JobClosedError, JobConflictError, JobNotFoundError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import valid_job_id
from inferd.streams.jobs.state import Usage
from inferd.streams.serving.local_job import JobOrder, LocalJob, ProcessBatch

_EVER_S = 1e9
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """How much is kept of jobs that have ended."""

    rows_max: int = 1_000_000
    """Rows with their results; the newest job that ended is kept however large it is."""
    jobs_max: int = 10_000


class LocalJobs:
    """Jobs by their ids; any thread may ask."""

    def __init__(self, process_batch: ProcessBatch, limits: Limits = DEFAULT_LIMITS, kept: Kept | None = None) -> None:
        self._process_batch, self._kept = process_batch, kept or Kept()
        # Nothing of a job here ends by time: rows and results stay as long as there is room for them.
        self._limits = replace(limits, job_retention_s=_EVER_S, job_open_max_s=_EVER_S)
        self._jobs: dict[str, LocalJob] = {}
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, job_id: str | None, order: JobOrder) -> str:
        """Opens a job, by default of an id that nobody has: its id. It runs when those before it have.

        Raises `InvalidIdError`, `JobConflictError` for an id that a job has which goes on, `JobClosedError` for one of
        a job that ended, `TooLargeError` and `QuotaExceededError`.
        """
        job_id = uuid.uuid4().hex if job_id is None else valid_job_id(job_id)
        with self._lock:
            if (there := self._jobs.get(job_id)) is not None:
                raise _repeated(there)
            opened = LocalJob(job_id, order, self._limits, self._in_use(), _now_ms)
            self._jobs[job_id] = opened
            self._start(opened)
        return job_id

    def find(self, job_id: str) -> LocalJob:
        """The job; `JobNotFoundError` where nothing is known of one."""
        found = self._jobs.get(job_id)
        if found is None:
            raise JobNotFoundError(f"there is no job {str(job_id)[:80]!r}: it was not submitted to this predictor")
        return found

    def retry(self, job_id: str) -> None:
        """Scores the rows that failed again, once a job has completed with errors; `JobClosedError` for any other."""
        found = self.find(job_id)
        with self._lock:
            found.retry()
            self._start(found)

    def all(self) -> list[LocalJob]:
        """Every job that anything is known of, in the order of submission."""
        with self._lock:
            return list(self._jobs.values())

    def close(self) -> None:
        """Cancels what goes on, and waits for the chunk that is being scored."""
        for each in self.all():
            if not each.ended.is_set():
                each.cancel()
        if self._thread is not None:
            self._thread.shutdown(wait=True)
            self._thread = None

    def _start(self, opened: LocalJob) -> None:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="inferd-jobs")
        self._thread.submit(self._run, opened)

    def _run(self, opened: LocalJob) -> None:
        try:
            opened.run(self._process_batch)
        except Exception:  # the thread goes on with the next job whatever is the matter with this one
            log.exception("job_failed", job_id=opened.job_id)
            opened.cancel()
        finally:
            self._make_room()

    def _make_room(self) -> None:
        with self._lock:
            ended = [each for each in self._jobs.values() if each.ended.is_set()]
            rows = sum(each.row_count for each in ended)
            for each in ended[:-1]:
                if rows <= self._kept.rows_max:
                    break
                rows -= each.row_count
                each.expire()
            for each in ended[: max(len(self._jobs) - self._kept.jobs_max, 0)]:
                del self._jobs[each.job_id]

    def _in_use(self) -> Usage:
        going_on = [each for each in self._jobs.values() if not each.ended.is_set()]
        return Usage(len(going_on), sum(each.row_count for each in going_on), 0)


def _repeated(there: LocalJob) -> JobConflictError | JobClosedError:
    if there.ended.is_set():
        return JobClosedError(f"job {there.job_id!r} has ended: submit under another id, or leave the id out")
    return JobConflictError(f"job {there.job_id!r} goes on: submit under another id, or leave the id out")


def _now_ms() -> int:
    return int(time.time() * 1_000)
