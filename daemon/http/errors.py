"""Every HTTP error as `{"error": {"code", "message"}}`."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import msgspec
import structlog
from aiohttp import web

from daemon.printable import printable
from schemas.errors import ModelServingError

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]
CODES_OF_STATUS = {404: "not_found", 405: "method_not_allowed", 413: "too_large", 415: "unsupported_content_type"}
SAFE_HEADERS = {"X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
log = structlog.get_logger(__name__)


def json_response(value: object, status: int = 200) -> web.Response:
    """`value` (builtins, msgspec structs) as JSON."""
    return web.Response(
        body=msgspec.json.encode(value), status=status, content_type="application/json", headers=SAFE_HEADERS
    )


def error_response(status: int, code: str, message: str) -> web.Response:
    """An error in the form that all of them have."""
    return json_response({"error": {"code": code, "message": message}}, status)


@web.middleware
async def errors_as_json(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Turns whatever a route raises into a JSON error; what nobody expected is logged and told as `internal`."""
    try:
        return await handler(request)
    except web.HTTPException as error:
        if error.status < 400:
            raise
        return _with_allow(_of_status(request, error.status), error)
    except ModelServingError as error:
        return error_response(error.http_status, error.code, error.message)
    except Exception:
        log.exception("http_request_failed", method=request.method, path=request.path)
        return error_response(500, "internal", "the request failed inside inferd; the worker's log says why")


def _of_status(request: web.Request, status: int) -> web.Response:
    path = printable(request.path, 200)
    messages = {
        404: f"there is nothing at {path}: GET / shows what there is",
        405: f"{request.method} is not allowed on {path}",
        413: "the body is larger than INFERD_MESSAGE_BYTES_MAX allows",
    }
    code = CODES_OF_STATUS.get(status, "malformed" if status < 500 else "internal")
    return error_response(status, code, messages.get(status, f"the request was refused with status {status}"))


def _with_allow(response: web.Response, error: web.HTTPException) -> web.Response:
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
