"""`/models/{model_id}/windows` and `/drift`: what versions scored, and how far that is from their baselines."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import json_response, tenant_of
from inferd.daemon.http.routes.query_numbers import number_of, optional_number
from inferd.daemon.http.routes.services import Monitoring
from inferd.schemas.models import check_model_name
from inferd.schemas.monitoring import Drift, WindowStats

MONITORING: web.AppKey[Monitoring] = web.AppKey("monitoring", Monitoring)
SINCE_S = 3_600
SINCE_S_MAX = 31 * 24 * 3_600
VERSION_MAX = 999_999_999


class WindowsAnswer(Struct, frozen=True):
    """Windows in order of time: one for each minute, version, variant and alias revision."""

    windows: list[WindowStats]


class DriftAnswer(Struct, frozen=True):
    """The drift of each version that has a baseline and has scored rows."""

    drift: list[Drift]


def add_monitoring(app: web.Application, monitoring: Monitoring) -> None:
    """Adds the routes, backed by `monitoring`."""
    app[MONITORING] = monitoring
    app.router.add_get("/models/{model_id}/windows", list_windows)
    app.router.add_get("/models/{model_id}/drift", show_drift)


async def list_windows(request: web.Request) -> web.StreamResponse:
    """What versions scored, minute by minute."""
    return json_response(WindowsAnswer(await request.app[MONITORING].windows(tenant_of(request), *asked_of(request))))


async def show_drift(request: web.Request) -> web.StreamResponse:
    """How far that is from their baselines."""
    return json_response(DriftAnswer(await request.app[MONITORING].drift(tenant_of(request), *asked_of(request))))


def asked_of(request: web.Request) -> tuple[str, int | None, int]:
    """The model, the version and the seconds that are asked for."""
    model_id = check_model_name(request.match_info["model_id"])
    version = optional_number(request, "version", VERSION_MAX)
    return model_id, version, number_of(request, "since_s", SINCE_S, SINCE_S_MAX)
