"""Operations of `operating`, for `/openapi.json`."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from inferd.daemon.http.routes.operating import (
    RECORDS_MAX,
    REDRIVEN_DEFAULT,
    REDRIVEN_MAX,
    SINCE_S,
    SINCE_S_MAX,
    AuditAnswer,
)
from inferd.daemon.http.routes.operation import Operation, Parameter
from inferd.daemon.http.routes.operations import BUSY, CSRF_HEADER, OPERATE, READ, TENANT
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.redrive import RedriveReport
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
)
