"""`/audit`, `/dead-letters/redrive`, and what else operators do with a tenant."""

from __future__ import annotations

from functools import wraps

from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import Respond, json_response, tenant_of
from inferd.daemon.http.routes.forwarding import is_forwarded
from inferd.daemon.http.routes.query_numbers import number_of, optional_number
from inferd.daemon.http.routes.services import Operating, PauseOverview, RedriveOptions
from inferd.schemas.audit import Action, AuditRecord
from inferd.schemas.errors import InvalidValueError
from inferd.schemas.models import Paused

OPERATING: web.AppKey[Operating] = web.AppKey("operating", Operating)
SINCE_S, SINCE_S_MAX = 86_400, 366 * 86_400
REDRIVEN_DEFAULT, REDRIVEN_MAX = 1_000, 10_000
"""Dead letters of one request."""
RECORDS_MAX = 1_000
"""Of one answer: the newest."""
ACCEPTED = 202
PAUSABLE: tuple[Paused, ...] = ("model", "route")


class AuditAnswer(Struct, frozen=True):
    """Who changed what, newest first."""

    records: list[AuditRecord]


class PausesAnswer(Struct, frozen=True):
    """What is paused."""

    pauses: list[PauseOverview]


class ResumedAnswer(Struct, frozen=True):
    """Whether it was paused."""

    resumed: bool


def add_operating(app: web.Application, operating: Operating) -> None:
    """Adds the routes, backed by `operating`."""
    app[OPERATING] = operating
    app.router.add_get("/audit", show_audit)
    app.router.add_post("/dead-letters/redrive", redrive)
    app.router.add_get("/pauses", list_pauses)
    for kind in PAUSABLE:
        app.router.add_post(f"/pauses/{kind}/{{name}}", _pause(kind))
        app.router.add_delete(f"/pauses/{kind}/{{name}}", _resume(kind))


async def show_audit(request: web.Request) -> web.StreamResponse:
    """The newest actions of the last `since_s` seconds."""
    since_s = number_of(request, "since_s", SINCE_S, SINCE_S_MAX)
    limit = number_of(request, "limit", 100, RECORDS_MAX)
    return json_response(AuditAnswer(await request.app[OPERATING].audit(tenant_of(request), since_s, limit)))


async def list_pauses(request: web.Request) -> web.StreamResponse:
    """The models and routes that are paused."""
    return json_response(PausesAnswer(await request.app[OPERATING].pauses(tenant_of(request))))


def _pause(kind: Paused) -> Respond:
    async def pause(request: web.Request) -> web.StreamResponse:
        tenant, name, reason = tenant_of(request), request.match_info["name"], request.query.get("reason")
        return json_response(await request.app[OPERATING].pause(tenant, kind, name, reason))

    return pause


def _resume(kind: Paused) -> Respond:
    async def resume(request: web.Request) -> web.StreamResponse:
        tenant, name = tenant_of(request), request.match_info["name"]
        return json_response(ResumedAnswer(await request.app[OPERATING].resume(tenant, kind, name)))

    return resume


async def redrive(request: web.Request) -> web.StreamResponse:
    """Sends dead letters again to the topic that they were read from."""
    query = request.query
    dry_run = query.get("dry_run", "false")
    if dry_run not in ("true", "false"):
        raise InvalidValueError(f"query dry_run={dry_run[:40]!r}: expected true or false")
    options = RedriveOptions(
        code=query.get("code"),
        since_s=optional_number(request, "since_s", SINCE_S_MAX),
        limit=number_of(request, "limit", REDRIVEN_DEFAULT, REDRIVEN_MAX),
        route=query.get("route"),
        dry_run=dry_run == "true",
    )
    return json_response(await request.app[OPERATING].redrive(tenant_of(request), options))


def audited(action: Action, respond: Respond) -> Respond:
    """`respond`, and a record in the audit that `action` on the job in the path was accepted.

    The worker that the caller asked writes it; the one that it forwards to does not know the caller.
    """

    @wraps(respond)
    async def respond_and_note(request: web.Request) -> web.StreamResponse:
        response = await respond(request)
        if response.status == ACCEPTED and OPERATING in request.app and not is_forwarded(request):
            await request.app[OPERATING].note(tenant_of(request), action, request.match_info["job_id"])
        return response

    return respond_and_note
