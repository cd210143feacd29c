"""`POST /predict/{model_id}`: turns the body into a request as on Kafka, and responds with its result.

The values of the body's fields are not decoded here, so that an invalid value gets the same code and message as on
Kafka. A request without an id gets a new one.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Mapping

from aiohttp import web

from inferd.daemon.http.core import LIMITS, SAFE_HEADERS, codec_of_request, read_body, tenant_of, typed_response
from inferd.daemon.http.routes.services import Predictions
from inferd.schemas.codecs import Codec
from inferd.schemas.errors import DeadlineExceededError, InvalidHeaderError, ModelServingError
from inferd.schemas.headers import (
    CORRELATION_HEADERS,
    DEADLINE,
    ROW_ERRORS,
)
from inferd.schemas.requests import ModelReference, request_of_body
from inferd.streams.http_requests import HttpAnswer

PREDICTIONS: web.AppKey[Predictions] = web.AppKey("predictions", Predictions)
RECORD_HEADERS = {name: name for name in (DEADLINE, *CORRELATION_HEADERS)} | {"ce-id": "ce_id"}
"""HTTP headers that are propagated with a request, and their names as record headers."""
ECHOED = "correlation-id"
Headers = list[tuple[str, bytes]]


def add_predictions(app: web.Application, predictions: Predictions) -> None:
    """Adds `POST /predict/{model_id}`, backed by `predictions`."""
    app[PREDICTIONS] = predictions
    app.router.add_post("/predict/{model_id}", predict)


async def predict(request: web.Request) -> web.StreamResponse:
    """The prediction, in the format of the body, or the request's error."""
    limits, model = request.app[LIMITS], request.match_info["model_id"]
    ModelReference.parse(model)
    codec = codec_of_request(request)
    body = await read_body(request, limits.body)
    value = request_of_body(body, codec, model, uuid.uuid4().hex)
    headers, echoed = record_headers(request, codec, limits.timeout_s), _echoed(request)
    if (row_errors := request.query.get("row_errors")) is not None:
        headers.append((ROW_ERRORS, _bytes(row_errors)))
    response = await _answer(request, value, headers, codec)
    response.headers.update(echoed)
    return response


async def _answer(request: web.Request, value: bytes, headers: Headers, codec: Codec) -> web.Response:
    try:
        result = await result_within_timeout(request, value, headers)
    except ModelServingError as error:
        return typed_response(error)
    headers_of_result = {**SAFE_HEADERS, **alias_headers(result), "Content-Type": codec.content_type}
    return web.Response(body=result.value, headers=headers_of_result)


def alias_headers(result: HttpAnswer) -> dict[str, str]:
    """The headers that say which alias chose the version, as those of a result on Kafka."""
    return {name: (value or b"").decode() for name, value in result.headers}


async def result_within_timeout(request: web.Request, value: bytes, headers: Headers) -> HttpAnswer:
    """The result of the request `value`; raises its error, and `DeadlineExceededError` after the server's timeout."""
    predictions, timeout_s = request.app[PREDICTIONS], request.app[LIMITS].timeout_s
    try:
        async with asyncio.timeout(timeout_s):
            return await predictions.predict(tenant_of(request), value, headers)
    except TimeoutError:
        raise DeadlineExceededError(
            f"no result within INFERD_HTTP_TIMEOUT_S={timeout_s:g}; the request may still be scored"
        ) from None


def record_headers(request: web.Request, codec: Codec, timeout_s: float) -> Headers:
    """The record headers of a request. Without a deadline, it gets that of the timeout."""
    headers: Headers = [codec.header]
    headers += named_headers(request, RECORD_HEADERS)
    if DEADLINE not in request.headers:
        headers.append((DEADLINE, b"%d" % ((time.time() + timeout_s) * 1_000)))
    return headers


def named_headers(request: web.Request, names: Mapping[str, str]) -> Headers:
    """HTTP headers as record headers; `names` maps HTTP names to record names."""
    return [(names[name], _bytes(value)) for name in names for value in request.headers.getall(name, ())]


def _echoed(request: web.Request) -> dict[str, str]:
    """Headers to return with the response; raises `InvalidHeaderError` for a value that aiohttp cannot send."""
    value = request.headers.get(ECHOED)
    if value is None:
        return {}
    if value != value.encode("utf-8", "replace").decode():
        raise InvalidHeaderError(f"header {ECHOED}: not UTF-8, so the HTTP response cannot include it")
    return {ECHOED: value}


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")
