"""Request and response bodies that exist only over HTTP; `/openapi.json` is generated from these types."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from inferd.schemas.jobs import JobStatus
from inferd.schemas.requests import (
    ID_PATTERN,
    NAME_PATTERN,
    OUTPUT_CHARS_MAX,
    OUTPUTS,
    OUTPUTS_MAX,
    Output,
    RowError,
    Scalar,
)
from inferd.streams.telemetry import WaitSnapshot

OUTPUT_DESCRIPTION = f"One of {', '.join(OUTPUTS)}, or one of the model's own outputs (output_names of its manifest)"
REFERENCE_PATTERN = rf"^{NAME_PATTERN}(:[1-9][0-9]{{0,8}}|@{NAME_PATTERN})?$"


class Tensor(Struct, forbid_unknown_fields=True):
    """A C-ordered tensor of shape (rows, features); in JSON, `data` is Base64."""

    dtype: str
    shape: tuple[int, int]
    data: bytes


ROWS = (list[Scalar], list[list[Scalar]], dict[str, Scalar], list[dict[str, Scalar]], Tensor)
"""Forms of `input_data`: a row or rows, by position or by name, or a tensor."""
Rows = Annotated[Any, Meta(extra_json_schema={"anyOf": [msgspec.json.schema(rows) for rows in ROWS[:4]]})]
Id = Annotated[str, Meta(pattern=f"^{ID_PATTERN}$")]
OutputName = Annotated[Output, Meta(min_length=1, max_length=OUTPUT_CHARS_MAX, description=OUTPUT_DESCRIPTION)]
Outputs = Annotated[list[OutputName], Meta(min_length=1, max_length=OUTPUTS_MAX)]


class PredictionBody(Struct, forbid_unknown_fields=True):
    """A row, or rows, to score."""

    input_data: Rows
    outputs: Outputs | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class PredictionAnswer(Struct):
    """The outputs, and the version that made them: a value or a vector for one row, a list of them for rows. `outputs`
    has the model's own outputs by name."""

    id: str
    model_id: str
    version: int
    digest: str
    prediction: Any = UNSET
    probabilities: Any = UNSET
    raw: Any = UNSET
    contributions: Any = UNSET
    leaves: Any = UNSET
    outputs: dict[str, Any] | UnsetType = UNSET
    errors: list[RowError] | UnsetType = UNSET


class JobBody(Struct, forbid_unknown_fields=True):
    """A batch job with all its rows."""

    model_id: Annotated[str, Meta(pattern=REFERENCE_PATTERN)]
    input_batch: Rows
    job_id: Id | UnsetType = UNSET
    outputs: Outputs | UnsetType = UNSET
    row_count: int | UnsetType = UNSET
    chunk_rows: int | UnsetType = UNSET
    deadline: int | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class JobsAnswer(Struct):
    """A page of jobs, ordered by id; pass the last id as `after` for the next page."""

    jobs: list[JobStatus]


class Live(Struct):
    """The event loop is running."""

    status: Literal["live"]


class Health(Struct):
    """Readiness, the reasons if not ready, and tenants that wait for Kafka permissions or for their topics."""

    status: Literal["healthy", "unhealthy"]
    reasons: list[str] = []
    waiting: list[WaitSnapshot] = []


class Form(Struct):
    """A model file with a manifest."""

    model: bytes
    manifest: Any = UNSET
