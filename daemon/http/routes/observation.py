"""Observability routes: probes, status and metrics."""

from __future__ import annotations

import asyncio
from typing import Any, get_args, get_origin, get_type_hints

import msgspec
from aiohttp import web

from inferd.daemon.http.core import SAFE_HEADERS, TRAFFIC, ForbiddenError, json_response, token_tenant
from inferd.daemon.telemetry import Metrics, Status, StatusBoard, total_lag
from inferd.streams.inference import describe_formats

BOARD = web.AppKey("board", StatusBoard)
METRICS = web.AppKey("metrics", Metrics)


def add_observation(app: web.Application, board: StatusBoard) -> None:
    """Adds the observability routes; `board` has the worker's status."""
    app[BOARD] = board
    app[METRICS] = Metrics(board)
    board.traffic = app[TRAFFIC]
    app.add_routes(
        [
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/health", readyz),
            web.get("/status", status),
            web.get("/metrics", metrics),
        ]
    )


async def livez(_request: web.Request) -> web.Response:
    """200 while the event loop is running."""
    return json_response({"status": "live"})


async def readyz(request: web.Request) -> web.Response:
    """200 if the worker serves requests, else 503 with the reasons; also lists tenants that wait."""
    board = request.app[BOARD]
    snapshot = board.snapshot()
    waiting = {"waiting": snapshot.waiting} if snapshot is not None and snapshot.waiting else {}
    if reasons := board.unready(snapshot):
        return json_response({"status": "unhealthy", "reasons": reasons, **waiting}, 503)
    return json_response({"status": "healthy", **waiting})


async def status(request: web.Request) -> web.Response:
    """The worker's status; with a tenant's token, only that tenant's part."""
    found = request.app[BOARD].status()
    if request.query.get("formats") != "false":
        formats = await asyncio.to_thread(describe_formats)
        found = msgspec.structs.replace(found, model_formats=tuple(formats))
    return json_response(seen_by(request, found))


def seen_by(request: web.Request, found: Status) -> Status:
    """What the caller may see of a status."""
    tenant = token_tenant(request)
    return found if tenant is None else of_tenant(found, tenant)


def of_tenant(found: Status, tenant: str) -> Status:
    """The tenant's part of a status; totals over all tenants are left out if there are others."""
    if {item.tenant for item in found.tenants} == {tenant}:
        return found
    own = {name: _own(getattr(found, name), tenant) for name in found.__struct_fields__ if name in OF_TENANTS}
    return msgspec.structs.replace(
        found,
        **own,
        unready=() if found.ready else ("the worker is not ready",),
        model_formats=(),
        lag=total_lag(own["partitions"], lifecycle=False),
        lifecycle_lag=total_lag(own["partitions"], lifecycle=True),
        throughput=None,
        latency={},
        steps={},
        restoring=None,
        **dict.fromkeys(TOTALS, 0),
        last_error=None,
    )


def _own(items: tuple[Any, ...], tenant: str) -> tuple[Any, ...]:
    return tuple(item for item in items if item.tenant == tenant)


OF_TENANTS = frozenset(
    name
    for name, hint in get_type_hints(Status).items()
    if get_origin(hint) is tuple and "tenant" in getattr(get_args(hint)[0], "__struct_fields__", ())
)
"""Fields that list something of each tenant."""
TOTALS = (
    *("batches", "batch_rows_last", "queued_bytes", "in_flight_bytes"),
    *("commits", "commit_failures", "records_missing", "restored_records"),
)


async def metrics(request: web.Request) -> web.Response:
    """Metrics for Prometheus; not available with a tenant's token, since they cover all tenants."""
    if token_tenant(request) is not None:
        raise ForbiddenError("the metrics cover all tenants: use a token of '*'")
    body, content_type = request.app[METRICS].exposition(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={**SAFE_HEADERS, "Content-Type": content_type})
