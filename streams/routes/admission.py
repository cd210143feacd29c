"""Which routes may run in a worker, whatever the state of the broker; and the rights on Kafka that each one needs."""

from __future__ import annotations

from collections.abc import Sequence

from aiokafka import TopicPartition

from inferd.schemas.errors import InferenceError
from inferd.schemas.routes import Route, conflict
from inferd.streams.kafka import Operation, Right
from inferd.streams.routes.allowed import topics_refusal
from inferd.streams.routes.formats import format_named
from inferd.streams.routes.plan import outputs_of
from inferd.streams.settings import StreamSettings

RouteKey = tuple[str, str]
"""Tenant, and name of a route."""


def admit(
    routes: Sequence[tuple[str, Route]], settings: StreamSettings
) -> tuple[dict[RouteKey, Route], dict[RouteKey, str]]:
    """The routes that may run, and why each of the others may not. `routes`: with their tenants, the earliest first."""
    admitted: dict[RouteKey, Route] = {}
    refused: dict[RouteKey, str] = {}
    for tenant, route in routes:
        key = tenant, route.name
        if (reason := _refusal(tenant, route, list(admitted.values()), settings)) is None:
            admitted[key] = route
        else:
            refused[key] = reason
    return admitted, refused


def _refusal(tenant: str, route: Route, earlier: Sequence[Route], settings: StreamSettings) -> str | None:
    try:
        format_named(route.source.format.name).check(route)
        outputs_of(route)
    except InferenceError as error:
        return error.message
    return topics_refusal(route, tenant, settings) or conflict(route, earlier)


def route_unit(tp: TopicPartition) -> str:
    """The end of the transactional id of a source's partition. Topics of others may have names like ours."""
    return f"routes/{tp.topic}-{tp.partition}"


def route_rights(tenant: str, route: Route, settings: StreamSettings) -> list[Right]:
    """The rights that a worker needs for a route. Of transactional ids, those of one partition stand for all."""
    wanted: list[tuple[Operation, str]] = [("DESCRIBE", route.sink.topic), ("WRITE", route.sink.topic)]
    for topic in route.source.topics:
        wanted += [("DESCRIBE", topic), ("READ", topic)]
    rights = [Right(operation, "topic", topic, tenant) for operation, topic in wanted]
    if settings.processing_guarantee == "exactly_once":
        operations: tuple[Operation, ...] = ("DESCRIBE", "WRITE")
        for topic in route.source.topics:
            name = f"{settings.group.group_id}-{route_unit(TopicPartition(topic, 0))}"
            rights += [Right(operation, "transactional-id", name, tenant) for operation in operations]
    return rights
