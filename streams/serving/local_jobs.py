"""The batch jobs of one predictor in this process, run one after the other in one thread, in order of submission.

Memory is bounded: above `rows_max` rows the results of the oldest ended jobs are evicted, and above `jobs_max` jobs the
oldest ended jobs are forgotten.
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
from inferd.schemas.requests import check_job_id
from inferd.streams.jobs.state import Usage
from inferd.streams.serving.local_job import JobSpec, LocalJob, ProcessBatch

_NEVER_S = 1e9
log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Kept:
    """Retention of ended jobs."""

    rows_max: int = 1_000_000
    """Rows with their results; the most recently ended job is always retained."""
    jobs_max: int = 10_000


class LocalJobs:
    """Jobs by id. Thread-safe."""

    def __init__(self, process_batch: ProcessBatch, limits: Limits = DEFAULT_LIMITS, kept: Kept | None = None) -> None:
        self._process_batch, self._kept = process_batch, kept or Kept()
        # Jobs in this process do not time out; only `kept` evicts them.
        self._limits = replace(limits, job_retention_s=_NEVER_S, job_open_max_s=_NEVER_S)
        self._jobs: dict[str, LocalJob] = {}
        self._lock = threading.Lock()
        self._thread: ThreadPoolExecutor | None = None

    def submit(self, job_id: str | None, spec: JobSpec) -> str:
        """Queue a job and return its id, which is generated if it is None.

        Raises `InvalidIdError`, `JobConflictError` for the id of a running job, `JobClosedError` for the id of an ended
        job, `TooLargeError` and `QuotaExceededError`.
        """
        job_id = uuid.uuid4().hex if job_id is None else check_job_id(job_id)
        with self._lock:
            if (existing := self._jobs.get(job_id)) is not None:
                raise _duplicate_error(existing)
            opened = LocalJob(job_id, spec, self._limits, self._in_use(), _now_ms)
            self._jobs[job_id] = opened
            self._start(opened)
        return job_id

    def find(self, job_id: str) -> LocalJob:
        """The job; `JobNotFoundError` if it is unknown."""
        found = self._jobs.get(job_id)
        if found is None:
            raise JobNotFoundError(f"there is no job {str(job_id)[:80]!r}: it was not submitted to this predictor")
        return found

    def retry(self, job_id: str) -> None:
        """Score the failed rows of a job that completed with errors again; `JobClosedError` for any other job."""
        found = self.find(job_id)
        with self._lock:
            found.retry()
            self._start(found)

    def all(self) -> list[LocalJob]:
        """All known jobs, in order of submission."""
        with self._lock:
            return list(self._jobs.values())

    def close(self) -> None:
        """Cancel the running jobs and wait for the chunk in progress."""
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
        except Exception:  # a failed job must not stop the thread
            log.exception("job_failed", job_id=opened.job_id)
            opened.cancel()
        finally:
            self._evict()

    def _evict(self) -> None:
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
        running = [each for each in self._jobs.values() if not each.ended.is_set()]
        return Usage(len(running), sum(each.row_count for each in running), 0)


def _duplicate_error(existing: LocalJob) -> JobConflictError | JobClosedError:
    if existing.ended.is_set():
        return JobClosedError(f"job {existing.job_id!r} has ended: submit under another id, or omit the id")
    return JobConflictError(f"job {existing.job_id!r} has not ended: submit under another id, or omit the id")


def _now_ms() -> int:
    return int(time.time() * 1_000)
