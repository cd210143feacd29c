"""`/cluster…`: what all workers of the group say of themselves, asked through any of them."""

from __future__ import annotations

import msgspec
from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import PEERS, UnavailableError, json_bytes, json_response, token_tenant
from inferd.daemon.http.routes.forwarding import Forwarding
from inferd.daemon.http.routes.observation import BOARD, seen_by
from inferd.daemon.telemetry import History, Status
from inferd.schemas.errors import InvalidValueError

PEERS_OF = web.AppKey("peers_of", Forwarding)
AFTER_MAX = 10**11


class WorkerStatus(Struct, frozen=True):
    """One worker: its status, or why it is not known."""

    url: str
    """Where other workers reach it."""
    status: Status | None = None
    error: str | None = None


class ClusterAnswer(Struct, frozen=True):
    """The workers of the group; the one that was asked is first."""

    workers: list[WorkerStatus]


class WorkerHistory(Struct, frozen=True):
    """One worker: its history, or why it is not known."""

    url: str
    history: History | None = None
    error: str | None = None


class ClusterHistoryAnswer(Struct, frozen=True):
    """The history of each worker of the group; the one that was asked is first."""

    workers: list[WorkerHistory]


def add_cluster(app: web.Application, forwarding: Forwarding) -> None:
    """Adds the routes; `forwarding` reaches the other workers."""
    app[PEERS_OF] = forwarding
    app.router.add_get("/history", show_history)
    app.router.add_get("/cluster", show_cluster)
    app.router.add_get("/cluster/history", show_cluster_history)


async def show_history(request: web.Request) -> web.Response:
    """What this worker did in the last hour; with a tenant's token, only that tenant's part."""
    return json_response(_history(request))


async def show_cluster(request: web.Request) -> web.Response:
    """The status of every worker."""
    own = msgspec.json.encode(seen_by(request, request.app[BOARD].status()))
    return await _of_all(request, "status", own, "/status?formats=false")


async def show_cluster_history(request: web.Request) -> web.Response:
    """The history of every worker."""
    own = msgspec.json.encode(_history(request))
    return await _of_all(request, "history", own, f"/history?after={_after(request)}")


async def _of_all(request: web.Request, name: str, own: bytes, path: str) -> web.Response:
    """This worker's answer, and that of each other one."""
    found: list[dict[str, object]] = [{"url": request.app[PEERS].own_url, name: msgspec.Raw(own)}]
    for url, answer in (await request.app[PEERS_OF].ask_peers(request, path)).items():
        if isinstance(answer, UnavailableError):
            found.append({"url": url, "error": answer.message})
        else:
            found.append({"url": url, name: msgspec.Raw(answer)})
    return json_bytes(msgspec.json.encode({"workers": found}), 200)


def _history(request: web.Request) -> History:
    return request.app[BOARD].ring.history(token_tenant(request), _after(request))


def _after(request: web.Request) -> int:
    text = request.query.get("after", "0")
    if not (text.isascii() and text.isdigit() and int(text[:20]) <= AFTER_MAX):
        raise InvalidValueError(f"query after={text[:40]!r}: expected Unix seconds, from 0 to {AFTER_MAX}")
    return int(text)
