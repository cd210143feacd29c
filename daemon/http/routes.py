"""What the server answers: probes, status, metrics, and the live page."""

from __future__ import annotations

import secrets
from functools import cache
from importlib import resources

from aiohttp import web

from daemon.http.errors import SAFE_HEADERS, errors_as_json, json_response
from daemon.metrics import Metrics
from daemon.status import StatusBoard

BOARD = web.AppKey("board", StatusBoard)
METRICS = web.AppKey("metrics", Metrics)


def make_app(board: StatusBoard, body_bytes_max: int) -> web.Application:
    """The application that tells what `board` knows; bodies over `body_bytes_max` bytes are refused with 413."""
    app = web.Application(middlewares=[errors_as_json], client_max_size=body_bytes_max)
    app[BOARD] = board
    app[METRICS] = Metrics(board)
    app.add_routes(
        [
            web.get("/", page),
            web.get("/livez", livez),
            web.get("/readyz", readyz),
            web.get("/health", readyz),
            web.get("/status", status),
            web.get("/metrics", metrics),
        ]
    )
    return app


async def livez(_request: web.Request) -> web.Response:
    """200 as long as the event loop turns."""
    return json_response({"status": "live"})


async def readyz(request: web.Request) -> web.Response:
    """200 where requests are being served, else 503 with the reasons."""
    board = request.app[BOARD]
    if reasons := board.unready(board.snapshot()):
        return json_response({"status": "unhealthy", "reasons": reasons}, 503)
    return json_response({"status": "healthy"})


async def status(request: web.Request) -> web.Response:
    """What the worker is doing."""
    return json_response(request.app[BOARD].status())


async def metrics(request: web.Request) -> web.Response:
    """The same for Prometheus."""
    body, content_type = request.app[METRICS].exposition(request.headers.get("Accept", ""))
    return web.Response(body=body, headers={**SAFE_HEADERS, "Content-Type": content_type})


async def page(_request: web.Request) -> web.Response:
    """The same for people: a page that asks `/status` every second, and loads nothing from elsewhere."""
    nonce = secrets.token_urlsafe(16)
    policy = (
        f"default-src 'none'; connect-src 'self'; script-src 'nonce-{nonce}'; style-src 'nonce-{nonce}';"
        " base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )
    return web.Response(
        text=_page_text().replace("{{nonce}}", nonce),
        content_type="text/html",
        headers={**SAFE_HEADERS, "Content-Security-Policy": policy, "Referrer-Policy": "no-referrer"},
    )


@cache
def _page_text() -> str:
    return (resources.files("daemon.http") / "page.html").read_text(encoding="utf-8")
