"""Converts the return value of a user route to a response."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
import numpy as np
from aiohttp import web

from inferd.daemon.http.core import SAFE_HEADERS, json_bytes

_STATUS_MIN, _STATUS_MAX = 200, 599


def response_of(value: Any) -> web.StreamResponse:
    """The response for a return value.

    A response is returned as it is; None becomes 204; str becomes text, bytes binary; a tuple `(status, body)` sets the
    status. Everything else becomes JSON: numbers, lists, dicts, msgspec structs, dataclasses, numpy arrays and scalars.
    Raises `TypeError` for a value that JSON cannot represent.
    """
    status = HTTPStatus.OK.value
    if isinstance(value, tuple) and len(value) == 2 and _is_status(value[0]):
        status, value = int(value[0]), value[1]
    elif value is None:
        status = HTTPStatus.NO_CONTENT.value
    if isinstance(value, web.StreamResponse):
        return value
    if value is None:
        return web.Response(status=status, headers=SAFE_HEADERS)
    if isinstance(value, str):
        return web.Response(text=value, status=status, headers=SAFE_HEADERS)
    if isinstance(value, bytes | bytearray | memoryview):
        body = bytes(value)
        return web.Response(body=body, status=status, content_type="application/octet-stream", headers=SAFE_HEADERS)
    return json_bytes(msgspec.json.encode(value, enc_hook=_of_numpy), status)


def _is_status(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and _STATUS_MIN <= value <= _STATUS_MAX


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    raise TypeError(f"a route returned {type(value).__name__}, which cannot be encoded as JSON")
