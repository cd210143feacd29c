"""`/labels` and `/models/{model_id}/quality` and `/captured`: what was true of requests, how good predictions were, and
the requests that were captured."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Annotated

import msgspec
from aiohttp import web

from inferd.daemon.http.core import (
    LIMITS,
    SAFE_HEADERS,
    codec_of_request,
    json_response,
    read_body,
    send_streamed,
    tenant_of,
)
from inferd.daemon.http.routes.jobs_formats import NDJSON
from inferd.daemon.http.routes.monitoring import MONITORING, asked_of
from inferd.schemas.capture import CapturedRequest, columns_of
from inferd.schemas.codecs import DECODE_ERRORS, Codec, Decoders, decode_error, structural_fault
from inferd.schemas.labels import Label, check_label
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.monitoring import QualityReport

LABELS_MAX = 10_000
PIECE_BYTES = 65_536
_encode = msgspec.json.Encoder().encode


class LabelsBody(msgspec.Struct, frozen=True):
    """Labels of requests, by their ids."""

    labels: Annotated[list[Label], msgspec.Meta(min_length=1, max_length=LABELS_MAX)]


class LabelsAnswer(msgspec.Struct, frozen=True):
    """How many labels the broker has acknowledged."""

    sent: int


class QualityAnswer(msgspec.Struct, frozen=True):
    """The quality of each version, alias and variant that has labels."""

    quality: list[QualityReport]


_BODY = Decoders(LabelsBody)


def add_labels(app: web.Application) -> None:
    """Adds the routes, backed by the `Monitoring` of the application."""
    app.router.add_post("/labels", send_labels)
    app.router.add_get("/models/{model_id}/quality", show_quality)
    app.router.add_get("/models/{model_id}/captured", stream_captured)


async def send_labels(request: web.Request) -> web.StreamResponse:
    """Sends labels: all of them or, if one is invalid, none."""
    tenant, codec = tenant_of(request), codec_of_request(request)
    body = _decoded(await read_body(request, request.app[LIMITS].body), codec, DEFAULT_LIMITS)
    return json_response(LabelsAnswer(await request.app[MONITORING].send_labels(tenant, body.labels)), 202)


async def show_quality(request: web.Request) -> web.StreamResponse:
    """How good predictions were, by the labels of requests scored since then."""
    return json_response(QualityAnswer(await request.app[MONITORING].quality(tenant_of(request), *asked_of(request))))


async def stream_captured(request: web.Request) -> web.StreamResponse:
    """Streams captured requests: a line for each of their rows."""
    outputs = request.query.get("outputs", "prediction").split(",")
    found = request.app[MONITORING].captured(tenant_of(request), *asked_of(request))
    response = web.StreamResponse(headers={**SAFE_HEADERS, "Content-Type": NDJSON})
    return await send_streamed(request, response, _pieces(found, outputs))


async def _pieces(found: AsyncIterator[CapturedRequest], outputs: list[str]) -> AsyncIterator[bytes]:
    lines = bytearray()
    async for captured in found:
        columns = dict(columns_of(captured, outputs))
        for values in zip(*columns.values(), strict=True):
            lines += _encode(dict(zip(columns, values, strict=True))) + b"\n"
        if len(lines) >= PIECE_BYTES:
            yield bytes(lines)
            lines.clear()
    yield bytes(lines)


def _decoded(data: bytes, codec: Codec, limits: Limits) -> LabelsBody:
    """The body; `MalformedError`, `TooDeepError` or `InvalidValueError` if it is none."""
    if fault := structural_fault(data, codec, limits.depth_max, values_max=len(data)):
        raise type(fault)(f"labels: {fault.message}")
    try:
        body: LabelsBody = _BODY[codec](data)
    except DECODE_ERRORS as error:
        raise decode_error(data, codec, error, "labels", limits.depth_max) from None
    for label in body.labels:
        check_label(label, limits)
    return body
