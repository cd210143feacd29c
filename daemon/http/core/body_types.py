"""Bodies and answers of routes that no type of the wire describes by itself: `/openapi.json` is made from these."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from inferd.schemas.jobs import JobStatus
from inferd.schemas.requests import (
    ID_PATTERN,
    NAME_PATTERN,
    Output,
    RowError,
    Scalar,
)
from inferd.streams.telemetry import WaitSnapshot

REFERENCE_PATTERN = rf"^{NAME_PATTERN}(:[1-9][0-9]{{0,8}}|@{NAME_PATTERN})?$"


class Tensor(Struct, forbid_unknown_fields=True):
    """A C-ordered tensor of shape (rows, features); in JSON, `data` is Base64."""

    dtype: str
    shape: tuple[int, int]
    data: bytes


ROWS = (list[Scalar], list[list[Scalar]], dict[str, Scalar], list[dict[str, Scalar]], Tensor)
"""What input_data may be: a row or rows, by position or by name, or a tensor."""
Rows = Annotated[Any, Meta(extra_json_schema={"anyOf": [msgspec.json.schema(rows) for rows in ROWS[:4]]})]
Id = Annotated[str, Meta(pattern=f"^{ID_PATTERN}$")]
Outputs = Annotated[list[Output], Meta(min_length=1, max_length=5)]


class PredictionBody(Struct, forbid_unknown_fields=True):
    """One row, or rows, to be scored together."""

    input_data: Rows
    outputs: Outputs | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class PredictionAnswer(Struct):
    """What the model says: a value or a list for one row, lists of them for rows; and which version said it."""

    id: str
    model_id: str
    version: int
    digest: str
    prediction: Any = UNSET
    probabilities: Any = UNSET
    raw: Any = UNSET
    contributions: Any = UNSET
    leaves: Any = UNSET
    errors: list[RowError] | UnsetType = UNSET


class JobBody(Struct, forbid_unknown_fields=True):
    """A batch job with all of its rows."""

    model_id: Annotated[str, Meta(pattern=REFERENCE_PATTERN)]
    input_batch: Rows
    job_id: Id | UnsetType = UNSET
    outputs: Outputs | UnsetType = UNSET
    row_count: int | UnsetType = UNSET
    chunk_rows: int | UnsetType = UNSET
    deadline: int | UnsetType = UNSET
    labels: dict[str, str] | UnsetType = UNSET


class JobsAnswer(Struct):
    """Jobs by their ids; `after` the last one there may be more."""

    jobs: list[JobStatus]


class Live(Struct):
    """The event loop turns."""

    status: Literal["live"]


class Health(Struct):
    """Whether requests are being served, why not, and tenants that wait for rights on Kafka or for their topics."""

    status: Literal["healthy", "unhealthy"]
    reasons: list[str] = []
    waiting: list[WaitSnapshot] = []


class Form(Struct):
    """A model file with a manifest."""

    model: bytes
    manifest: Any = UNSET
