"""The operations of the Open Inference Protocol, as `operations` has the others."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from msgspec import Meta

from inferd.daemon.http.core import ROLES, Health, Role
from inferd.daemon.http.routes.operation import BYTES, JSON, Error, Operation, Parameter
from inferd.daemon.http.routes.operations import (
    BODY,
    BUSY,
    CSRF_HEADER,
    DEADLINE,
    MODELS,
    OF_ALIAS,
    PREDICT,
    PREDICT_OR_READ,
    TENANT,
    VALUES,
)
from inferd.schemas.errors import DeadlineExceededError, InternalError, ModelNotReadyError
from inferd.schemas.headers import JSON_LENGTH
from inferd.schemas.open_inference import (
    IndexRequest,
    InferenceRequest,
    InferenceResponse,
    Live,
    ModelMetadata,
    ModelReady,
    ProtocolError,
    RepositoryModel,
    ServerMetadata,
)
from inferd.schemas.requests import NAME_PATTERN, REFERENCE_PATTERN

MODEL = Parameter("model_id", "path", Annotated[str, Meta(pattern=REFERENCE_PATTERN)], "name")
VERSION = Parameter(
    "version", "path", Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], "a version number, or an alias"
)
BINARY = Parameter(
    JSON_LENGTH, "header", Annotated[int, Meta(ge=0)], "length of the JSON of the body, which binary tensors follow"
)


def _operation(
    method: str,
    path: str,
    name: str,
    summary: str,
    answers: Mapping[int, Any],
    *,
    roles: tuple[Role, ...] = PREDICT_OR_READ,
    parameters: tuple[Parameter, ...] = (),
    errors: tuple[Error, ...] = (),
    **more: Any,
) -> Operation:
    return Operation(
        method=method,
        path=f"/v2{path}",
        name=f"v2_{name}",
        summary=summary,
        answers=answers,
        roles=roles,
        parameters=parameters,
        errors=errors,
        error_body=ProtocolError,
        **more,
    )


def _of_version(path: str, name: str, *parameters: Parameter) -> tuple[Operation, ...]:
    tenant, version_errors = (MODEL, *parameters, TENANT), (*MODELS, *VALUES)
    return (
        _operation(
            "get",
            path,
            name,
            "Inputs and default output of a version.",
            {200: ModelMetadata},
            parameters=tenant,
            errors=version_errors,
        ),
        _operation(
            "get",
            f"{path}/ready",
            f"{name}_ready",
            "Whether a version answers requests; 400 if not.",
            {200: ModelReady},
            parameters=tenant,
            errors=version_errors,
        ),
        _operation(
            "post",
            f"{path}/infer",
            f"{name}_infer",
            "Score rows: one matrix of all features, or one tensor for each feature.",
            {200: InferenceResponse},
            roles=PREDICT,
            parameters=(*tenant, DEADLINE, BINARY),
            errors=(*version_errors, *BODY, ModelNotReadyError, DeadlineExceededError),
            body={JSON: InferenceRequest, BYTES: bytes},
            headers=OF_ALIAS,
            media_types=(JSON, BYTES),
        ),
    )


OPEN_INFERENCE: tuple[Operation, ...] = (
    _operation("get", "", "server", "The server and its extensions.", {200: ServerMetadata}, roles=ROLES, errors=BUSY),
    _operation("get", "/health/live", "live", "Whether the event loop is running.", {200: Live}, public=True),
    _operation(
        "get",
        "/health/ready",
        "ready",
        "Whether the worker serves requests; 503 lists the reasons why not.",
        {200: Health, 503: Health},
        public=True,
    ),
    *_of_version("/models/{model_id}", "model"),
    *_of_version("/models/{model_id}/versions/{version}", "version", VERSION),
    _operation(
        "post",
        "/repository/index",
        "index",
        "All versions with their states.",
        {200: list[RepositoryModel]},
        parameters=(CSRF_HEADER, TENANT),
        errors=(*BUSY, *BODY, *VALUES),
        body={JSON: IndexRequest},
    ),
    _operation(
        "post",
        "/repository/models/{model_id}/load",
        "load",
        "Succeeds if a model answers requests: workers load models by themselves.",
        {200: dict[str, str]},
        parameters=(MODEL, CSRF_HEADER, TENANT),
        errors=(*MODELS, ModelNotReadyError),
    ),
    _operation(
        "post",
        "/repository/models/{model_id}/unload",
        "unload",
        "Is rejected: workers unload models by themselves.",
        {},
        parameters=(MODEL, CSRF_HEADER, TENANT),
        errors=(*MODELS, *VALUES, InternalError),
    ),
)
"""All of them."""
