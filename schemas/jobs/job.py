"""Jobs as frozen values: what producers say of one, how it stands, its chunks, and what these come to."""

from __future__ import annotations

from typing import Any, Literal, get_args

import msgspec
from msgspec import UNSET, UnsetType

from inferd.schemas.errors import InvalidIdError, ModelServingError, error_of_code
from inferd.schemas.headers import Encoding
from inferd.schemas.jobs.rows import RowBatch
from inferd.schemas.requests import (
    DEFAULT_OUTPUTS,
    ModelReference,
    Output,
    valid_job_id,
)

Phase = Literal[
    "queued", "running", "completed", "completed_with_errors", "failed", "cancelled", "incomplete", "expired"
]
PHASES: tuple[Phase, ...] = get_args(Phase)
TERMINAL = frozenset(("completed", "completed_with_errors", "failed", "cancelled", "incomplete", "expired"))
"""The phases in which a job has ended; only a `retry` leads out of `completed_with_errors`."""


class OpenJob(msgspec.Struct, frozen=True):
    """Opens a job; its rows come in messages of their own."""

    model: ModelReference
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    """`prediction` is always among them."""
    row_count: int | None = None
    """How many rows the job must turn out to have."""
    chunk_rows: int | None = None
    deadline_ms: int | None = None
    """Unix milliseconds at which all messages must be there."""
    labels: dict[str, str] = {}
    encoding: Encoding = "msgpack"
    """Of the message, and so of every status and result of the job."""


class JobRows(msgspec.Struct, frozen=True):
    """Rows of a job; `seq` says where they belong: 0, 1, …"""

    seq: int
    batch: RowBatch


class CloseJob(msgspec.Struct, frozen=True):
    """Says how many messages of rows a job has."""

    message_count: int


class SubmitJob(msgspec.Struct, frozen=True):
    """A whole job in one message."""

    open: OpenJob
    batch: RowBatch


class CancelJob(msgspec.Struct, frozen=True):
    """Ends a job."""


class RetryJob(msgspec.Struct, frozen=True):
    """Scores again the rows that failed, once the job has ended with errors."""


JobMessage = OpenJob | JobRows | CloseJob | SubmitJob | CancelJob | RetryJob


class JobError(msgspec.Struct, frozen=True):
    """Why a job failed."""

    code: str
    message: str

    @classmethod
    def of(cls, error: ModelServingError) -> JobError:
        return cls(error.code, error.message)

    def error(self) -> ModelServingError:
        """The typed error that this carries."""
        return error_of_code(self.code, self.message)


Ranges = list[tuple[int, int]]
"""First and last number of each range, both belonging to it."""
RANGES_MAX = 100
"""Ranges that are listed; `truncated` says that there are more."""


class Missing(msgspec.Struct, frozen=True, omit_defaults=True):
    """What a job that is `incomplete` still waited for."""

    open: bool = False
    """The message that opens it never came."""
    close: bool = False
    """The message that says how many there are never came."""
    messages: Ranges = []
    """Numbers (`seq`) of messages that never came; without a `close`, only those below the highest that did."""
    chunks: Ranges = []
    """Chunks without a result."""
    truncated: bool = False


class JobStatus(msgspec.Struct, frozen=True):
    """How a job stands. Times are Unix milliseconds."""

    job_id: str
    status: Phase
    model_id: str | None
    """None where the job was never opened."""
    version: int | None
    digest: str | None
    input_count: int
    """Rows that came in."""
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
    """How often it was retried, where it was."""
    labels: dict[str, str] | UnsetType = UNSET

    @property
    def ended(self) -> bool:
        return self.status in TERMINAL


class Source(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Rows `start` to `stop` of the message at an offset of the job's partition of `jobs`."""

    offset: int
    start: int
    stop: int


class Chunk(msgspec.Struct, frozen=True, kw_only=True, tag="chunk", forbid_unknown_fields=True, omit_defaults=True):
    """Work for one scorer: rows of a job, the model version that is to score them, and where the result belongs.

    Either `rows` (bytes of an array of rows or of a tensor, in `rows_encoding`) or `source`.
    """

    job_id: str
    chunk: int
    first_row: int
    """Number of its first row in the job."""
    row_count: int
    model_id: str
    version: int
    digest: str
    partition: int
    """Of the job in `jobs` and `job-results`."""
    outputs: tuple[Output, ...] = DEFAULT_OUTPUTS
    encoding: Encoding = "msgpack"
    """Of the result."""
    attempt: int = 0
    rows: bytes | None = None
    rows_encoding: Encoding = "msgpack"
    source: Source | None = None
    previous: int | None = None
    """For a retry: offset of the chunk's latest result in `job-results`. Only its failed rows are scored again."""


class Barrier(msgspec.Struct, frozen=True, kw_only=True, tag="barrier", forbid_unknown_fields=True):
    """Goes to every partition of `job-chunks` when a job is cancelled; who reads one answers with `BarrierResult` once
    everything before it is committed."""

    job_id: str
    barrier: str
    """Names this barrier: of one that was sent before a crash, and so before chunks that are sent again, the answers
    do not count."""
    partition: int
    """Of the job in `job-results`."""


class RowError(msgspec.Struct, frozen=True):
    """Why a row has no prediction; `row` is its number in the job."""

    row: int
    code: str
    message: str


class ChunkResult(msgspec.Struct, frozen=True):
    """What a chunk came to: for each row either its place in every list of `outputs`, or one of `errors`, whose places
    in the lists hold None. Errors are in the order of rows."""

    job_id: str
    chunk: int
    first_row: int
    attempt: int
    version: int
    digest: str
    outputs: dict[Output, list[Any]]
    """`prediction` (`predictions` on the wire) first, the others in the order asked for."""
    errors: list[RowError]


class ChunkOutcome(msgspec.Struct, frozen=True):
    """What a job's arithmetic needs of a chunk's result."""

    job_id: str
    chunk: int
    first_row: int
    attempt: int
    digest: str
    row_count: int
    failed: int


class BarrierResult(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything before the barrier in this partition of `job-chunks` is committed."""

    job_id: str
    barrier: str
    partition: int
    """Of `job-chunks`."""


def check_job_id(key: bytes | None) -> str:
    """The job id that the key of a record is, else `InvalidIdError`."""
    if key is None:
        raise InvalidIdError("key: a message of a job has the job's id as its key, and this one has none")
    return valid_job_id(key.decode("utf-8", "backslashreplace"))


def chunk_key(job_id: str, chunk: int) -> bytes:
    """Key of a chunk in `job-chunks`."""
    return f"{job_id}/{chunk}".encode()
