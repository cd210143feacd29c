"""`POST /predict/{model_id}`: the body becomes a request of the wire, and the wire's result is the answer.

Neither is decoded here. The model id is put in front of the body's other fields, so that whatever is wrong with the
request is told by the same code, in the same words, as to a producer on Kafka.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from inferd.daemon.http.core import LIMITS, SAFE_HEADERS, encoding_of, read_body, tenant_of, typed_response
from inferd.daemon.http.routes.services import Predictions
from inferd.schemas.errors import (
    DeadlineExceededError,
    InternalError,
    InvalidHeaderError,
    MalformedError,
    error_of_code,
)
from inferd.schemas.headers import (
    CONTENT_TYPE,
    CONTENT_TYPES,
    DEADLINE,
    PASSED_THROUGH,
    ROW_ERRORS,
    Encoding,
)
from inferd.schemas.requests import ModelReference

PREDICTIONS: web.AppKey[Predictions] = web.AppKey("predictions", Predictions)
MEDIA_TYPES: dict[Encoding, str] = {encoding: media_type for media_type, encoding in CONTENT_TYPES.items()}
RECORD_HEADERS = {name: name for name in (DEADLINE, *PASSED_THROUGH)} | {"ce-id": "ce_id"}
"""HTTP headers that go along with a request, and their names as record headers."""
ECHOED = "correlation-id"
_JSON_START = re.compile(rb"[ \t\r\n]*\{[ \t\r\n]*(?P<end>\}?)")
_MAP_16, _MAP_32 = 0xDE, 0xDF
_ERROR_KEYS: dict[Encoding, bytes] = {"json": b'"error":', "msgpack": b"\xa5error"}
Headers = list[tuple[str, bytes]]


class _Fault(msgspec.Struct):
    code: str
    message: str


class _Outcome(msgspec.Struct):
    """What tells an error from a prediction."""

    error: _Fault | None = None


_DECODE: dict[Encoding, Any] = {
    "json": msgspec.json.Decoder(_Outcome).decode,
    "msgpack": msgspec.msgpack.Decoder(_Outcome).decode,
}


def add_predictions(app: web.Application, predictions: Predictions) -> None:
    """Adds `POST /predict/{model_id}`, answered by `predictions`."""
    app[PREDICTIONS] = predictions
    app.router.add_post("/predict/{model_id}", predict)


async def predict(request: web.Request) -> web.StreamResponse:
    """The prediction for the body, in the body's encoding; raises the error where there is none."""
    app = request.app
    limits, tenant = app[LIMITS], tenant_of(request)
    model = request.match_info["model_id"]
    ModelReference.parse(model)
    encoding = encoding_of(request)
    value = with_model_id(await read_body(request, limits.body), model, encoding)
    headers, echoed = record_headers(request, encoding, limits.timeout_s), _echoed(request)
    try:
        async with asyncio.timeout(limits.timeout_s):
            result = await app[PREDICTIONS].predict(tenant, value, headers)
    except TimeoutError:
        raise DeadlineExceededError(
            f"there was no result within INFERD_HTTP_TIMEOUT_S={limits.timeout_s:g}; it may still be scored"
        ) from None
    response = answer(result, encoding)
    response.headers.update(echoed)
    return response


def answer(result: bytes, encoding: Encoding) -> web.Response:
    """A prediction as it is, an error with its status."""
    if _ERROR_KEYS[encoding] in result and (fault := _fault(result, encoding)) is not None:
        return typed_response(error_of_code(fault.code, fault.message))
    return web.Response(body=result, headers={**SAFE_HEADERS, "Content-Type": MEDIA_TYPES[encoding]})


def with_model_id(body: bytes, model_id: str, encoding: Encoding) -> bytes:
    """The request that `body` is once `model_id`, which needs no escapes, is its first field.

    `MalformedError` where the body is no object.
    """
    return _with_json(body, model_id) if encoding == "json" else _with_msgpack(body, model_id)


def record_headers(request: web.Request, encoding: Encoding, timeout_s: float) -> Headers:
    """The headers of the record that the request would be: its deadline is its own, or that of the time-out."""
    headers: Headers = [(CONTENT_TYPE, MEDIA_TYPES[encoding].encode())]
    headers += named_headers(request, RECORD_HEADERS)
    if (row_errors := request.query.get("row_errors")) is not None:
        headers.append((ROW_ERRORS, _bytes(row_errors)))
    if DEADLINE not in request.headers:
        headers.append((DEADLINE, b"%d" % ((time.time() + timeout_s) * 1_000)))
    return headers


def named_headers(request: web.Request, names: Mapping[str, str]) -> Headers:
    """Headers of the request as those of a record; `names`: of both, by that of the request."""
    return [(names[name], _bytes(value)) for name in names for value in request.headers.getall(name, ())]


def _echoed(request: web.Request) -> dict[str, str]:
    """What comes back with the answer; `InvalidHeaderError` for what an HTTP header of aiohttp cannot carry."""
    value = request.headers.get(ECHOED)
    if value is None:
        return {}
    if value != value.encode("utf-8", "replace").decode():
        raise InvalidHeaderError(f"header {ECHOED}: not UTF-8, so the answer cannot carry it; records on Kafka can")
    return {ECHOED: value}


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")


def _fault(result: bytes, encoding: Encoding) -> _Fault | None:
    try:
        outcome: _Outcome = _DECODE[encoding](result)
    except msgspec.DecodeError as error:
        raise InternalError(f"the result cannot be read: {error}") from error
    return outcome.error


def _with_json(body: bytes, model_id: str) -> bytes:
    start = _JSON_START.match(body)
    if start is None:
        raise MalformedError('body: expected one JSON object, {"input_data": …}')
    comma = b"" if start["end"] else b","
    return b'{"model_id":"%s"%s%s' % (model_id.encode(), comma, body[start.start("end") :])


def _with_msgpack(body: bytes, model_id: str) -> bytes:
    count, start = _map_header(body)
    name = model_id.encode()
    # str 8 fits every model id: a name, a colon or an at sign, and a version or another name.
    return b"\xdf%s\xa8model_id\xd9%c%s%s" % ((count + 1).to_bytes(4, "big"), len(name), name, body[start:])


def _map_header(body: bytes) -> tuple[int, int]:
    """How many fields a MessagePack map claims, and where they start."""
    first = body[0] if body else 0
    if first & 0xF0 == 0x80:
        return first & 0x0F, 1
    if first == _MAP_16 and len(body) >= 3:
        return int.from_bytes(body[1:3], "big"), 3
    if first == _MAP_32 and len(body) >= 5:
        return min(int.from_bytes(body[1:5], "big"), 0xFFFF_FFFE), 5
    raise MalformedError('body: expected one MessagePack map, {"input_data": …}')
