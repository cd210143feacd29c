"""Operations of `topics`, for `/openapi.json`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from inferd.daemon.http.core import NotFoundError
from inferd.daemon.http.routes.operation import Operation, Parameter
from inferd.daemon.http.routes.operations import BUSY, READ, TENANT
from inferd.daemon.http.routes.topics import (
    OFFSET_MAX,
    PAGE_DEFAULT,
    PAGE_MAX,
    PARTITION_MAX,
    TopicRecords,
    TopicsAnswer,
)
from inferd.schemas.errors import InvalidValueError

TOPIC = Parameter("topic", "path", str, "full name of a topic of the tenant, or of one of its routes")
PARTITION = Parameter("partition", "query", Annotated[int, Meta(ge=0, le=PARTITION_MAX)], "default: 0")
FROM = Parameter(
    "from", "query", Annotated[int, Meta(ge=0, le=OFFSET_MAX)], "first offset; default: the newest records"
)
LIMIT = Parameter(
    "limit", "query", Annotated[int, Meta(ge=1, le=PAGE_MAX)], f"at most so many; default: {PAGE_DEFAULT}"
)

TOPICS: tuple[Operation, ...] = (
    Operation(
        method="get",
        path="/topics",
        name="list_topics",
        summary="List the topics of the tenant and of its routes.",
        roles=READ,
        answers={200: TopicsAnswer},
        parameters=(TENANT,),
        errors=BUSY,
    ),
    Operation(
        method="get",
        path="/topics/{topic}/records",
        name="list_topic_records",
        summary="Show records of a partition: offset, time, key, headers and decoded value.",
        roles=READ,
        answers={200: TopicRecords},
        parameters=(TOPIC, PARTITION, FROM, LIMIT, TENANT),
        errors=(*BUSY, InvalidValueError, NotFoundError),
    ),
)
