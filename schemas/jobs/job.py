"""Job records: messages of producers, the status of a job, its chunks and their results."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InvalidIdError, ModelServingError, error_of_code
from inferd.schemas.jobs.rows import RowBatch
from inferd.schemas.requests import (
    DEFAULT_OUTPUTS,
    ModelReference,
    Output,
    RowError,
    check_job_id,
)

Phase = Literal[
    "queued", "running", "completed", "completed_with_errors", "failed", "cancelled", "incomplete", "expired"
]
PHASES: tuple[Phase, ...] = get_args(Phase)
TERMINAL = frozenset(("completed", "completed_with_errors", "failed", "cancelled", "incomplete", "expired"))
"""The phases in which a job has ended. Only a `retry` leaves one of them: `completed_with_errors`."""


class OpenJob(msgspec.Struct, frozen=True):
    """Opens a job; its rows follow in `rows` messages."""

    model: ModelReference
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    """`prediction` is always among them."""
    row_count: int | None = None
    """Expected number of rows, if given."""
    chunk_rows: int | None = None
    deadline_ms: int | None = None
    """Unix milliseconds by which all messages must have arrived."""
    labels: dict[str, str] = {}
    encoding: str = MSGPACK.name
    """The name of the codec of this message, and of every status and result of the job."""


class JobRows(msgspec.Struct, frozen=True):
    """Rows of a job; `seq` (0, 1, …) is their order."""

    seq: int
    batch: RowBatch


class CloseJob(msgspec.Struct, frozen=True):
    """States the number of `rows` messages of a job."""

    message_count: int


class SubmitJob(msgspec.Struct, frozen=True):
    """A whole job in one message."""

    open: OpenJob
    batch: RowBatch


class CancelJob(msgspec.Struct, frozen=True):
    """Cancels a job."""


class RetryJob(msgspec.Struct, frozen=True):
    """Scores failed rows again, once the job is `completed_with_errors`."""


JobMessage = OpenJob | JobRows | CloseJob | SubmitJob | CancelJob | RetryJob


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed."""

    code: str
    message: str

    @classmethod
    def of(cls, error: ModelServingError) -> JobError:
        return cls(error.code, error.message)

    def error(self) -> ModelServingError:
        """The exception for this error."""
        return error_of_code(self.code, self.message)


Ranges = list[tuple[int, int]]
"""Pairs of first and last number, both inclusive."""
RANGES_MAX = 100
"""Ranges that are listed; `truncated` is set if there are more."""


class Missing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What an `incomplete` job did not receive."""

    open: bool = False
    """The `open` message is missing."""
    close: bool = False
    """The `close` message is missing."""
    messages: Ranges = []
    """Missing `seq` numbers; without a `close`, only those below the highest received."""
    chunks: Ranges = []
    """Chunks without a result."""
    truncated: bool = False


class JobStatus(msgspec.Struct, frozen=True):
    """The status of a job. Times are Unix milliseconds."""

    job_id: str
    status: Phase
    model_id: str | None
    """None if the job was never opened."""
    version: int | None
    digest: str | None
    input_count: int
    """Rows received."""
    processed: int
    """`succeeded + failed`."""
    succeeded: int
    failed: int
    chunks_total: int
    chunks_done: int
    submitted_at: int
    started_at: int | None
    updated_at: int
    finished_at: int | None
    error: JobError | UnsetType = UNSET
    missing: Missing | UnsetType = UNSET
    attempt: int | UnsetType = UNSET
    """Number of retries; unset if there were none."""
    labels: dict[str, str] | UnsetType = UNSET
    results_in: list[int] | UnsetType = UNSET
    """Partitions of `job-results` that have results besides the one of the job's id: partitions were added since."""

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Rows `start` to `stop` (exclusive) of the message at `offset` of `jobs`."""

    offset: int
    start: int
    stop: int
    partition: int | None = None
    """None: the job's; another one if the job was moved since."""


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk", forbid_unknown_fields=True, omit_defaults=True):
    """A unit of work: rows of a job, the model version that scores them, and the destination of the result.

    It has either `rows` (an encoded array of rows or tensor, in `rows_encoding`) or a `source`.
    """

    job_id: str
    chunk: int
    first_row: int
    """Index of its first row in the job."""
    row_count: int
    model_id: str
    version: int
    digest: str
    partition: int
    """The job's partition in `jobs` and `job-results`."""
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    encoding: str = MSGPACK.name
    """The name of the result's codec."""
    attempt: int = 0
    rows: bytes | None = None
    rows_encoding: str = MSGPACK.name
    source: Source | None = None
    previous: int | None = None
    """For a retry: offset of the chunk's latest result in `job-results`. Only rows that failed there are scored."""
    previous_partition: int | None = None
    """Of `previous`; None: the job's."""


class Barrier(msgspec.Struct, frozen=True, kw_only=True, tag="barrier", forbid_unknown_fields=True):
    """Sent to every partition of `job-chunks` when a job is cancelled. Its reader replies with a `BarrierResult` once
    every earlier record of the partition is committed."""

    job_id: str
    barrier: str
    """Id of this barrier. Replies to a barrier from before a crash are ignored: chunks may have been sent again after
    it."""
    partition: int
    """The job's partition in `job-results`."""


class ChunkResult(msgspec.Struct, frozen=True):
    """The result of a chunk: for each row a value in every list of `outputs`, or None there and an entry in `errors`.
    Errors are in row order."""

    job_id: str
    chunk: int
    first_row: int
    attempt: int
    version: int
    digest: str
    outputs: dict[Output, list[Any]]
    """`prediction` (`predictions` on the wire) first, then the others of `OUTPUTS`, then the model's own, each in the
    requested order."""
    errors: list[RowError]


class ChunkOutcome(msgspec.Struct, frozen=True):
    """The counts of a chunk's result, for the state of its job."""

    job_id: str
    chunk: int
    first_row: int
    attempt: int
    digest: str
    row_count: int
    failed: int


class BarrierResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Confirms that every record before the barrier in this partition of `job-chunks` is committed."""

    job_id: str
    barrier: str
    partition: int
    """Partition of `job-chunks`."""


def parse_job_key(key: bytes | None) -> str:
    """The job id in the key of a record; `InvalidIdError` if it is not one."""
    if key is None:
        raise InvalidIdError("key: missing; the key of a job message is the job id")
    return check_job_id(key.decode("utf-8", "backslashreplace"))


def chunk_key(job_id: str, chunk: int) -> bytes:
    """The key of a chunk in `job-chunks`."""
    return f"{job_id}/{chunk}".encode()
