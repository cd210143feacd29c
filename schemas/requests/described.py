"""The wire form of requests and results as types, from which OpenAPI and AsyncAPI documents are generated."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Meta, Struct, UnsetType

from inferd.schemas.requests.request import (
    ID_PATTERN,
    NAME_PATTERN,
    OUTPUT_CHARS_MAX,
    OUTPUTS,
    OUTPUTS_MAX,
    Output,
    Scalar,
)
from inferd.schemas.requests.result import RowError

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
Reference = Annotated[str, Meta(pattern=REFERENCE_PATTERN)]
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
