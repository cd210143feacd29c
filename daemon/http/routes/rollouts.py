"""`/rollouts…`: the rollouts of a tenant. Any worker answers; the one that owns them acts."""

from __future__ import annotations

from collections.abc import Mapping

from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import LIMITS, Respond, codec_of_request, json_response, read_body, tenant_of
from inferd.daemon.http.routes.services import RolloutBody, Rollouts, Steering
from inferd.schemas.codecs import DECODE_ERRORS, Codec, Decoders, check_size, decode_error, structural_fault
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import check_model_name
from inferd.schemas.rollouts import MESSAGE_BYTES_MAX, RolloutStatus

ROLLOUTS: web.AppKey[Rollouts] = web.AppKey("rollouts", Rollouts)
STEERING: tuple[Steering, ...] = ("pause", "resume", "promote", "abort")


class RolloutsAnswer(Struct, frozen=True):
    """The newest rollout of each model, by model."""

    rollouts: Mapping[str, RolloutStatus]


_BODY = Decoders(RolloutBody)


def add_rollouts(app: web.Application, rollouts: Rollouts) -> None:
    """Adds `/rollouts…`, backed by `rollouts`."""
    app[ROLLOUTS] = rollouts
    app.router.add_get("/rollouts", list_rollouts)
    app.router.add_get("/rollouts/{model_id}", show_rollout)
    app.router.add_post("/rollouts/{model_id}", start_rollout)
    for action in STEERING:
        app.router.add_post(f"/rollouts/{{model_id}}/{action}", _steer(action))


async def list_rollouts(request: web.Request) -> web.StreamResponse:
    """The newest rollout of each model."""
    return json_response(RolloutsAnswer(await request.app[ROLLOUTS].list_rollouts(tenant_of(request))))


async def show_rollout(request: web.Request) -> web.StreamResponse:
    """The newest rollout of one model."""
    tenant, model_id = tenant_of(request), check_model_name(request.match_info["model_id"])
    return json_response(await request.app[ROLLOUTS].show_rollout(tenant, model_id))


async def start_rollout(request: web.Request) -> web.StreamResponse:
    """Starts a rollout."""
    tenant, model_id = tenant_of(request), check_model_name(request.match_info["model_id"])
    codec = codec_of_request(request)
    body = _decoded(await read_body(request, request.app[LIMITS].body), codec)
    status = await request.app[ROLLOUTS].start_rollout(tenant, model_id, body, _changed_by(request))
    return json_response(status, 202)


def _steer(action: Steering) -> Respond:
    async def steer(request: web.Request) -> web.StreamResponse:
        tenant, model_id = tenant_of(request), check_model_name(request.match_info["model_id"])
        return json_response(
            await request.app[ROLLOUTS].steer_rollout(tenant, model_id, action, _changed_by(request)), 202
        )

    return steer


def _decoded(data: bytes, codec: Codec) -> RolloutBody:
    """The body; `MalformedError`, `TooLargeError` or `TooDeepError` if it is none."""
    check_size(data, MESSAGE_BYTES_MAX, "rollout")
    if fault := structural_fault(data, codec, DEFAULT_LIMITS.depth_max, values_max=len(data)):
        raise type(fault)(f"rollout: {fault.message}")
    try:
        body: RolloutBody = _BODY[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "rollout", DEFAULT_LIMITS.depth_max) from None
    return body


def _changed_by(request: web.Request) -> str:
    return request.query.get("changed_by") or "http"
