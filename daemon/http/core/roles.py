"""Roles of bearer tokens, and which of them a route accepts.

A route accepts any of the roles that its `Operation` names. A route without an `Operation` is open only to tokens with
all roles.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal, get_args

from aiohttp import hdrs, web

Role = Literal["monitor", "predict", "read", "deploy", "operate"]
ROLES: tuple[Role, ...] = get_args(Role)
ALL_ROLES: frozenset[Role] = frozenset(ROLES)
MEANINGS: dict[Role, str] = {
    "monitor": "`/status`, `/history`, `/cluster…` and `/metrics`",
    "predict": "send requests; submit jobs, read their results by id, cancel and retry them",
    "read": "read everything, but change nothing; includes `monitor`",
    "deploy": "deploy and remove models, change aliases, rollouts and routes",
    "operate": "steer what runs: pause and resume, redrive, cancel and retry jobs, abort rollouts, roll aliases back",
}
RouteKey = tuple[str, str]
"""Method in lower case, and path with its placeholders."""
ROLES_OF = web.AppKey("roles", dict[RouteKey, tuple[Role, ...]])


def with_implied(roles: Iterable[Role]) -> frozenset[Role]:
    """These roles, and those that they include."""
    found = frozenset(roles)
    return found | {"monitor"} if "read" in found else found


def accepted_roles(request: web.Request) -> tuple[Role, ...] | None:
    """The roles of which a caller needs one; None: all of them. Empty if no route has the path and method."""
    resource = request.match_info.route.resource
    if resource is None:
        return ()
    method = hdrs.METH_GET if request.method == hdrs.METH_HEAD else request.method
    return request.app[ROLES_OF].get((method.lower(), resource.canonical))
