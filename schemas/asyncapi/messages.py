"""The messages of all topics: payload, headers, key and examples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from inferd.schemas import dead_letters
from inferd.schemas.asyncapi import types
from inferd.schemas.audit import AuditRecord
from inferd.schemas.capture import CapturedRequest
from inferd.schemas.cloud_events import REQUIRED
from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.headers import (
    ALIAS_REVISION,
    CLOUD_EVENT,
    CORRELATION_HEADERS,
    DEADLINE,
    JSON_LENGTH,
    OPEN_INFERENCE,
    RELATED_CLOUD_EVENT_ID,
    REPLY_TO,
    ROW_ERRORS,
    VARIANT,
)
from inferd.schemas.jobs import JOB_MESSAGES, Barrier, BarrierResult, Chunk, JobStatus
from inferd.schemas.labels import Label, ToLabel
from inferd.schemas.models import Alias, Manifest
from inferd.schemas.monitoring import Baseline, WindowStats
from inferd.schemas.open_inference import NamedRequest
from inferd.schemas.rollouts import MESSAGES as MESSAGES_OF_ROLLOUTS
from inferd.schemas.rollouts import RolloutStatus, StartRollout
from inferd.schemas.routes import Route
from inferd.schemas.shadow import ShadowResult

RECORD: Final = "record"
"""Content type of a message that is sent in any codec: the document has one message for each."""
BYTES: Final = "application/octet-stream"


@dataclass(frozen=True, slots=True)
class Header:
    """A record header; its value is text."""

    name: str
    meaning: str
    schema: Mapping[str, Any] = field(default_factory=dict)
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """An example of a payload, which a test decodes."""

    payload: Any
    name: str = "example"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Message:
    """One kind of record."""

    name: str
    summary: str
    payload: Any
    """The type of the value, or several; None: bytes that have no schema."""
    key: str
    """What the record key is."""
    key_pattern: str | None = None
    content_type: str = RECORD
    headers: Sequence[Header] = ()
    examples: Sequence[Example] = ()
    tombstone: bool = False
    """Whether a record without a value deletes the key."""


_NUMBER = {"type": "string", "pattern": "^[0-9]{1,15}$"}
_REQUEST_HEADERS = (
    Header(DEADLINE, "Unix milliseconds; after this time the request is not scored", _NUMBER),
    Header(REPLY_TO, "another topic for the result, if the worker allows it"),
)
_ROW_ERRORS = Header(ROW_ERRORS, "an invalid row fails alone", {"enum": ["true", "false"]})
_CORRELATION = tuple(Header(name, "is propagated to the result") for name in CORRELATION_HEADERS)
_EVENT_ID = Header("ce_id", f"is propagated to the result as {RELATED_CLOUD_EVENT_ID}")
_RELATED = Header(RELATED_CLOUD_EVENT_ID, "ce_id of the request")
_OF_ALIAS = (
    Header(ALIAS_REVISION, "the revision of the alias that chose the version, if the request names an alias", _NUMBER),
    Header(VARIANT, "whether that version has the largest share of the alias", {"enum": ["champion", "canary"]}),
)
_RESULT_HEADERS = (
    Header("inferd-worker", "the worker that scored it"),
    Header("inferd-queue-us", "microseconds between the request's timestamp and the start of scoring", _NUMBER),
    Header("inferd-infer-us", "microseconds of scoring", _NUMBER),
    *_OF_ALIAS,
    Header("inferd-cache", "whether all rows came from the prediction cache", {"enum": ["hit", "miss"]}),
)
_LENGTH = Header(JSON_LENGTH, "length of the JSON in bytes, if binary tensors follow it", _NUMBER)
_EVENT = tuple(Header(f"ce_{name}", "attribute of the CloudEvent", required=True) for name in REQUIRED)
_REQUEST_KEY, _RESULT_KEY = "any key, or none", "the key of the request"
_JOB_KEY, _CHUNK_KEY = "the job id", "<job id>/<chunk>"
_JOB_PATTERN = "^[A-Za-z0-9._:-]{1,64}$"
_ROW = {"age": 24, "plan": "basic", "calls": 1}
_TENSORS = [
    {"name": "age", "shape": [2], "datatype": "FP64", "data": [24.0, 41.0]},
    {"name": "plan", "shape": [2], "datatype": "BYTES", "data": ["basic", "pro"]},
]
_REQUEST = {"id": "r-1", "model_id": "churn@champion", "input_data": _ROW, "outputs": ["prediction", "probabilities"]}
_SHA256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_VERSION = {"model_id": "churn", "version": 3, "digest": _SHA256}
_PREDICTION = {"id": "r-1", **_VERSION, "prediction": 0.83, "probabilities": [0.17, 0.83]}
_FAILURE = {
    "id": "r-2",
    "model_id": "churn",
    "error": {"code": "schema_mismatch", "message": "row 0, features: missing 'age'", "retryable": False},
}
_STATUS = {
    "job_id": "j-1", "status": "completed", **_VERSION, "input_count": 2, "processed": 2, "succeeded": 2, "failed": 0,
    "chunks_total": 1, "chunks_done": 1, "submitted_at": 1767322800123, "started_at": 1767322800140,
    "updated_at": 1767322800200, "finished_at": 1767322800200,
}  # fmt: skip
_MANIFEST = {
    "model_id": "churn", "version": 3, "runtime": "lightgbm", "sha256": _SHA256, "size": 123456,
    "features": [{"name": "age"}, {"name": "plan", "dtype": "category", "categories": ["basic", "pro"]}],
}  # fmt: skip

REQUESTS: tuple[Message, ...] = (
    Message(
        name="request",
        summary="A prediction request.",
        payload=types.Request,
        key=_REQUEST_KEY,
        headers=(*_REQUEST_HEADERS, _ROW_ERRORS, *_CORRELATION, _EVENT_ID),
        examples=(Example(payload=_REQUEST), Example(payload={"model_id": "churn", "input_data": [[24, "basic", 1]]})),
    ),
    Message(
        name="requestOpenInference",
        summary="A request of the Open Inference Protocol V2; the headers may name the model, too.",
        payload=NamedRequest,
        key=_REQUEST_KEY,
        content_type=OPEN_INFERENCE,
        headers=(
            *_REQUEST_HEADERS,
            *_CORRELATION,
            Header("mlserver-model", "the model, unless model_name is there"),
            Header("mlserver-version", "its version"),
            _LENGTH,
        ),
        examples=(Example(payload={"model_name": "churn", "id": "q-1", "inputs": _TENSORS}),),
    ),
    Message(
        name="requestEvent",
        summary="A request in a CloudEvent in structured mode.",
        payload=types.RequestEvent,
        key=_REQUEST_KEY,
        content_type=CLOUD_EVENT,
        headers=(*_REQUEST_HEADERS, _ROW_ERRORS, *_CORRELATION),
        examples=(
            Example(
                payload={
                    "specversion": "1.0",
                    "id": "e-1",
                    "source": "/shop",
                    "type": "order.created",
                    "datacontenttype": JSON.content_type,
                    "data": _REQUEST,
                }
            ),
        ),
    ),
    Message(
        name="requestBinaryEvent",
        summary="A request in a CloudEvent in binary mode; the data may also be in MessagePack or of the Open Inference"
        " Protocol, by its content-type.",
        payload=types.Request,
        key=_REQUEST_KEY,
        content_type=JSON.content_type,
        headers=(*_EVENT, *_REQUEST_HEADERS, _ROW_ERRORS, *_CORRELATION),
        examples=(Example(payload=_REQUEST),),
    ),
)
RESULTS: tuple[Message, ...] = (
    Message(
        name="result",
        summary="A prediction, or a typed error.",
        payload=types.RESULT,
        key=_RESULT_KEY,
        headers=(*_RESULT_HEADERS, *_CORRELATION, _RELATED),
        examples=(Example(payload=_PREDICTION), Example(payload=_FAILURE, name="error")),
    ),
    Message(
        name="resultOpenInference",
        summary="A response or an error of the Open Inference Protocol V2.",
        payload=types.PROTOCOL_RESPONSE,
        key=_RESULT_KEY,
        content_type=OPEN_INFERENCE,
        headers=(*_RESULT_HEADERS, *_CORRELATION, _LENGTH),
        examples=(
            Example(
                payload={
                    "model_name": "churn",
                    "model_version": "3",
                    "id": "q-1",
                    "outputs": [{"name": "prediction", "shape": [2], "datatype": "FP64", "data": [0.83, 0.12]}],
                    "parameters": {"digest": _SHA256},
                }
            ),
            Example(payload={"error": "model_not_found: no model 'chrun'", "id": "q-1"}, name="error"),
        ),
    ),
    Message(
        name="resultEvent",
        summary="The result of a CloudEvent in structured mode.",
        payload=types.ResultEvent,
        key=_RESULT_KEY,
        content_type=CLOUD_EVENT,
        headers=(*_RESULT_HEADERS, *_CORRELATION),
        examples=(
            Example(
                payload={
                    "specversion": "1.0",
                    "id": "inferd.default.requests-0-17",
                    "source": "inferd",
                    "type": "ai.inferd.prediction.v1",
                    "subject": "churn",
                    "time": "2026-01-02T03:00:00.123Z",
                    "relatedid": "e-1",
                    "datacontenttype": JSON.content_type,
                    "data": _PREDICTION,
                }
            ),
        ),
    ),
    Message(
        name="resultBinaryEvent",
        summary="The result of a CloudEvent in binary mode; its data has the type of the request's.",
        payload=types.RESULT,
        key=_RESULT_KEY,
        content_type=JSON.content_type,
        headers=(
            *_EVENT,
            Header("ce_subject", "the name of the model"),
            Header("ce_time", "the timestamp of the request's record"),
            _RELATED,
            *_RESULT_HEADERS,
            *_CORRELATION,
        ),
        examples=(Example(payload=_PREDICTION),),
    ),
)
DEAD_LETTERS: tuple[Message, ...] = (
    Message(
        name="deadLetter",
        summary="A rejected record, byte for byte, with all of its headers and these.",
        payload=None,
        key="the key of the record",
        content_type=BYTES,
        headers=(
            *(
                Header(dead_letters.PREFIX + name, f"{name} of the error or of the record", required=True)
                for name in dead_letters.FIELDS
            ),
            Header(dead_letters.OMITTED, "parts that were too large for the topic, as JSON"),
        ),
    ),
)
_JOB_EXAMPLES: Mapping[str, Any] = {
    "open": {"type": "open", "model_id": "churn", "row_count": 2, "labels": {"team": "ops"}},
    "rows": {"type": "rows", "seq": 0, "input_batch": [[24, "basic", 1], [41, "pro", None]]},
    "close": {"type": "close", "message_count": 1},
    "submit": {"type": "submit", "model_id": "churn:3", "input_batch": [_ROW]},
    "cancel": {"type": "cancel"},
    "retry": {"type": "retry"},
}
_JOB_SUMMARIES = {
    "open": "Opens a job; its rows follow.",
    "rows": "Rows of a job; seq (0, 1, …) is their order.",
    "close": "States the number of rows messages of a job.",
    "submit": "A whole job in one message.",
    "cancel": "Cancels a job.",
    "retry": "Scores failed rows of a job again.",
}
JOBS: tuple[Message, ...] = tuple(
    Message(
        name=f"job{kind.capitalize()}",
        summary=_JOB_SUMMARIES[kind],
        payload=type_,
        key=_JOB_KEY,
        key_pattern=_JOB_PATTERN,
        headers=_CORRELATION,
        examples=(Example(payload=_JOB_EXAMPLES[kind]),),
    )
    for kind, type_ in JOB_MESSAGES.items()
)
JOB_STATUS: tuple[Message, ...] = (
    Message(
        name="jobStatus",
        summary="The latest status of a job.",
        payload=JobStatus,
        key=_JOB_KEY,
        key_pattern=_JOB_PATTERN,
        examples=(Example(payload=_STATUS),),
    ),
)
JOB_RESULTS: tuple[Message, ...] = (
    Message(
        name="chunkResult",
        summary="The result of a chunk, in any order.",
        payload=types.ChunkResultRecord,
        key=_JOB_KEY,
        key_pattern=_JOB_PATTERN,
        headers=(*_CORRELATION, *_OF_ALIAS),
        examples=(
            Example(
                payload={
                    "job_id": "j-1",
                    "chunk": 0,
                    "first_row": 0,
                    "attempt": 0,
                    "version": 3,
                    "digest": _SHA256,
                    "predictions": [0.83, None],
                    "errors": [{"row": 1, "code": "invalid_value", "message": "row 1, feature 'age' is text"}],
                }
            ),
        ),
    ),
    Message(
        name="barrierResult",
        summary="Internal: confirms that every record before a barrier is committed.",
        payload=BarrierResult,
        key=_JOB_KEY,
    ),
)
JOB_CHUNKS: tuple[Message, ...] = (
    Message(
        name="chunk",
        summary="Internal: rows of a job, and the model version that scores them.",
        payload=Chunk,
        key=_CHUNK_KEY,
        content_type=MSGPACK.content_type,
    ),
    Message(
        name="barrier",
        summary="Internal: sent to every partition when a job is cancelled.",
        payload=Barrier,
        key=_CHUNK_KEY,
        content_type=MSGPACK.content_type,
    ),
)
MODELS: tuple[Message, ...] = (
    Message(
        name="manifest",
        summary="A version of a model. Clients of inferd also write it as a claim or a lease, under other keys.",
        payload=Manifest,
        key="<model id>/<version>",
        tombstone=True,
        examples=(Example(payload=_MANIFEST),),
    ),
    Message(
        name="alias",
        summary="An alias after a change: target, revision and history. Of two changes of one revision the first in the"
        " log counts. Other programs may write a target alone, under the key `<model id>@<alias>`.",
        payload=Alias,
        key="<model id>@<alias>#<id>",
        tombstone=True,
        examples=(
            Example(
                payload={
                    "version": 3,
                    "revision": 2,
                    "changed_at": "2026-11-30T08:00:00.000+00:00",
                    "changed_by": "ana@laptop",
                    "history": [{"version": 2, "revision": 1}],
                }
            ),
            Example(payload={"version": 3}, name="targetAlone"),
            Example(payload={"split": [{"version": 3, "weight": 0.9}, {"version": 4, "weight": 0.1}]}, name="split"),
        ),
    ),
)
BASELINES: tuple[Message, ...] = (
    Message(
        name="baseline",
        summary="How the features and predictions of a version were distributed in training (`#baseline`), or among the"
        " first rows that were scored (`#learned`): histograms, no rows.",
        payload=Baseline,
        key="<model id>/<version>#baseline or #learned",
        tombstone=True,
        examples=(
            Example(
                payload={
                    "revision": 1796041129748,
                    "source": "given",
                    "rows": 400,
                    "features": {
                        "age": {
                            "kind": "number", "edges": [30.0, 45.0], "low": 18.0, "high": 90.0,
                            "counts": [100, 200, 95], "missing": 5,
                        },
                        "plan": {"kind": "category", "categories": ["a", "b"], "counts": [300, 100]},
                    },
                }
            ),
        ),
    ),
)  # fmt: skip
ARTIFACTS: tuple[Message, ...] = (
    Message(
        name="artifactPart",
        summary="A part of a model file, of at most 512 KiB.",
        payload=None,
        key="<sha256>/<part>",
        key_pattern="^[0-9a-f]{64}/(0|[1-9][0-9]{0,5})$",
        content_type=BYTES,
        tombstone=True,
    ),
)
ROUTES: tuple[Message, ...] = (
    Message(
        name="route",
        summary="A route: topics of another application that are scored in their own format, and the sink.",
        payload=Route,
        key="the name of the route",
        tombstone=True,
        examples=(
            Example(
                payload={
                    "name": "orders",
                    "source": {"topics": ["orders.v1"], "format": {"name": "json"}},
                    "model": "churn@champion",
                    "sink": {"topic": "orders.scored", "field": "churn"},
                    "features": {"age": "customer.age"},
                }
            ),
        ),
    ),
)
ROLLOUTS: tuple[Message, ...] = (
    Message(
        name="startRollout",
        summary="Starts a rollout.",
        payload=StartRollout,
        key="the model id",
        examples=(
            Example(
                payload={
                    "type": "start",
                    "id": "0" * 32,
                    "to": 4,
                    "steps": ["1%:30m", "10%:2h:1000", "100%"],
                    "guards": ["errors < 0.5%", "p99 < 1.5x"],
                }
            ),
        ),
    ),
    *(
        Message(name=f"{name}Rollout", summary=summary, payload=MESSAGES_OF_ROLLOUTS[name], key="the model id",
                examples=(Example(payload={"type": name, "id": "0" * 32}),))
        for name, summary in (
            ("pause", "Stays in the running step. Guards still roll back."),
            ("resume", "Resumes a paused rollout."),
            ("promote", "Gives all requests to the new version now, and ends."),
            ("abort", "Returns the alias to what it was before the start, and ends."),
        )
    ),
)  # fmt: skip
ROLLOUT_STATUS: tuple[Message, ...] = (
    Message(name="rolloutStatus", summary="The newest status of a rollout.", payload=RolloutStatus, key="the model id"),
)
AUDIT: tuple[Message, ...] = (
    Message(
        name="auditRecord",
        summary="An action that was accepted.",
        payload=AuditRecord,
        key="what was changed",
        content_type=JSON.content_type,
        examples=(
            Example(
                payload={
                    "at": 1_798_113_600_000,
                    "action": "alias",
                    "subject": "churn@champion",
                    "by": "ana@build-7",
                    "origin": "kafka inferd-client-5f0c",
                    "details": {"change": "set", "target": "4", "revision": "9"},
                }
            ),
        ),
    ),
)
MODEL_STATS: tuple[Message, ...] = (
    Message(
        name="windowStats",
        summary="What one version scored in a part of a minute. The records of a minute add up.",
        payload=WindowStats,
        key="the model id",
        content_type=MSGPACK.content_type,
    ),
)
LABELS: tuple[Message, ...] = (
    Message(
        name="label",
        summary="What was true of a request: a number or a class label; a list of them for a request of several rows.",
        payload=Label,
        key="the id of the request; any other key costs a copy to the partition of the id",
        examples=(Example(payload={"id": "r-1", "label": 1, "weight": 0.5}),),
    ),
)
TO_LABEL: tuple[Message, ...] = (
    Message(
        name="predictionToLabel",
        summary="The prediction for a request, which waits for its label.",
        payload=ToLabel,
        key="the id of the request",
        content_type=MSGPACK.content_type,
    ),
)
CAPTURE: tuple[Message, ...] = (
    Message(
        name="capturedRequest",
        summary="A request that a model has scored, with the values of its features as the model got them.",
        payload=CapturedRequest,
        key="the key of the request, else its id",
        content_type=MSGPACK.content_type,
        examples=(
            Example(
                payload={
                    "id": "r-1",
                    "model_id": "churn",
                    "version": 3,
                    "scored_at": 1_766_599_200_000,
                    "alias_revision": 7,
                    "variant": "champion",
                    "features": {"age": [24.0, None], "plan": ["basic", "pro"]},
                    "outputs": {"prediction": [0.25, 0.5]},
                }
            ),
        ),
    ),
)
SHADOW_RESULTS: tuple[Message, ...] = (
    Message(
        name="shadowResult",
        summary="What a shadow version says about a request, beside the answer of another version.",
        payload=ShadowResult,
        key=_RESULT_KEY,
        content_type=JSON.content_type,
        headers=(
            Header("inferd-worker", "the worker that scored it"),
            Header(ALIAS_REVISION, "the revision of the alias that names the shadow version", _NUMBER, required=True),
            Header(VARIANT, "always shadow", {"const": "shadow"}, required=True),
        ),
        examples=(
            Example(
                payload={
                    "id": "r-1", "model_id": "churn", "champion_version": 3, "shadow_version": 4,
                    "champion": {"prediction": 0.83}, "shadow": {"prediction": 0.41}, "differing_rows": 1,
                },
            ),
        ),
    ),
)  # fmt: skip
MESSAGES: tuple[Message, ...] = (
    *REQUESTS, *RESULTS, *DEAD_LETTERS, *JOBS, *JOB_STATUS, *JOB_RESULTS, *JOB_CHUNKS, *MODELS, *BASELINES, *ARTIFACTS,
    *ROUTES,
    *MODEL_STATS, *ROLLOUTS, *ROLLOUT_STATUS, *CAPTURE, *LABELS, *TO_LABEL, *SHADOW_RESULTS,
    *AUDIT,
)  # fmt: skip
"""All of them."""
