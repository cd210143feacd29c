"""`/asyncapi.json`, generated from the wire types and the tenants' routes."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import replace

import msgspec
from aiohttp import web

from inferd.daemon.http.core import ACCESS, json_bytes, token_tenant
from inferd.schemas.asyncapi import Application, describe, route_channels
from inferd.schemas.routes import Route

PATH = "/asyncapi.json"
APPLICATION = web.AppKey("asyncapi", Application)
RoutesOf = Callable[[str], Collection[Route]]
ROUTES_OF: web.AppKey[RoutesOf] = web.AppKey("routes_of")


def add_asyncapi(app: web.Application, application: Application, routes_of: RoutesOf = lambda _tenant: ()) -> None:
    """Adds `/asyncapi.json`; `routes_of` returns the routes that a tenant has now."""
    app[APPLICATION], app[ROUTES_OF] = application, routes_of
    app.router.add_get(PATH, asyncapi)


async def asyncapi(request: web.Request) -> web.Response:
    """The AsyncAPI 3 document; with a tenant's token, of that tenant alone."""
    own = token_tenant(request)
    tenants = request.app[ACCESS].tenants if own is None else (own,)
    routes_of = request.app[ROUTES_OF]
    routes = [channel for tenant in tenants for channel in route_channels(tenant, routes_of(tenant))]
    return json_bytes(msgspec.json.encode(describe(replace(request.app[APPLICATION], tenants=tenants), routes)))
