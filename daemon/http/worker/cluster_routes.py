"""Backend of the routes of routes in a worker: reads and writes the tenant's topic through a client."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Literal

import structlog

from inferd.daemon.http.routes import RouteOverview
from inferd.daemon.http.worker.cluster_models import ClusterModels
from inferd.daemon.route_schemas import check_route_schemas
from inferd.daemon.settings import Settings
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.routes import Route, RouteNotFoundError
from inferd.streams.routes import topics_refusal
from inferd.streams.telemetry import RouteSnapshot, StreamsSnapshot

log = structlog.get_logger(__name__)


class ClusterRoutes:
    """`Routes` of a worker's tenants, through the clients of `ClusterModels`."""

    def __init__(
        self, settings: Settings, models: ClusterModels, snapshot: Callable[[], StreamsSnapshot | None]
    ) -> None:
        """`snapshot` has the state of each route on this worker."""
        self._settings, self._models, self._snapshot = settings, models, snapshot

    async def list_routes(self, tenant: str) -> Sequence[RouteOverview]:
        """See `Routes`."""
        async with self._models.client(tenant) as client:
            routes = await client.routes()
        return [self._overview(tenant, route) for route in routes]

    async def show_route(self, tenant: str, name: str) -> RouteOverview:
        """See `Routes`."""
        for overview in await self.list_routes(tenant):
            if overview.route.name == name:
                return overview
        raise RouteNotFoundError(f"there is no route {name!r}: GET /routes lists all routes")

    async def put_route(
        self, tenant: str, route: Route, start: Literal["latest", "earliest"] | datetime
    ) -> tuple[bool, RouteOverview]:
        """See `Routes`."""
        from inferd.streams.routes.formats import format_named

        format_named(route.source.format.name).check(route)
        if (refusal := topics_refusal(route, tenant, self._settings.streams())) is not None:
            raise InvalidValueError(refusal)
        async with self._models.client(tenant) as client:
            for unchecked in await check_route_schemas(client, self._settings.schema_registry(), route):
                log.warning("route_schemas_unchecked", tenant=tenant, route=route.name, reason=unchecked)
            present = {each.name for each in await client.routes()}
            created = await client.create_route(route, start=start, replace=True)
        log.info("route_put", tenant=tenant, route=route.name, created=route.name not in present)
        return route.name not in present, self._overview(tenant, created)

    async def remove_route(self, tenant: str, name: str) -> None:
        """See `Routes`."""
        async with self._models.client(tenant) as client:
            await client.remove_route(name)

    def _overview(self, tenant: str, route: Route) -> RouteOverview:
        snapshot = self._snapshot()
        states: Sequence[RouteSnapshot] = () if snapshot is None else snapshot.routes
        found = next((each for each in states if (each.tenant, each.route) == (tenant, route.name)), None)
        return RouteOverview(
            route=route, state=None if found is None else found.state, reason=None if found is None else found.reason
        )
