"""Operations of `operating`, for `/openapi.json`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from inferd.daemon.http.routes.operating import RECORDS_MAX, SINCE_S, SINCE_S_MAX, AuditAnswer
from inferd.daemon.http.routes.operation import Operation, Parameter
from inferd.daemon.http.routes.operations import BUSY, READ, TENANT
from inferd.schemas.errors import InvalidValueError

SINCE = Parameter(
    "since_s", "query", Annotated[int, Meta(ge=1, le=SINCE_S_MAX)], f"the last so many seconds; default: {SINCE_S}"
)
LIMIT = Parameter(
    "limit", "query", Annotated[int, Meta(ge=1, le=RECORDS_MAX)], "at most so many, the newest; default: 100"
)
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
)
