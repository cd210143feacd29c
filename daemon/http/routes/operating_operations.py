"""Operations of `operating`, for `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from inferd.daemon.http.routes.operating import (
    PAUSABLE,
    RECORDS_MAX,
    REDRIVEN_DEFAULT,
    REDRIVEN_MAX,
    SINCE_S,
    SINCE_S_MAX,
    AuditAnswer,
    PausesAnswer,
    ResumedAnswer,
)
from inferd.daemon.http.routes.operation import Error, Operation, Parameter
from inferd.daemon.http.routes.operations import BUSY, CSRF_HEADER, OPERATE, READ, TENANT
from inferd.daemon.http.routes.services import PauseOverview
from inferd.schemas.errors import InvalidIdError, InvalidValueError, ModelNotFoundError
from inferd.schemas.models import PAUSE_REASON_CHARS_MAX, Paused
from inferd.schemas.redrive import RedriveReport
from inferd.schemas.requests import NAME_PATTERN
from inferd.schemas.routes import RouteNotFoundError

SINCE = Parameter(
    "since_s", "query", Annotated[int, Meta(ge=1, le=SINCE_S_MAX)], f"the last so many seconds; default: {SINCE_S}"
)
LIMIT = Parameter(
    "limit", "query", Annotated[int, Meta(ge=1, le=RECORDS_MAX)], "at most so many, the newest; default: 100"
)
CODE = Parameter("code", "query", str, "only dead letters with this error code")
REDRIVEN_SINCE = Parameter("since_s", "query", SINCE.type, "only those of the last so many seconds; default: all")
REDRIVEN_LIMIT = Parameter(
    "limit", "query", Annotated[int, Meta(ge=1, le=REDRIVEN_MAX)], f"at most so many; default: {REDRIVEN_DEFAULT}"
)
OF_ROUTE = Parameter(
    "route", "query", str, "those of this route, to its sources; default: those of the tenant's topics"
)
DRY_RUN = Parameter("dry_run", "query", Literal["true", "false"], "send nothing, and say how many would be sent")

NAME = Parameter("name", "path", Annotated[str, Meta(pattern=f"^{NAME_PATTERN}$")], "its name")
REASON = Parameter("reason", "query", Annotated[str, Meta(max_length=PAUSE_REASON_CHARS_MAX)], "why, for others")


def _pauses(kind: Paused) -> tuple[Operation, ...]:
    path, missing = f"/pauses/{kind}/{{name}}", {"model": ModelNotFoundError, "route": RouteNotFoundError}[kind]
    errors: tuple[Error, ...] = (*BUSY, InvalidIdError, InvalidValueError)
    return (
        Operation(
            method="post", path=path, name=f"pause_{kind}", roles=OPERATE,
            summary=f"Let the records of a {kind} wait.", answers={200: PauseOverview},
            parameters=(NAME, REASON, CSRF_HEADER, TENANT), errors=(*errors, missing),
        ),
        Operation(
            method="delete", path=path, name=f"resume_{kind}", roles=OPERATE,
            summary=f"Process the records of a {kind} again.", answers={200: ResumedAnswer},
            parameters=(NAME, TENANT), errors=errors,
        ),
    )  # fmt: skip


OPERATING: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/audit",
        name="list_audit",
        summary="List who changed what, newest first: deploys, aliases, rollouts, removals, jobs and offsets.",
        roles=READ,
        answers={200: AuditAnswer},
        parameters=(SINCE, LIMIT, TENANT),
        errors=(*BUSY, InvalidValueError),
    ),
    Operation(
        method="post",
        path="/dead-letters/redrive",
        name="redrive_dead_letters",
        summary="Send dead letters again to the partition that they were read from; each once. Repeat it until done.",
        roles=OPERATE,
        answers={200: RedriveReport},
        parameters=(CODE, REDRIVEN_SINCE, REDRIVEN_LIMIT, OF_ROUTE, DRY_RUN, CSRF_HEADER, TENANT),
        errors=(*BUSY, InvalidValueError, RouteNotFoundError),
    ),
    Operation(
        method="get",
        path="/pauses",
        name="list_pauses",
        summary="List the models and routes that are paused.",
        roles=READ,
        answers={200: PausesAnswer},
        parameters=(TENANT,),
        errors=BUSY,
    ),
    *(operation for kind in PAUSABLE for operation in _pauses(kind)),
)
