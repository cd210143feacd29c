"""Every HTTP error as `{"error": {"code", "message"}}`, and the codes that only HTTP has.

ModelServingError
├── NotFoundError          not_found            404  there is nothing at this path
├── MethodNotAllowedError  method_not_allowed   405  the path does not know this method
├── UnauthorizedError      unauthorized         401  no token, or one that is not known
├── ForbiddenError         forbidden            403  the token is not for this, or a web page of another site asks
├── NotAcceptableError     not_acceptable       406  nothing that the header accept names is made here
├── RequestTimeoutError    request_timeout      408  the request came too slowly
├── ClientClosedError      client_closed        499  the client hung up; counted, never answered
├── VersionExistsError     version_exists       409  the version exists already, with other bytes or another manifest
├── VersionInUseError      version_in_use       409  an alias points at the version that is to be removed
└── UnavailableError       unavailable          503  not started, draining, or without its broker
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import msgspec
import structlog
from aiohttp import web

from inferd.daemon.printable import printable
from inferd.schemas.errors import MESSAGE_CHARS_MAX, ModelServingError
from inferd.schemas.models import VersionExistsError, VersionInUseError

Respond = Callable[[web.Request], Awaitable[web.StreamResponse]]
SAFE_HEADERS = {"Server": "inferd", "X-Content-Type-Options": "nosniff", "Cache-Control": "no-store"}
CODES_OF_STATUS = {
    404: "not_found",
    405: "method_not_allowed",
    406: "not_acceptable",
    413: "too_large",
    415: "unsupported_content_type",
    431: "too_large",
}
log = structlog.get_logger(__name__)


class HttpError(ModelServingError):
    """What only HTTP refuses: `headers` go with the answer, which `closes` the connection or does not."""

    headers: ClassVar[dict[str, str]] = {}
    closes: ClassVar[bool] = False


class NotFoundError(HttpError):
    """There is nothing at this path."""

    code, http_status, meaning = "not_found", 404, "there is nothing at this path"


class MethodNotAllowedError(HttpError):
    """The path does not know this method."""

    code, http_status, meaning = "method_not_allowed", 405, "the path does not know this method; `Allow` names those"


class UnauthorizedError(HttpError):
    """No token came, or one that is not known."""

    code, http_status, meaning = "unauthorized", 401, "no bearer token came with the request, or one that is not known"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": 'Bearer realm="inferd"'}


class ForbiddenError(HttpError):
    """The token is known, and not for this; or there are none, and a web page of another site may have asked."""

    code, http_status = "forbidden", 403
    meaning = "the bearer token is not for this tenant or path; without tokens, another site's web page may have asked"


class NotAcceptableError(HttpError):
    """The caller takes nothing that can be made."""

    code, http_status, meaning = "not_acceptable", 406, "the answer is made in no format that `Accept` names"


class RequestTimeoutError(HttpError):
    """The request came too slowly."""

    code, http_status, meaning = "request_timeout", 408, "the body of the request came too slowly"
    retryable, closes = True, True


class ClientClosedError(HttpError):
    """The client closed the connection before its request was complete: no answer is read, but it is counted."""

    code, http_status, meaning = "client_closed", 499, "the client closed the connection"


class UnavailableError(HttpError):
    """The worker cannot do this now, another one may, or this one a little later."""

    code, http_status, meaning = "unavailable", 503, "the worker is starting, draining, or without its broker"
    retryable = True


class DrainingError(UnavailableError):
    """The worker takes nothing new any more; another connection may lead to another worker."""

    closes = True


HTTP_CODES: dict[str, type[ModelServingError]] = {
    cls.code: cls
    for cls in (
        UnauthorizedError,
        ForbiddenError,
        NotFoundError,
        MethodNotAllowedError,
        NotAcceptableError,
        RequestTimeoutError,
        VersionExistsError,
        VersionInUseError,
        UnavailableError,
    )
}
"""The codes that HTTP has beside `inferd.schemas.errors.CODES`."""


def json_response(value: object, status: int = 200) -> web.Response:
    """`value` (builtins, msgspec structs) as JSON."""
    return json_bytes(msgspec.json.encode(value), status)


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """`body`, which is JSON already."""
    return web.Response(body=body, status=status, content_type="application/json", headers=SAFE_HEADERS)


def error_response(status: int, code: str, message: str) -> web.Response:
    """An error in the form that all of them have."""
    return json_response({"error": {"code": code, "message": message[:MESSAGE_CHARS_MAX]}}, status)


def is_closed(request: web.Request) -> bool:
    """Whether the client's connection has ended."""
    return request.transport is None or request.transport.is_closing()


def typed_response(error: ModelServingError) -> web.Response:
    """The answer that a typed error is; what may pass says when to come again."""
    response = error_response(error.http_status, error.code, error.message)
    if error.retryable and error.http_status in (429, 503):
        response.headers["Retry-After"] = "1"
    if isinstance(error, HttpError):
        response.headers.update(error.headers)
        if error.closes:
            response.force_close()
    return response


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
        return typed_response(error)
    except Exception as error:
        if isinstance(error, ConnectionError) and is_closed(request):
            return typed_response(ClientClosedError("the client closed the connection"))
        log.exception("http_request_failed", method=request.method, path=request.path)
        return error_response(500, "internal", "the request failed inside inferd; the worker's log says why")


def _of_status(request: web.Request, status: int) -> web.Response:
    path = printable(request.path, 200)
    messages = {
        404: f"there is nothing at {path}: GET /openapi.json shows what there is",
        405: f"{printable(request.method, 20)} is not allowed on {path}",
        413: "the body is larger than INFERD_MESSAGE_BYTES_MAX allows",
    }
    code = CODES_OF_STATUS.get(status, "malformed" if status < 500 else "internal")
    return error_response(status, code, messages.get(status, f"the request was refused with status {status}"))


def _with_allow(response: web.Response, error: web.HTTPException) -> web.Response:
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
