"""HTTP errors as `{"error": {"code", "message"}}`, and the error codes that only HTTP has.

ModelServingError
├── NotFoundError          not_found            404  no route has this path
├── MethodNotAllowedError  method_not_allowed   405  the path does not support this method
├── UnauthorizedError      unauthorized         401  the token is missing or unknown
├── ForbiddenError         forbidden            403  the token lacks the right, or a web page of another site asks
├── NotAcceptableError     not_acceptable       406  no format of the header accept is available
├── RequestTimeoutError    request_timeout      408  the body arrived too slowly
├── ClientClosedError      client_closed        499  the client closed the connection; only counted
├── VersionExistsError     version_exists       409  the version exists with other bytes or another manifest
├── VersionInUseError      version_in_use       409  an alias points at the version to remove
├── AliasChangedError      alias_changed        409  the alias was changed by somebody else in the meantime
├── NoEarlierTargetError   no_earlier_target    409  the alias has no earlier target to roll back to
├── RolloutNotFoundError   rollout_not_found    404  the model has no rollout
├── RolloutConflictError   rollout_conflict     409  the request does not fit the phase of the rollout
├── GuardUnavailableError  guard_unavailable    422  the workers do not measure a guard's metric
└── UnavailableError       unavailable          503  the worker is starting, draining, or has no broker
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import ClassVar

import msgspec
import structlog
from aiohttp import web

from inferd.daemon.printable import printable
from inferd.schemas.errors import MESSAGE_CHARS_MAX, ModelServingError
from inferd.schemas.models import AliasChangedError, NoEarlierTargetError, VersionExistsError, VersionInUseError
from inferd.schemas.rollouts import GuardUnavailableError, RolloutConflictError, RolloutNotFoundError
from inferd.schemas.routes import RouteExistsError, RouteNotFoundError

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
    """An error that only HTTP has."""

    headers: ClassVar[dict[str, str]] = {}
    """Headers of the response."""
    closes_connection: ClassVar[bool] = False


class NotFoundError(HttpError):
    """No route has this path."""

    code, http_status, meaning = "not_found", 404, "no route has this path"


class MethodNotAllowedError(HttpError):
    """The path does not support this method."""

    code, http_status = "method_not_allowed", 405
    meaning = "the path does not support this method; `Allow` lists those it does"


class UnauthorizedError(HttpError):
    """The token is missing or unknown."""

    code, http_status, meaning = "unauthorized", 401, "the request has no bearer token, or an unknown one"
    headers: ClassVar[dict[str, str]] = {"WWW-Authenticate": 'Bearer realm="inferd"'}


class ForbiddenError(HttpError):
    """The token does not give this right; without tokens: the request may come from a web page of another site."""

    code, http_status = "forbidden", 403
    meaning = (
        "the bearer token is of another tenant, or lacks the role that the message names; on a worker without tokens,"
        " the request may come from a web page of another site"
    )


class NotAcceptableError(HttpError):
    """No format of the header `Accept` is available."""

    code, http_status, meaning = "not_acceptable", 406, "the response is not available in a format that `Accept` names"


class RequestTimeoutError(HttpError):
    """The body arrived too slowly."""

    code, http_status, meaning = "request_timeout", 408, "the request body arrived too slowly"
    retryable, closes_connection = True, True


class ClientClosedError(HttpError):
    """The client closed the connection before its request was complete. The response is only counted, not sent."""

    code, http_status, meaning = "client_closed", 499, "the client closed the connection"


class UnavailableError(HttpError):
    """The worker cannot do this now; the client retries, here or at another worker."""

    code, http_status, meaning = "unavailable", 503, "the worker is starting, draining, or cannot reach its broker"
    retryable = True


class DrainingError(UnavailableError):
    """The worker is draining; a new connection may reach another worker."""

    closes_connection = True


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
        AliasChangedError,
        NoEarlierTargetError,
        RolloutNotFoundError,
        RolloutConflictError,
        GuardUnavailableError,
        RouteNotFoundError,
        RouteExistsError,
        UnavailableError,
    )
}
"""The codes that HTTP has in addition to `inferd.schemas.errors.CODES`."""


def json_response(value: object, status: int = 200) -> web.Response:
    """A response with `value` (builtins, msgspec structs) as JSON."""
    return json_bytes(msgspec.json.encode(value), status)


def json_bytes(body: bytes, status: int = 200) -> web.Response:
    """A response with `body`, which is encoded JSON."""
    return web.Response(body=body, status=status, content_type="application/json", headers=SAFE_HEADERS)


def error_response(status: int, code: str, message: str) -> web.Response:
    """An error response: `{"error": {"code", "message"}}`."""
    return json_response({"error": {"code": code, "message": message[:MESSAGE_CHARS_MAX]}}, status)


def is_closed(request: web.Request) -> bool:
    """Whether the client's connection is closed."""
    return request.transport is None or request.transport.is_closing()


def typed_response(error: ModelServingError) -> web.Response:
    """The response for an error, with `Retry-After` if a retry may succeed."""
    response = error_response(error.http_status, error.code, error.message)
    if error.retryable and error.http_status in (429, 503):
        response.headers["Retry-After"] = "1"
    response.headers.update({name: (value or b"").decode() for name, value in error.result_headers})
    if isinstance(error, HttpError):
        response.headers.update(error.headers)
        if error.closes_connection:
            response.force_close()
    return response


@web.middleware
async def errors_as_json(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Converts any exception of a route into a JSON error; an unexpected one is logged and becomes `internal`."""
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
        404: f"there is no route {path}: GET /openapi.json lists all routes",
        405: f"{printable(request.method, 20)} is not allowed on {path}",
        413: "the body exceeds the limit INFERD_MESSAGE_BYTES_MAX",
    }
    code = CODES_OF_STATUS.get(status, "malformed" if status < 500 else "internal")
    return error_response(status, code, messages.get(status, f"the request was rejected with status {status}"))


def _with_allow(response: web.Response, error: web.HTTPException) -> web.Response:
    if "Allow" in error.headers:
        response.headers["Allow"] = error.headers["Allow"]
    return response
