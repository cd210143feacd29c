"""`/routes…`: the routes of a tenant. A change at one worker reaches all workers."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from http import HTTPStatus
from typing import Literal

import msgspec
from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import LIMITS, codec_of_request, json_response, read_body, tenant_of
from inferd.daemon.http.routes.services import RouteOverview, Routes
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.routes import check_route_name, decode_route

ROUTES: web.AppKey[Routes] = web.AppKey("routes", Routes)
START_MS_MAX = 253_402_300_799_999


class RoutesAnswer(Struct, frozen=True):
    """The routes of a tenant, by name."""

    routes: Sequence[RouteOverview]


class RemovedRoute(Struct, frozen=True):
    """The route that was removed."""

    removed: str


def add_routes(app: web.Application, routes: Routes) -> None:
    """Adds `/routes…`, backed by `routes`."""
    app[ROUTES] = routes
    app.router.add_get("/routes", list_routes)
    app.router.add_get("/routes/{route}", show_route)
    app.router.add_put("/routes/{route}", put_route)
    app.router.add_delete("/routes/{route}", delete_route)


async def list_routes(request: web.Request) -> web.StreamResponse:
    """Every route of the tenant, with its state on this worker."""
    return json_response(RoutesAnswer(await request.app[ROUTES].list_routes(tenant_of(request))))


async def show_route(request: web.Request) -> web.StreamResponse:
    """One route, with its state on this worker."""
    tenant, name = tenant_of(request), check_route_name(request.match_info["route"])
    return json_response(await request.app[ROUTES].show_route(tenant, name))


async def put_route(request: web.Request) -> web.StreamResponse:
    """Creates a route, or changes the one of this name."""
    tenant, name = tenant_of(request), check_route_name(request.match_info["route"])
    start = _start(request.query.get("start", "latest"))
    codec = codec_of_request(request)
    route = decode_route(await read_body(request, request.app[LIMITS].body), DEFAULT_LIMITS, codec)
    if route.name != name:
        raise InvalidValueError(f"name: {route.name[:80]!r} in the body, {name!r} in the path")
    if route.source.start:
        raise InvalidValueError("source.start: it is set when the route is created; use the query parameter start")
    created, overview = await request.app[ROUTES].put_route(tenant, route, start)
    return json_response(overview, HTTPStatus.CREATED if created else HTTPStatus.OK)


async def delete_route(request: web.Request) -> web.StreamResponse:
    """Removes a route."""
    tenant, name = tenant_of(request), check_route_name(request.match_info["route"])
    await request.app[ROUTES].remove_route(tenant, name)
    return json_response(RemovedRoute(name))


def _start(text: str) -> Literal["latest", "earliest"] | datetime:
    if text == "latest":
        return "latest"
    if text == "earliest":
        return "earliest"
    try:
        milliseconds = msgspec.json.decode(text, type=int)
    except msgspec.DecodeError:
        milliseconds = -1
    if not 0 <= milliseconds <= START_MS_MAX:
        raise InvalidValueError(f"query parameter start={text[:80]!r}: expected latest, earliest or Unix milliseconds")
    return datetime.fromtimestamp(milliseconds / 1000, UTC)
