"""Wire types that decoders take apart, so that there is no type for the whole: results, chunk results, events."""

from __future__ import annotations

from typing import Any, Literal

from msgspec import UNSET, Struct, UnsetType

from inferd.schemas.open_inference import ErrorResponse, InferenceResponse
from inferd.schemas.requests import Id, Outputs, PredictionAnswer, Reference, RowError, Rows


class Request(Struct, forbid_unknown_fields=True):
    """A row, or rows, to score."""

    model_id: Reference
    input_data: Rows
    outputs: Outputs | UnsetType = UNSET
    id: Id | UnsetType = UNSET


class Fault(Struct):
    """A stable code, a message for people, and whether a retry may succeed."""

    code: str
    message: str
    retryable: bool


class FailureResult(Struct):
    """Why a request has no prediction; `model_id` is null if it could not be decoded."""

    id: str
    model_id: str | None
    error: Fault


class ChunkResultRecord(Struct):
    """The result of a chunk of a job: for each row a value in every list, or null there and an entry in `errors`."""

    job_id: str
    chunk: int
    first_row: int
    attempt: int
    version: int
    digest: str
    predictions: list[Any]
    errors: list[RowError]
    probabilities: list[Any] | UnsetType = UNSET
    raw: list[Any] | UnsetType = UNSET
    contributions: list[Any] | UnsetType = UNSET
    leaves: list[Any] | UnsetType = UNSET
    outputs: dict[str, list[Any]] | UnsetType = UNSET


class RequestEvent(Struct, kw_only=True):
    """A CloudEvent in structured mode whose data is a request; extension attributes are ignored."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: str
    subject: str | UnsetType = UNSET
    time: str | UnsetType = UNSET
    dataschema: str | UnsetType = UNSET
    datacontenttype: str | UnsetType = UNSET
    data: Any = UNSET
    data_base64: str | UnsetType = UNSET


class ResultEvent(Struct, kw_only=True):
    """A CloudEvent in structured mode whose data is a result."""

    specversion: Literal["1.0"]
    id: str
    source: str
    type: Literal["ai.inferd.prediction.v1", "ai.inferd.error.v1"]
    subject: str | UnsetType = UNSET
    time: str | UnsetType = UNSET
    relatedid: str | UnsetType = UNSET
    datacontenttype: str
    data: Any = UNSET
    data_base64: str | UnsetType = UNSET


RESULT = (PredictionAnswer, FailureResult)
PROTOCOL_RESPONSE = (InferenceResponse, ErrorResponse)
