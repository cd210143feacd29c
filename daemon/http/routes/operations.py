"""What each route takes and gives, for `/openapi.json`: types of the wire and classes of errors, no schemas."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from msgspec import Meta

from inferd.daemon.http.core import (
    CHALLENGE_CHARS_MAX,
    PEER_PATH,
    REFERENCE_PATTERN,
    REQUEST_HEADER,
    ForbiddenError,
    Form,
    Health,
    Id,
    JobBody,
    JobsAnswer,
    Live,
    NotAcceptableError,
    PeerProof,
    PredictionAnswer,
    PredictionBody,
    RequestTimeoutError,
    UnauthorizedError,
    UnavailableError,
)
from inferd.daemon.http.routes.jobs_formats import CSV, NDJSON, PARQUET
from inferd.daemon.http.routes.models import AliasAnswer, ModelsAnswer, RemovedAnswer
from inferd.daemon.http.routes.services import ModelOverview, ModelVersion
from inferd.daemon.telemetry import Status
from inferd.schemas.errors import (
    ChunkConflictError,
    DeadlineExceededError,
    InternalError,
    InvalidHeaderError,
    InvalidIdError,
    InvalidValueError,
    JobClosedError,
    JobConflictError,
    JobExpiredError,
    JobNotFoundError,
    MalformedError,
    ModelNotFoundError,
    ModelNotReadyError,
    ModelServingError,
    QuotaExceededError,
    SchemaMismatchError,
    TooDeepError,
    TooLargeError,
    UnsupportedContentTypeError,
    VersionNotFoundError,
)
from inferd.schemas.headers import DEADLINE_MS_MAX
from inferd.schemas.jobs import JobStatus, Phase
from inferd.schemas.models import Alias, Manifest, VersionExistsError, VersionInUseError
from inferd.schemas.requests import NAME_PATTERN

JSON, MSGPACK, BYTES = "application/json", "application/msgpack", "application/octet-stream"
Error = type[ModelServingError]


@dataclass(frozen=True, slots=True)
class Parameter:
    """A parameter of a query or header, or a part of the path."""

    name: str
    place: Literal["path", "query", "header"]
    type: Any
    meaning: str
    required: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Operation:
    """One method of one path."""

    method: str
    path: str
    name: str
    summary: str
    body: Mapping[str, Any] = field(default_factory=dict)
    """Types by media type."""
    answers: Mapping[int, Any] = field(default_factory=dict)
    """Types by status; a tuple: one of them; None: no JSON."""
    media_types: tuple[str, ...] = (JSON,)
    """Of answers that are no errors."""
    parameters: tuple[Parameter, ...] = ()
    errors: tuple[Error, ...] = ()
    open: bool = False
    """Whether nobody needs a token."""


MODEL = Parameter("model_id", "path", Annotated[str, Meta(pattern=REFERENCE_PATTERN)], "name, name:version, name@alias")
NAME = Parameter("model_id", "path", Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], "name of a model")
VERSION = Parameter("version", "path", Annotated[int, Meta(ge=1, le=999_999_999)], "number of a version")
ALIAS = Parameter("alias", "path", Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], "name of an alias")
JOB = Parameter("job_id", "path", Id, "id of a job")
TENANT = Parameter("inferd-tenant", "header", str, "the tenant, which is one of several")
NO_PAGE = Parameter(
    REQUEST_HEADER,
    "header",
    str,
    "any value: shows that no web page of another site sends the request, as content-type: application/json does",
    required=True,
)
DEADLINE = Parameter(
    "deadline",
    "header",
    Annotated[int, Meta(ge=0, le=DEADLINE_MS_MAX)],
    "Unix milliseconds; past it the request is not scored",
)
ROW_ERRORS = Parameter(
    "row_errors", "query", Literal["true", "false"], "a bad row of several fails alone, and is named in errors"
)
CORRELATION = Parameter("correlation-id", "header", str, "comes back with the answer")
CHALLENGE = Parameter(
    "challenge",
    "query",
    Annotated[str, Meta(min_length=1, max_length=CHALLENGE_CHARS_MAX)],
    "any text: the proof is made for it",
    required=True,
)
MANIFEST = Parameter("manifest", "query", str, "JSON: what is to be said beyond the model file")
DEPLOY_ALIAS = Parameter("alias", "query", ALIAS.type, "an alias to point at the version")
ALL = Parameter("all", "query", Literal["true", "false"], "remove all versions and aliases of the model")

MOVE_ALIASES = Parameter(
    "move_aliases_to", "query", VERSION.type, "the version that aliases of the removed version lead to from then on"
)

GUARDED: tuple[Error, ...] = (UnauthorizedError, ForbiddenError, InternalError)
BUSY: tuple[Error, ...] = (*GUARDED, InvalidHeaderError, QuotaExceededError, UnavailableError)
BODY: tuple[Error, ...] = (
    MalformedError,
    TooLargeError,
    TooDeepError,
    UnsupportedContentTypeError,
    RequestTimeoutError,
)
MODELS: tuple[Error, ...] = (*BUSY, InvalidIdError, ModelNotFoundError, VersionNotFoundError)
JOBS: tuple[Error, ...] = (*BUSY, InvalidIdError, JobNotFoundError)
VALUES: tuple[Error, ...] = (InvalidValueError, SchemaMismatchError)
JOB_ENDED: tuple[Error, ...] = (JobConflictError, JobClosedError, JobExpiredError)
OF_NDJSON = (
    Parameter("model", "query", Annotated[str, Meta(pattern=REFERENCE_PATTERN)], "of NDJSON: the model; it is needed"),
    Parameter("job_id", "query", Id, "of NDJSON: the id of the job; one is chosen where it is left out"),
    Parameter("outputs", "query", str, "of NDJSON: what to give for each row, with commas between"),
    Parameter("row_count", "query", Annotated[int, Meta(ge=0)], "of NDJSON: how many rows there must be"),
    Parameter("chunk_rows", "query", Annotated[int, Meta(ge=1)], "of NDJSON: rows of a chunk"),
    Parameter("deadline", "query", DEADLINE.type, "of NDJSON: Unix milliseconds at which all rows must be there"),
    Parameter("labels", "query", str, "of NDJSON: a JSON object of texts, which come back in the statuses"),
)
UPLOAD = {BYTES: bytes, "text/plain": bytes, "multipart/form-data": Form}


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post",
        path="/predict/{model_id}",
        name="predict",
        summary="Score a row, or rows. The answer is in the encoding of the body.",
        body={JSON: PredictionBody, MSGPACK: PredictionBody},
        answers={200: PredictionAnswer},
        media_types=(JSON, MSGPACK),
        parameters=(MODEL, TENANT, ROW_ERRORS, DEADLINE, CORRELATION),
        errors=(*MODELS, *BODY, *VALUES, ModelNotReadyError, DeadlineExceededError),
    ),
    Operation(
        method="get",
        path="/models",
        name="list_models",
        summary="Every model of the tenant, with its versions and aliases.",
        answers={200: ModelsAnswer},
        parameters=(TENANT,),
        errors=BUSY,
    ),
    Operation(
        method="get",
        path="/models/{model_id}",
        name="get_model",
        summary="A model; or, of name:version or name@alias, the version that it leads to.",
        answers={200: (ModelOverview, ModelVersion)},
        parameters=(MODEL, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="put",
        path="/models/{model_id}",
        name="deploy_model",
        summary="Deploy a model file as name:version, or as the next version of name unless it is there already.",
        body=UPLOAD,
        answers={200: Manifest, 201: Manifest},
        parameters=(MODEL, MANIFEST, DEPLOY_ALIAS, TENANT),
        errors=(*MODELS, *BODY, *VALUES, VersionExistsError),
    ),
    Operation(
        method="delete",
        path="/models/{model_id}",
        name="delete_model",
        summary="Remove name:version or name@alias; or, with all=true, the whole of name.",
        answers={200: RemovedAnswer},
        parameters=(MODEL, ALL, MOVE_ALIASES, TENANT),
        errors=(*MODELS, InvalidValueError, VersionInUseError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/versions/{version}",
        name="get_version",
        summary="A version: its manifest, and what this worker makes of it.",
        answers={200: ModelVersion},
        parameters=(NAME, VERSION, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="put",
        path="/models/{model_id}/versions/{version}",
        name="deploy_version",
        summary="Deploy a model file as a version. The same again changes nothing.",
        body=UPLOAD,
        answers={200: Manifest, 201: Manifest},
        parameters=(NAME, VERSION, MANIFEST, DEPLOY_ALIAS, TENANT),
        errors=(*MODELS, *BODY, *VALUES, VersionExistsError),
    ),
    Operation(
        method="delete",
        path="/models/{model_id}/versions/{version}",
        name="delete_version",
        summary="Remove a version. One that an alias leads to stays, unless its aliases are moved to another version.",
        answers={200: RemovedAnswer},
        parameters=(NAME, VERSION, MOVE_ALIASES, TENANT),
        errors=(*MODELS, InvalidValueError, VersionInUseError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/aliases/{alias}",
        name="get_alias",
        summary="The version that an alias leads to; of a split, the one with the largest share.",
        answers={200: ModelVersion},
        parameters=(NAME, ALIAS, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="put",
        path="/models/{model_id}/aliases/{alias}",
        name="set_alias",
        summary="Point an alias at a version, or split it among several.",
        body={JSON: Alias, MSGPACK: Alias},
        answers={200: AliasAnswer},
        parameters=(NAME, ALIAS, TENANT),
        errors=(*MODELS, *BODY, InvalidValueError),
    ),
    Operation(
        method="delete",
        path="/models/{model_id}/aliases/{alias}",
        name="delete_alias",
        summary="Remove an alias.",
        answers={200: RemovedAnswer},
        parameters=(NAME, ALIAS, TENANT),
        errors=(*MODELS, InvalidValueError),
    ),
    Operation(
        method="post",
        path="/jobs",
        name="submit_job",
        summary="Open a batch job with all of its rows, which may come as NDJSON, one a line; the same again gives the"
        " job that is there.",
        body={JSON: JobBody, MSGPACK: JobBody, NDJSON: bytes},
        answers={202: JobStatus},
        parameters=(*OF_NDJSON, TENANT),
        errors=(*MODELS, *BODY, *VALUES, *JOB_ENDED, ModelNotReadyError, ChunkConflictError),
    ),
    Operation(
        method="get",
        path="/jobs",
        name="list_jobs",
        summary="Jobs of the tenant by their ids, a page at a time.",
        answers={200: JobsAnswer},
        parameters=(
            Parameter("status", "query", Phase, "only jobs of this status"),
            Parameter("limit", "query", Annotated[int, Meta(ge=0, le=1_000)], "how many at most"),
            Parameter("after", "query", Id, "only jobs behind this id"),
            TENANT,
        ),
        errors=(*JOBS, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/jobs/{job_id}",
        name="get_job",
        summary="How a job stands.",
        answers={200: JobStatus},
        parameters=(JOB, TENANT),
        errors=JOBS,
    ),
    Operation(
        method="get",
        path="/jobs/{job_id}/results",
        name="get_job_results",
        summary="The outcome of every row, in row order: a line of JSON each, or CSV or Parquet, errors in columns.",
        answers={200: None},
        media_types=(NDJSON, CSV, PARQUET),
        parameters=(
            JOB,
            Parameter("from_row", "query", Annotated[int, Meta(ge=0, le=10**12)], "the first row, from 0"),
            TENANT,
        ),
        errors=(*JOBS, InvalidValueError, NotAcceptableError, JobConflictError, JobExpiredError),
    ),
    Operation(
        method="post",
        path="/jobs/{job_id}/cancel",
        name="cancel_job",
        summary="End a job; no result is published once its status is cancelled.",
        answers={202: JobStatus},
        parameters=(JOB, NO_PAGE, TENANT),
        errors=(*JOBS, JobClosedError, JobExpiredError),
    ),
    Operation(
        method="post",
        path="/jobs/{job_id}/retry",
        name="retry_job",
        summary="Score the rows again that failed.",
        answers={202: JobStatus},
        parameters=(JOB, NO_PAGE, TENANT),
        errors=(*JOBS, JobClosedError, JobConflictError, JobExpiredError),
    ),
    Operation(
        method="get",
        path="/livez",
        name="live",
        summary="Whether the event loop turns.",
        answers={200: Live},
        open=True,
    ),
    *(
        Operation(
            method="get",
            path=path,
            name=path.strip("/"),
            summary="Whether requests are being served; 503 lists what is not there yet.",
            answers={200: Health, 503: Health},
            open=True,
        )
        for path in ("/readyz", "/health")
    ),
    Operation(
        method="get",
        path=PEER_PATH,
        name="peer",
        summary="Prove to another worker that this one has the secret of the group.",
        answers={200: PeerProof},
        parameters=(
            Parameter(
                "challenge", "query", Annotated[str, Meta(min_length=1, max_length=200)], "any text", required=True
            ),
        ),
        errors=(InvalidValueError, InternalError),
        open=True,
    ),
    Operation(
        method="get",
        path="/status",
        name="status",
        summary="What the worker is doing.",
        answers={200: Status},
        errors=GUARDED,
    ),
    Operation(
        method="get",
        path="/metrics",
        name="metrics",
        summary="The same for Prometheus.",
        answers={200: None},
        media_types=("text/plain", "application/openmetrics-text"),
        errors=GUARDED,
    ),
    Operation(
        method="get",
        path="/",
        name="page",
        summary="The same for people.",
        answers={200: None},
        media_types=("text/html",),
        open=True,
    ),
    Operation(
        method="get",
        path="/openapi.json",
        name="openapi",
        summary="This description.",
        answers={200: None},
        errors=GUARDED,
    ),
)
"""Every operation there is; an application describes those that it has routes for."""
