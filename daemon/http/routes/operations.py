"""Parameters, bodies, responses and errors of each route, as Python types; `/openapi.json` is generated from them."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from inferd.daemon.http.core import (
    CHALLENGE_CHARS_MAX,
    PEER_PATH,
    REQUEST_HEADER,
    ROLES,
    ForbiddenError,
    Form,
    Health,
    JobBody,
    JobsAnswer,
    Live,
    NotAcceptableError,
    NotFoundError,
    PeerProof,
    RequestTimeoutError,
    Role,
    UnauthorizedError,
    UnavailableError,
)
from inferd.daemon.http.routes.callers import CallerAnswer
from inferd.daemon.http.routes.cluster import AFTER_MAX, ClusterAnswer, ClusterHistoryAnswer
from inferd.daemon.http.routes.jobs_formats import CSV, NDJSON, PARQUET
from inferd.daemon.http.routes.labels import LabelsAnswer, LabelsBody, QualityAnswer
from inferd.daemon.http.routes.models import AliasAnswer, AliasesAnswer, BaselineAnswer, ModelsAnswer, RemovedAnswer
from inferd.daemon.http.routes.monitoring import SINCE_S, SINCE_S_MAX, DriftAnswer, WindowsAnswer
from inferd.daemon.http.routes.operation import BYTES, RECORD, Error, Operation, Parameter, ResponseHeader
from inferd.daemon.http.routes.rollouts import RolloutsAnswer
from inferd.daemon.http.routes.routes import START_MS_MAX, RemovedRoute, RoutesAnswer
from inferd.daemon.http.routes.services import ModelOverview, ModelVersion, RolloutBody, RouteOverview
from inferd.daemon.telemetry import History, Status
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
    QuotaExceededError,
    SchemaMismatchError,
    TooDeepError,
    TooLargeError,
    UnsupportedContentTypeError,
    VersionNotFoundError,
)
from inferd.schemas.headers import ALIAS_REVISION, DEADLINE_MS_MAX, VARIANT
from inferd.schemas.jobs import JobStatus, Phase
from inferd.schemas.models import (
    AliasChangedError,
    AliasTarget,
    Manifest,
    NoEarlierTargetError,
    VersionExistsError,
    VersionInUseError,
)
from inferd.schemas.requests import (
    NAME_PATTERN,
    REFERENCE_PATTERN,
    Id,
    PredictionAnswer,
    PredictionBody,
)
from inferd.schemas.rollouts import GuardUnavailableError, RolloutConflictError, RolloutNotFoundError, RolloutStatus
from inferd.schemas.routes import Route, RouteExistsError, RouteNotFoundError

MODEL = Parameter("model_id", "path", Annotated[str, Meta(pattern=REFERENCE_PATTERN)], "name, name:version, name@alias")
NAME = Parameter("model_id", "path", Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], "model name")
VERSION = Parameter("version", "path", Annotated[int, Meta(ge=1, le=999_999_999)], "version number")
ALIAS = Parameter("alias", "path", Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], "alias name")
JOB = Parameter("job_id", "path", Id, "job id")
TENANT = Parameter("inferd-tenant", "header", str, "the tenant")
CSRF_HEADER = Parameter(
    REQUEST_HEADER,
    "header",
    str,
    "any value; protects against requests from web pages of other sites, as content-type: application/json does",
    required=True,
)
DEADLINE = Parameter(
    "deadline",
    "header",
    Annotated[int, Meta(ge=0, le=DEADLINE_MS_MAX)],
    "Unix milliseconds; after this time the request is not scored",
)
ROW_ERRORS = Parameter(
    "row_errors", "query", Literal["true", "false"], "an invalid row fails alone and is listed in errors"
)
CORRELATION = Parameter("correlation-id", "header", str, "is returned with the response")
CHALLENGE = Parameter(
    "challenge",
    "query",
    Annotated[str, Meta(min_length=1, max_length=CHALLENGE_CHARS_MAX)],
    "any string; the proof is valid for it alone",
    required=True,
)
MANIFEST = Parameter("manifest", "query", str, "JSON: manifest fields that the model file does not have")
DEPLOY_ALIAS = Parameter("alias", "query", ALIAS.type, "alias to point at the version")
ALL = Parameter("all", "query", Literal["true", "false"], "remove all versions and aliases of the model")
MOVE_ALIASES = Parameter(
    "move_aliases_to", "query", VERSION.type, "version that aliases of the removed version are moved to"
)
REVISION = Parameter(
    "revision",
    "query",
    Annotated[int, Meta(ge=0, le=10**15 - 1)],
    "the revision that the caller knows: fails with alias_changed if the alias has another one",
)
CHANGED_BY = Parameter("changed_by", "query", str, "who changes the alias, for its history; default: http")
PROMOTE_TO = Parameter("to", "query", ALIAS.type, "the alias to change", required=True)

ROUTE = Parameter("route", "path", Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], "route name")
START = Parameter(
    "start",
    "query",
    Literal["latest", "earliest"] | Annotated[int, Meta(ge=0, le=START_MS_MAX)],
    "where a new route begins to read: latest (default), earliest, or Unix milliseconds",
)

FORMATS = Parameter("formats", "query", Literal["true", "false"], "whether to list the model formats; default: true")
AFTER = Parameter(
    "after", "query", Annotated[int, Meta(ge=0, le=AFTER_MAX)], "only samples later than that, in Unix seconds"
)

OF_VERSION = Parameter("version", "query", VERSION.type, "only this version")
OF_OUTPUTS = Parameter("outputs", "query", str, "outputs of each row, separated by commas; default: prediction")
SINCE = Parameter(
    "since_s", "query", Annotated[int, Meta(ge=1, le=SINCE_S_MAX)], f"the last so many seconds; default: {SINCE_S}"
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
ROLLOUTS: tuple[Error, ...] = (*BUSY, InvalidIdError, RolloutNotFoundError)
ROUTES: tuple[Error, ...] = (*BUSY, InvalidIdError, RouteNotFoundError)
JOBS: tuple[Error, ...] = (*BUSY, InvalidIdError, JobNotFoundError)
VALUES: tuple[Error, ...] = (InvalidValueError, SchemaMismatchError)
JOB_ENDED: tuple[Error, ...] = (JobConflictError, JobClosedError, JobExpiredError)
NDJSON_PARAMETERS = (
    Parameter("model", "query", Annotated[str, Meta(pattern=REFERENCE_PATTERN)], "NDJSON only: the model (required)"),
    Parameter("job_id", "query", Id, "NDJSON only: the job id; generated if omitted"),
    Parameter("outputs", "query", str, "NDJSON only: outputs for each row, separated by commas"),
    Parameter("row_count", "query", Annotated[int, Meta(ge=0)], "NDJSON only: expected number of rows"),
    Parameter("chunk_rows", "query", Annotated[int, Meta(ge=1)], "NDJSON only: rows per chunk"),
    Parameter("deadline", "query", DEADLINE.type, "NDJSON only: Unix milliseconds by which all rows must have arrived"),
    Parameter("labels", "query", str, "NDJSON only: a JSON object of strings, included in the job's statuses"),
)
UPLOAD = {BYTES: bytes, "text/plain": bytes, "multipart/form-data": Form}


PREDICT: tuple[Role, ...] = ("predict",)
READ: tuple[Role, ...] = ("read",)
DEPLOY: tuple[Role, ...] = ("deploy",)
MONITOR: tuple[Role, ...] = ("monitor",)
OPERATE: tuple[Role, ...] = ("operate",)
PREDICT_OR_READ: tuple[Role, ...] = ("predict", "read")
PREDICT_OR_OPERATE: tuple[Role, ...] = ("predict", "operate")
DEPLOY_OR_OPERATE: tuple[Role, ...] = ("deploy", "operate")


OF_ALIAS = (
    ResponseHeader(
        ALIAS_REVISION,
        Annotated[str, Meta(pattern="^[0-9]{1,15}$")],
        "The revision of the alias that chose the version, if the request names an alias.",
    ),
    ResponseHeader(VARIANT, Literal["champion", "canary"], "Whether that version has the largest share of the alias."),
)
"""Headers of predictions and of errors of requests to an alias."""


OPERATIONS: tuple[Operation, ...] = (
    Operation(
        method="post",
        path="/predict/{model_id}",
        name="predict",
        summary="Score a row, or rows. The response has the encoding of the body.",
        roles=PREDICT,
        body={RECORD: PredictionBody},
        answers={200: PredictionAnswer},
        media_types=(RECORD,),
        parameters=(MODEL, TENANT, ROW_ERRORS, DEADLINE, CORRELATION),
        headers=OF_ALIAS,
        errors=(*MODELS, *BODY, *VALUES, ModelNotReadyError, DeadlineExceededError),
    ),
    Operation(
        method="get",
        path="/models",
        name="list_models",
        summary="List the tenant's models with their versions and aliases.",
        roles=READ,
        answers={200: ModelsAnswer},
        parameters=(TENANT,),
        errors=BUSY,
    ),
    Operation(
        method="get",
        path="/models/{model_id}",
        name="get_model",
        summary="Show a model; or, for name:version or name@alias, the version that it resolves to.",
        roles=READ,
        answers={200: (ModelOverview, ModelVersion)},
        parameters=(MODEL, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="put",
        path="/models/{model_id}",
        name="deploy_model",
        summary="Deploy a model file as name:version, or as the next version of name unless it is deployed already.",
        roles=DEPLOY,
        body=UPLOAD,
        answers={200: Manifest, 201: Manifest},
        parameters=(MODEL, MANIFEST, DEPLOY_ALIAS, TENANT),
        errors=(*MODELS, *BODY, *VALUES, VersionExistsError),
    ),
    Operation(
        method="delete",
        path="/models/{model_id}",
        name="delete_model",
        summary="Remove name:version or name@alias; or, with all=true, the whole model.",
        roles=DEPLOY,
        answers={200: RemovedAnswer},
        parameters=(MODEL, ALL, MOVE_ALIASES, TENANT),
        errors=(*MODELS, InvalidValueError, VersionInUseError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/versions/{version}",
        name="get_version",
        summary="Show a version: its manifest, and its state on this worker.",
        roles=READ,
        answers={200: ModelVersion},
        parameters=(NAME, VERSION, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="get",
        path="/models/{model_id}/versions/{version}/baseline",
        name="get_baseline",
        summary="Show how the features and predictions of a version were distributed: what drift is measured from.",
        roles=READ,
        answers={200: BaselineAnswer},
        parameters=(NAME, VERSION, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="put",
        path="/models/{model_id}/versions/{version}",
        name="deploy_version",
        summary="Deploy a model file as a version. Idempotent.",
        roles=DEPLOY,
        body=UPLOAD,
        answers={200: Manifest, 201: Manifest},
        parameters=(NAME, VERSION, MANIFEST, DEPLOY_ALIAS, TENANT),
        errors=(*MODELS, *BODY, *VALUES, VersionExistsError),
    ),
    Operation(
        method="delete",
        path="/models/{model_id}/versions/{version}",
        name="delete_version",
        summary="Remove a version. Rejected while an alias points at it, unless move_aliases_to is given.",
        roles=DEPLOY,
        answers={200: RemovedAnswer},
        parameters=(NAME, VERSION, MOVE_ALIASES, TENANT),
        errors=(*MODELS, InvalidValueError, VersionInUseError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/aliases/{alias}",
        name="get_alias",
        summary="Show the version that an alias points at; for a split, the one with the largest share.",
        roles=READ,
        answers={200: ModelVersion},
        parameters=(NAME, ALIAS, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="put",
        path="/models/{model_id}/aliases/{alias}",
        name="set_alias",
        summary="Point an alias at a version, or split it between several.",
        roles=DEPLOY,
        body={RECORD: AliasTarget},
        answers={200: AliasAnswer},
        parameters=(NAME, ALIAS, REVISION, CHANGED_BY, TENANT),
        errors=(*MODELS, *BODY, InvalidValueError, AliasChangedError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/aliases",
        name="list_aliases",
        summary="List the aliases of a model, with their history.",
        roles=READ,
        answers={200: AliasesAnswer},
        parameters=(NAME, TENANT),
        errors=MODELS,
    ),
    Operation(
        method="post",
        path="/models/{model_id}/aliases/{alias}/rollback",
        name="rollback_alias",
        summary="Point an alias at what it pointed at before its last change; again, before the one before that.",
        roles=DEPLOY_OR_OPERATE,
        answers={200: AliasAnswer},
        parameters=(NAME, ALIAS, REVISION, CHANGED_BY, CSRF_HEADER, TENANT),
        errors=(*MODELS, InvalidValueError, AliasChangedError, NoEarlierTargetError),
    ),
    Operation(
        method="post",
        path="/models/{model_id}/aliases/{alias}/promote",
        name="promote_alias",
        summary="Point another alias at what an alias points at.",
        roles=DEPLOY,
        answers={200: AliasAnswer},
        parameters=(NAME, ALIAS, PROMOTE_TO, REVISION, CHANGED_BY, CSRF_HEADER, TENANT),
        errors=(*MODELS, InvalidValueError, AliasChangedError),
    ),
    Operation(
        method="delete",
        path="/models/{model_id}/aliases/{alias}",
        name="delete_alias",
        summary="Remove an alias.",
        roles=DEPLOY,
        answers={200: RemovedAnswer},
        parameters=(NAME, ALIAS, TENANT),
        errors=(*MODELS, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/windows",
        name="list_windows",
        summary="List what the versions of a model scored, minute by minute.",
        roles=READ,
        answers={200: WindowsAnswer},
        parameters=(NAME, OF_VERSION, SINCE, TENANT),
        errors=(*MODELS, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/drift",
        name="get_drift",
        summary="Show how far what versions scored is from their baselines; the feature that drifted most is first.",
        roles=READ,
        answers={200: DriftAnswer},
        parameters=(NAME, OF_VERSION, SINCE, TENANT),
        errors=(*MODELS, InvalidValueError),
    ),
    Operation(
        method="post",
        path="/labels",
        name="send_labels",
        summary="Send what was true of requests, by their ids: all labels or, if one is invalid, none.",
        roles=PREDICT,
        body={RECORD: LabelsBody},
        answers={202: LabelsAnswer},
        parameters=(TENANT,),
        errors=(*BUSY, *BODY, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/quality",
        name="get_quality",
        summary="Show how good the predictions of a model's versions were, by the labels that have come.",
        roles=READ,
        answers={200: QualityAnswer},
        parameters=(NAME, OF_VERSION, SINCE, TENANT),
        errors=(*MODELS, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/models/{model_id}/captured",
        name="list_captured",
        summary="Stream captured requests, a line for each of their rows, with features and outputs.",
        roles=READ,
        answers={200: None},
        media_types=(NDJSON,),
        parameters=(NAME, OF_VERSION, SINCE, OF_OUTPUTS, TENANT),
        errors=(*MODELS, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/rollouts",
        name="list_rollouts",
        summary="List the newest rollout of each model.",
        roles=READ,
        answers={200: RolloutsAnswer},
        parameters=(TENANT,),
        errors=BUSY,
    ),
    Operation(
        method="get",
        path="/rollouts/{model_id}",
        name="get_rollout",
        summary="Show the newest rollout of a model.",
        roles=READ,
        answers={200: RolloutStatus},
        parameters=(NAME, TENANT),
        errors=ROLLOUTS,
    ),
    Operation(
        method="post",
        path="/rollouts/{model_id}",
        name="start_rollout",
        summary="Roll out a version step by step, and back if a guard is breached.",
        roles=DEPLOY,
        body={RECORD: RolloutBody},
        answers={202: RolloutStatus},
        parameters=(NAME, CHANGED_BY, TENANT),
        errors=(*MODELS, *BODY, InvalidValueError, AliasChangedError, RolloutConflictError, GuardUnavailableError),
    ),
    *(
        Operation(
            method="post",
            path=f"/rollouts/{{model_id}}/{action}",
            name=f"{action}_rollout",
            summary=summary,
            roles=DEPLOY if action == "promote" else DEPLOY_OR_OPERATE,
            answers={202: RolloutStatus},
            parameters=(NAME, CHANGED_BY, CSRF_HEADER, TENANT),
            errors=(*ROLLOUTS, InvalidValueError, RolloutConflictError),
        )
        for action, summary in (
            ("pause", "Stay in the running step; guards still roll back."),
            ("resume", "Go on after a pause."),
            ("promote", "Give all requests to the new version now, and end the rollout."),
            ("abort", "Return the alias to what it was before the start, and end the rollout."),
        )
    ),
    Operation(
        method="get",
        path="/routes",
        name="list_routes",
        summary="List the tenant's routes, with their state on this worker.",
        roles=READ,
        answers={200: RoutesAnswer},
        parameters=(TENANT,),
        errors=BUSY,
    ),
    Operation(
        method="get",
        path="/routes/{route}",
        name="get_route",
        summary="Show a route, with its state on this worker.",
        roles=READ,
        answers={200: RouteOverview},
        parameters=(ROUTE, TENANT),
        errors=ROUTES,
    ),
    Operation(
        method="put",
        path="/routes/{route}",
        name="put_route",
        summary="Create a route, or change the one of this name, which continues at its committed offsets.",
        roles=DEPLOY,
        body={RECORD: Route},
        answers={200: RouteOverview, 201: RouteOverview},
        parameters=(ROUTE, START, TENANT),
        errors=(*ROUTES, *BODY, *VALUES, ModelNotFoundError, VersionNotFoundError, RouteExistsError),
    ),
    Operation(
        method="delete",
        path="/routes/{route}",
        name="delete_route",
        summary="Remove a route; workers stop processing it.",
        roles=DEPLOY,
        answers={200: RemovedRoute},
        parameters=(ROUTE, TENANT),
        errors=ROUTES,
    ),
    Operation(
        method="post",
        path="/jobs",
        name="submit_job",
        summary="Submit a batch job with all its rows, optionally as NDJSON with one row per line. Idempotent for a"
        " given job_id.",
        roles=PREDICT,
        body={RECORD: JobBody, NDJSON: bytes},
        answers={202: JobStatus},
        parameters=(*NDJSON_PARAMETERS, TENANT),
        errors=(*MODELS, *BODY, *VALUES, *JOB_ENDED, ModelNotReadyError, ChunkConflictError),
    ),
    Operation(
        method="get",
        path="/jobs",
        name="list_jobs",
        summary="List the tenant's jobs by id, one page.",
        roles=READ,
        answers={200: JobsAnswer},
        parameters=(
            Parameter("status", "query", Phase, "only jobs with this status"),
            Parameter("limit", "query", Annotated[int, Meta(ge=0, le=1_000)], "maximum number of jobs"),
            Parameter("after", "query", Id, "only jobs after this id"),
            TENANT,
        ),
        errors=(*JOBS, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/jobs/{job_id}",
        name="get_job",
        summary="Show a job's status.",
        roles=PREDICT_OR_READ,
        answers={200: JobStatus},
        parameters=(JOB, TENANT),
        errors=JOBS,
    ),
    Operation(
        method="get",
        path="/jobs/{job_id}/results",
        name="get_job_results",
        summary="Stream the result of every row, in row order, as NDJSON, CSV or Parquet.",
        roles=PREDICT_OR_READ,
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
        summary="Cancel a job; no result is published once its status is cancelled.",
        roles=PREDICT_OR_OPERATE,
        answers={202: JobStatus},
        parameters=(JOB, CSRF_HEADER, TENANT),
        errors=(*JOBS, JobClosedError, JobExpiredError),
    ),
    Operation(
        method="post",
        path="/jobs/{job_id}/retry",
        name="retry_job",
        summary="Score the failed rows again.",
        roles=PREDICT_OR_OPERATE,
        answers={202: JobStatus},
        parameters=(JOB, CSRF_HEADER, TENANT),
        errors=(*JOBS, JobClosedError, JobConflictError, JobExpiredError),
    ),
    Operation(
        method="get",
        path="/livez",
        name="live",
        summary="Whether the event loop is running.",
        roles=ROLES,
        answers={200: Live},
        public=True,
    ),
    *(
        Operation(
            method="get",
            path=path,
            name=path.strip("/"),
            summary="Whether the worker serves requests; 503 lists the reasons why not.",
            roles=ROLES,
            answers={200: Health, 503: Health},
            public=True,
        )
        for path in ("/readyz", "/health")
    ),
    Operation(
        method="get",
        path=PEER_PATH,
        name="peer",
        summary="Prove to another worker that this one has the group's secret.",
        roles=ROLES,
        answers={200: PeerProof},
        parameters=(CHALLENGE,),
        errors=(InvalidValueError, InternalError),
        public=True,
    ),
    Operation(
        method="get",
        path="/status",
        name="status",
        summary="The worker's status.",
        roles=MONITOR,
        answers={200: Status},
        parameters=(FORMATS,),
        errors=GUARDED,
    ),
    Operation(
        method="get",
        path="/history",
        name="history",
        summary="What the worker did in the last hour, in steps of five seconds.",
        roles=MONITOR,
        answers={200: History},
        parameters=(AFTER,),
        errors=(*GUARDED, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/cluster",
        name="cluster",
        summary="The status of every worker of the group; or, of one that does not answer, why.",
        roles=MONITOR,
        answers={200: ClusterAnswer},
        errors=GUARDED,
    ),
    Operation(
        method="get",
        path="/cluster/history",
        name="cluster_history",
        summary="The history of every worker of the group.",
        roles=MONITOR,
        answers={200: ClusterHistoryAnswer},
        parameters=(AFTER,),
        errors=(*GUARDED, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/whoami",
        name="whoami",
        summary="The name, tenants and roles of the caller's token.",
        roles=ROLES,
        answers={200: CallerAnswer},
        errors=GUARDED,
    ),
    Operation(
        method="get",
        path="/metrics",
        name="metrics",
        summary="Metrics for Prometheus.",
        roles=MONITOR,
        answers={200: None},
        media_types=("text/plain", "application/openmetrics-text"),
        errors=GUARDED,
    ),
    Operation(
        method="get",
        path="/",
        name="page",
        summary="A web page for operators; it reads its data from the other routes.",
        roles=ROLES,
        answers={200: None},
        media_types=("text/html",),
        public=True,
    ),
    Operation(
        method="get",
        path="/page/{file}",
        name="page_file",
        summary="A file of the web page.",
        roles=ROLES,
        answers={200: None},
        media_types=("text/css", "text/javascript"),
        parameters=(Parameter("file", "path", str, "name of the file"),),
        errors=(NotFoundError, UnauthorizedError, ForbiddenError),
        public=True,
    ),
    Operation(
        method="get",
        path="/openapi.json",
        name="openapi",
        summary="This document.",
        roles=ROLES,
        answers={200: None},
        errors=GUARDED,
    ),
    Operation(
        method="get",
        path="/asyncapi.json",
        name="asyncapi",
        summary="The AsyncAPI 3 document of the topics on Kafka, and of the routes.",
        roles=ROLES,
        answers={200: None},
        errors=GUARDED,
    ),
)
"""All operations; an application describes those that it has routes for."""
