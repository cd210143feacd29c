"""`/whoami`: what the caller's token is and may do, for web pages and scripts."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import ACCESS, ROLES, Role, caller_of, json_response


class CallerAnswer(Struct):
    """The caller; without tokens everybody has all roles."""

    name: str | None
    """The name of the token; null if the server needs no token."""
    tenants: list[str]
    """Tenants that this server serves and the caller may name."""
    roles: list[Role]


def add_whoami(app: web.Application) -> None:
    """Adds `GET /whoami`."""
    app.router.add_get("/whoami", whoami)


async def whoami(request: web.Request) -> web.Response:
    """The caller's name, tenants and roles."""
    caller, served = caller_of(request), request.app[ACCESS].tenants
    tenants = [tenant for tenant in served if caller.tenant in (None, tenant)]
    return json_response(CallerAnswer(caller.name, tenants, [role for role in ROLES if role in caller.roles]))
