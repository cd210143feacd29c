"""Routes beside each other: topics that they share, circles, and topics that no route may use. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from inferd.schemas.routes.route import Route

_INTERNAL = re.compile(r"__.*")
"""Topics of Kafka itself."""


def is_own(topic: str, namespace: str, group_id: str) -> bool:
    """Whether a topic is inferd's own, or Kafka's: no route may read or write it."""
    changelog = topic.startswith(f"{group_id}-") and topic.endswith("-changelog")
    return topic.startswith(f"{namespace}.") or changelog or _INTERNAL.fullmatch(topic) is not None


def own_topic_refusal(topic: str) -> str:
    """Why a route is refused whose source or sink is no topic of others."""
    return f"topic {topic} is inferd's or Kafka's own: a route reads and writes topics of others"


def in_order(routes: Mapping[str, Mapping[str, Route]]) -> list[tuple[str, Route]]:
    """All routes of all tenants with their tenants, in the order in which they were created, the same everywhere."""
    every = [(tenant, route) for tenant, of_tenant in routes.items() for route in of_tenant.values()]
    return sorted(every, key=lambda each: (each[1].created_at or "", each[0], each[1].name))


def conflict(route: Route, earlier: Sequence[Route]) -> str | None:
    """Why a route cannot run beside earlier ones of the consumer group; None if it can."""
    for other in earlier:
        if shared := sorted({*route.source.topics} & {*other.source.topics}):
            return f"topic {shared[0]} is read by the route {other.name}, and a group reads a topic once"
    return circle([*earlier, route], route)


def circle(routes: Sequence[Route], through: Route) -> str | None:
    """A circle of topics that a route closes: its output would become its input. None if there is none."""
    paths: list[tuple[str, ...]] = [(through.sink.topic,)]
    seen = {through.sink.topic}
    while paths:
        path = paths.pop()
        if path[-1] in through.source.topics:
            return (
                f"the topics {' -> '.join((*path, through.sink.topic))} are a circle: the route would read its output"
            )
        for route in routes:
            if path[-1] in route.source.topics and route.sink.topic not in seen:
                seen.add(route.sink.topic)
                paths.append((*path, route.sink.topic))
    return None
