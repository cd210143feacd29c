"""The routes of all tenants, as their records say."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping

import structlog

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.headers import parse_headers
from inferd.schemas.limits import Limits
from inferd.schemas.routes import Route, decode_route, parse_route_key
from inferd.streams.inference import Record

log = structlog.get_logger(__name__)


class RouteTable:
    """The latest record of each route. The reader of the topic `routes` calls `apply` for each of its records."""

    def __init__(self, tenants: Collection[str], limits: Limits) -> None:
        self.routes: Mapping[str, dict[str, Route]] = {tenant: {} for tenant in tenants}
        """By tenant and name."""
        self.changed = asyncio.Event()
        """Set after every change."""
        self._limits = limits

    def apply(self, tenant: str, record: Record) -> None:
        """Applies a record; `InferenceError` if it is no route."""
        name = parse_route_key(record.key)
        if record.value is None:
            if self.routes[tenant].pop(name, None) is not None:
                log.info("route_removed", tenant=tenant, route=name)
                self.changed.set()
            return
        route = decode_route(record.value, self._limits, parse_headers(record.headers, self._limits).codec)
        if route.name != name:
            raise InvalidValueError(f"route {route.name[:80]!r}: its key is {name[:80]!r}")
        if self.routes[tenant].get(name) != route:
            self.routes[tenant][name] = route
            log.info("route_set", tenant=tenant, route=name, sources=route.source.topics, sink=route.sink.topic)
            self.changed.set()
