"""Batch jobs in the caller's process: a class for users to call and to subclass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from inferd.schemas.errors import InvalidValueError, JobConflictError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import DEFAULT_OUTPUTS, TensorRows, frame_items, is_frame, is_row, to_list
from inferd.streams.inference import PinnedModelId
from inferd.streams.serving.local_job import JobSpec
from inferd.streams.serving.local_jobs import Kept, LocalJobs
from inferd.streams.serving.model_manager import ModelManager, manager_of
from inferd.streams.serving.rows import (
    UNBOUNDED,
    checked_input,
    columns_of,
    model_of,
)

_ROWS = "expected rows (lists, tuples, dicts, arrays), or a data frame"


class BatchPredictor:
    """Scores batches of rows as jobs in a background thread. The interpreter waits for running jobs when it exits.

    Override `process_batch` to change how rows are scored, here and in a worker that is configured with the class. Use
    it as a context manager, or call `close`, to cancel running jobs instead of waiting for them.
    """

    def __init__(
        self,
        model_manager: ModelManager,
        tenant_id: str | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        kept: Kept | None = None,
    ) -> None:
        """`tenant_id` defaults to the manager's; `kept` limits how many ended jobs are retained."""
        self.model_manager = manager_of(model_manager, tenant_id)
        self.tenant_id: str = self.model_manager.tenant_id
        self.jobs = LocalJobs(self.process_batch, limits, kept)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def submit_batch(self, model_id: str, input_batch: Sequence[Any], job_id: str | None = None) -> str:
        """Submit rows (`[[n, …], …]`, `[{feature: value}, …]`, a two-dimensional array or a data frame) as a job.

        Returns the job id. All rows are scored by the version that `model_id` resolves to now. `job_id` is
        `[A-Za-z0-9._:-]{1,64}`. Raises `InferenceError` for the model, for input that is not rows, and for too many
        jobs or rows; `BatchJobError` for an id that was submitted before.
        """
        rows = _copied(input_batch)
        return self.jobs.submit(job_id, JobSpec(self.pinned(model_id), rows))

    def pinned(self, model_id: str) -> PinnedModelId:
        """`model_id`, pinned to the version that it resolves to now."""
        return PinnedModelId.of(str(model_id), model_of(self.model_manager, model_id))

    def get_batch_status(self, job_id: str) -> dict[str, Any]:
        """The status of a job, with the wire's fields: `status`, `input_count`, `processed`, `succeeded`, `failed`, ….

        `status` is `queued`, `running`, `completed`, `completed_with_errors`, `cancelled` or `expired`; times are Unix
        milliseconds. Raises `JobNotFoundError`.
        """
        return self.jobs.find(job_id).status()

    def get_batch_results(self, job_id: str, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """Wait for a job to end and return `{"row", "prediction"}` or `{"row", "error": {"code", "message"}}` per row.

        The rows are in order. A cancelled job has the rows that were scored before. Raises `JobNotFoundError`;
        `JobExpiredError` if the results were evicted; `JobConflictError` if the job has not ended after `timeout_s`.
        """
        found = self.jobs.find(job_id)
        if not found.ended.wait(timeout_s):
            raise JobConflictError(f"job {job_id!r} has not ended after {timeout_s:g} s: retry once it has")
        return list(found.lines())

    def cancel_batch(self, job_id: str) -> None:
        """Cancel a job. Raises `JobNotFoundError`; `JobClosedError` if it has ended."""
        self.jobs.find(job_id).cancel()

    def retry_batch(self, job_id: str) -> None:
        """Score the failed rows again. Raises `JobNotFoundError`; `JobClosedError` if there are none to score."""
        self.jobs.retry(job_id)

    def process_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        """The predictions for the rows of one chunk, one per row, in order. Override it to change how jobs are scored.

        `model_id` is the submitted one, pinned to its version. If the method raises an `InferenceError` that one row
        can cause, it is called again with parts of the chunk, so that only that row fails. Any other exception fails
        the chunk as `internal`, and is logged. An `InferenceError` in the returned list fails its row.
        """
        if not len(input_batch):
            return []
        model = model_of(self.model_manager, model_id)
        rows = checked_input(model_id, input_batch, DEFAULT_OUTPUTS, UNBOUNDED)
        if not isinstance(rows, TensorRows) and rows.single:
            raise InvalidValueError(f"input_batch: a single row; {_ROWS}")
        return columns_of(model, model.features.inputs(rows), DEFAULT_OUTPUTS)["prediction"]

    def close(self) -> None:
        """Cancel the running jobs."""
        self.jobs.close()


def _copied(input_batch: Any) -> Sequence[Any]:
    """A copy of the rows, so that the caller may change its own; `InvalidValueError` if they are not rows."""
    if is_frame(input_batch):
        return list(frame_items(input_batch))
    given = to_list(input_batch)
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise InvalidValueError(f"input_batch of {type(input_batch).__name__}: {_ROWS}")
    rows = list(given)
    if rows and not is_row(rows[0]):
        raise InvalidValueError(f"input_batch: row 0 is {type(rows[0]).__name__}; {_ROWS}")
    return rows
