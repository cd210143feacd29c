"""Operations of `dead_letters`, for `/openapi.json`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from inferd.daemon.http.core import NotFoundError
from inferd.daemon.http.routes.dead_letters import (
    LISTED_DEFAULT,
    LISTED_MAX,
    DeadLetterDetails,
    DeadLettersAnswer,
)
from inferd.daemon.http.routes.operation import Operation, Parameter
from inferd.daemon.http.routes.operations import BUSY, READ, TENANT
from inferd.schemas.errors import InvalidValueError

LAST = Parameter(
    "last", "query", Annotated[int, Meta(ge=1, le=LISTED_MAX)], f"so many, the newest; default: {LISTED_DEFAULT}"
)
CODE = Parameter("code", "query", str, "only those with this error code")
PLACE = Parameter(
    "place", "path", Annotated[str, Meta(pattern="^[0-9]{1,9}:[0-9]{1,18}$")], "partition and offset: 2:17"
)

DEAD_LETTERS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/dead-letters",
        name="list_dead_letters",
        summary="List the newest dead letters, and why they were rejected.",
        roles=READ,
        answers={200: DeadLettersAnswer},
        parameters=(LAST, CODE, TENANT),
        errors=(*BUSY, InvalidValueError),
    ),
    Operation(
        method="get",
        path="/dead-letters/{place}",
        name="get_dead_letter",
        summary="Show a dead letter with its headers and its value.",
        roles=READ,
        answers={200: DeadLetterDetails},
        parameters=(PLACE, TENANT),
        errors=(*BUSY, InvalidValueError, NotFoundError),
    ),
)
