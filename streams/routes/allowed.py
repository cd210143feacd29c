"""Which topics the settings of a worker allow the routes of a tenant to read and write."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase

from inferd.schemas.routes import Route, is_own, own_topic_refusal
from inferd.streams.settings import StreamSettings


def patterns_of(items: Iterable[str], tenant: str, tenants: Collection[str]) -> list[str]:
    """The patterns of a tenant among those of a setting. One without a tenant is for the only tenant."""
    patterns = []
    for item in items:
        owner, equals, pattern = item.rpartition("=")
        if owner == tenant or (not equals and len(tenants) == 1):
            patterns.append(pattern)
    return patterns


def is_allowed(topic: str, patterns: Iterable[str]) -> bool:
    """Whether one of the patterns matches; `*` stands for any characters."""
    return any(fnmatchcase(topic, pattern) for pattern in patterns)


def topics_refusal(route: Route, tenant: str, settings: StreamSettings) -> str | None:
    """Why this worker may not read or write the topics of a route; None if it may."""
    sinks = patterns_of(settings.routes.sinks, tenant, settings.tenants)
    sources = patterns_of(settings.routes.sources, tenant, settings.tenants)
    wanted = [(topic, sources, "INFERD_ROUTES_SOURCES") for topic in route.source.topics]
    for topic, patterns, setting in [*wanted, (route.sink.topic, sinks, "INFERD_ROUTES_SINKS")]:
        if is_own(topic, settings.namespace, settings.group.group_id):
            return own_topic_refusal(topic)
        if not is_allowed(topic, patterns):
            return f"{setting} of the worker does not allow topic {topic} for tenant {tenant}"
    return None
