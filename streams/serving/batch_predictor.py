"""Batch jobs in the caller's own process: the class that users call, and subclass."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from types import TracebackType
from typing import Any, Self

from inferd.schemas.errors import InvalidValueError, JobConflictError
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.requests import DEFAULT_OUTPUTS, TensorRows, frame_items, is_frame, is_row, listed
from inferd.streams.inference import PinnedModelId
from inferd.streams.serving.local_job import JobOrder
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
    """Scores batches of rows as jobs, in a thread of its own; at the end of the program it waits for those that go on.

    Override `process_batch` to change how rows are scored: here, and in a worker that is told to use the class. Use it
    with `with`, or call `close`, to cancel what goes on instead.
    """

    def __init__(
        self,
        model_manager: ModelManager,
        tenant_id: str | None = None,
        *,
        limits: Limits = DEFAULT_LIMITS,
        kept: Kept | None = None,
    ) -> None:
        """`tenant_id` is the manager's by default; `kept` bounds what is remembered of jobs that have ended."""
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
        """Opens a job over rows (`[[n, …], …]`, `[{feature: value}, …]`, a two-dimensional array or a data frame).

        Returns its id. The version that `model_id` leads to now scores all of them. `job_id` is
        `[A-Za-z0-9._:-]{1,64}`. Raises `InferenceError` for the model, for what is no rows, and for too many jobs or
        rows; `BatchJobError` for an id that was submitted before.
        """
        rows = _copied(input_batch)
        return self.jobs.submit(job_id, JobOrder(self.pinned(model_id), rows))

    def pinned(self, model_id: str) -> PinnedModelId:
        """`model_id`, which remembers the version that it leads to now."""
        return PinnedModelId.of(str(model_id), model_of(self.model_manager, model_id))

    def get_batch_status(self, job_id: str) -> dict[str, Any]:
        """How a job stands, with the wire's fields: `status`, `input_count`, `processed`, `succeeded`, `failed`, ….

        `status` is `queued`, `running`, `completed`, `completed_with_errors`, `cancelled` or `expired`; times are Unix
        milliseconds. Raises `JobNotFoundError`.
        """
        return self.jobs.find(job_id).status()

    def get_batch_results(self, job_id: str, timeout_s: float | None = None) -> list[dict[str, Any]]:
        """For each row `{"row", "prediction"}`, or `{"row", "error": {"code", "message"}}`, in order.

        It waits for the job to end. Of one that was cancelled: the rows that were scored before. Raises
        `JobNotFoundError`; `JobExpiredError` where the results made room for later ones; `JobConflictError` where the
        job goes on after `timeout_s`.
        """
        found = self.jobs.find(job_id)
        if not found.ended.wait(timeout_s):
            raise JobConflictError(f"job {job_id!r} goes on after {timeout_s:g} s: ask again once it has ended")
        return list(found.lines())

    def cancel_batch(self, job_id: str) -> None:
        """Ends a job. Raises `JobNotFoundError`; `JobClosedError` where it has ended."""
        self.jobs.find(job_id).cancel()

    def retry_batch(self, job_id: str) -> None:
        """Scores the rows that failed once more. Raises `JobNotFoundError`; `JobClosedError` where none can be."""
        self.jobs.retry(job_id)

    def process_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        """The predictions for rows, one each, in order. Override it to change how jobs are scored.

        It gets the chunks of a job one after the other; `model_id` is as it was submitted, and remembers its version.
        Where it raises an `InferenceError` for a row, it is called again with parts of the chunk, so that the row fails
        alone; an error of another kind fails the chunk as `internal`, and is logged. An `InferenceError` among the
        predictions is the outcome of its row.
        """
        if not len(input_batch):
            return []
        model = model_of(self.model_manager, model_id)
        rows = checked_input(model_id, input_batch, DEFAULT_OUTPUTS, UNBOUNDED)
        if not isinstance(rows, TensorRows) and rows.single:
            raise InvalidValueError(f"input_batch: it is one row; {_ROWS}")
        return columns_of(model, model.features.matrix(rows), DEFAULT_OUTPUTS)["prediction"]

    def close(self) -> None:
        """Cancels the jobs that go on."""
        self.jobs.close()


def _copied(input_batch: Any) -> Sequence[Any]:
    """Rows that nobody changes any more; `InvalidValueError` where they are none."""
    if is_frame(input_batch):
        return list(frame_items(input_batch))
    given = listed(input_batch)
    if isinstance(given, str | bytes | dict) or not isinstance(given, Iterable):
        raise InvalidValueError(f"input_batch of {type(input_batch).__name__}: {_ROWS}")
    rows = list(given)
    if rows and not is_row(rows[0]):
        raise InvalidValueError(f"input_batch: row 0 is {type(rows[0]).__name__}; {_ROWS}")
    return rows
