"""`/v2…`: the Open Inference Protocol V2, with its extensions for binary tensors and for the repository of models.

A version in a path is a version number or an alias. Errors have the protocol's shape: `{"error": "<code>: <message>"}`.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping

import msgspec
from aiohttp import web

from inferd.daemon.http.core import (
    LIMITS,
    SAFE_HEADERS,
    Respond,
    error_response,
    json_bytes,
    json_response,
    read_body,
    tenant_of,
)
from inferd.daemon.http.routes.models import MODELS
from inferd.daemon.http.routes.predictions import alias_headers, record_headers, result_within_timeout
from inferd.daemon.http.routes.services import ModelOverview, ModelVersion, VersionOverview
from inferd.daemon.printable import printable
from inferd.daemon.version import inferd_version
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InvalidValueError, MalformedError, ModelNotReadyError
from inferd.schemas.headers import JSON_LENGTH
from inferd.schemas.limits import Limits
from inferd.schemas.open_inference import (
    IndexRequest,
    Live,
    ModelReady,
    ProtocolError,
    RepositoryModel,
    RepositoryState,
    ServerMetadata,
    decode_request,
    encode_response,
    model_metadata,
    model_reference,
    parse_json_length,
    wire_request,
)
from inferd.schemas.requests import ModelReference, Prediction, decode_result

PREFIX = "/v2"
RECORD_LIMITS: web.AppKey[Limits] = web.AppKey("record_limits", Limits)
STATES: dict[str | None, RepositoryState] = {
    "ready": "READY", "unloaded": "READY", None: "LOADING", "fetching": "LOADING", "trying": "LOADING",
    "failed": "UNAVAILABLE",
}  # fmt: skip
"""By state of a version; None: this worker has not read it yet."""
MODEL = "/v2/models/{model_id}"
VERSION = MODEL + "/versions/{version}"


def add_open_inference(app: web.Application, ready: Respond, limits: Limits) -> None:
    """Adds `/v2…`, backed by the predictions and models of the application; `ready` answers as `/readyz` does."""
    app[RECORD_LIMITS] = limits
    app.middlewares.insert(0, errors_of_protocol)
    router = app.router
    router.add_get(PREFIX, server_metadata)
    router.add_get("/v2/health/live", live)
    router.add_get("/v2/health/ready", ready)
    for path in (MODEL, VERSION):
        router.add_get(path, metadata)
        router.add_get(f"{path}/ready", model_ready)
        router.add_post(f"{path}/infer", infer)
    router.add_post("/v2/repository/index", index)
    router.add_post("/v2/repository/models/{model_id}/load", load)
    router.add_post("/v2/repository/models/{model_id}/unload", unload)


@web.middleware
async def errors_of_protocol(request: web.Request, handler: Respond) -> web.StreamResponse:
    """Gives error responses of these routes the protocol's shape."""
    response = await handler(request)
    is_ours = request.path == PREFIX or request.path.startswith(PREFIX + "/")
    if is_ours and response.status >= 400 and isinstance(response, web.Response) and isinstance(response.body, bytes):
        error = msgspec.json.decode(response.body).get("error")
        if isinstance(error, Mapping):
            response.body = msgspec.json.encode(ProtocolError(f"{error['code']}: {error['message']}"))
    return response


# ------------------------------------------------------------------------------------------------ server and models


async def server_metadata(_request: web.Request) -> web.Response:
    """Name, version and extensions of the server."""
    return json_response(ServerMetadata(name="inferd", version=inferd_version()))


async def live(_request: web.Request) -> web.Response:
    """200 while the event loop is running."""
    return json_response(Live(live=True))


async def metadata(request: web.Request) -> web.Response:
    """Inputs and default output of a version, and all versions of its model."""
    tenant, reference, models = tenant_of(request), _reference(request), request.app[MODELS]
    found = await models.show_version(tenant, reference)
    overview = await models.show_model(tenant, reference.name)
    return json_response(model_metadata(found.manifest, [version.version for version in overview.versions]))


async def model_ready(request: web.Request) -> web.Response:
    """200 if a version answers requests; if not, 400 (the protocol asks for 4xx) with the reason."""
    found = await request.app[MODELS].show_version(tenant_of(request), _reference(request))
    try:
        _check_ready(found)
    except ModelNotReadyError as error:
        return error_response(400, error.code, error.message)
    return json_response(ModelReady(found.manifest.model_id, ready=True))


async def index(request: web.Request) -> web.Response:
    """All versions with their states; with `{"ready": true}` in the body, those that answer requests."""
    only_ready = (await _index_request(request)).ready
    models = await request.app[MODELS].list_models(tenant_of(request))
    found = [_indexed(model, version) for model in models for version in model.versions]
    return json_response([each for each in found if each.state == "READY" or not only_ready])


async def load(request: web.Request) -> web.Response:
    """Succeeds for a model that answers requests: workers load every deployed model by themselves."""
    _check_ready(await request.app[MODELS].show_version(tenant_of(request), _reference(request)))
    return json_response({})


async def unload(request: web.Request) -> web.Response:
    """Rejects the request: a single worker cannot unload a model."""
    reference = _reference(request)
    await request.app[MODELS].show_model(tenant_of(request), reference.name)
    raise InvalidValueError(
        f"{reference.name}: workers load and unload models by themselves; DELETE /models/{reference.name} removes it"
        " from all workers"
    )


def _reference(request: web.Request) -> ModelReference:
    """The model of the path; its version is a number or an alias."""
    return model_reference(request.match_info["model_id"], request.match_info.get("version"))


def _check_ready(found: ModelVersion) -> None:
    overview = found.overview
    if STATES[overview.state] != "READY":
        why = f" ({overview.reason})" if overview.reason else ""
        name = f"{found.manifest.model_id}:{overview.version}"
        raise ModelNotReadyError(f"{name} is {overview.state or 'not read yet'}{why}")


def _indexed(model: ModelOverview, version: VersionOverview) -> RepositoryModel:
    return RepositoryModel(
        name=model.model_id,
        version=str(version.version),
        state=STATES[version.state],
        reason=version.reason or msgspec.UNSET,
    )


async def _index_request(request: web.Request) -> IndexRequest:
    body = await read_body(request, request.app[LIMITS].body)
    try:
        return msgspec.json.decode(body or b"{}", type=IndexRequest)
    except (ValueError, RecursionError) as error:
        raise MalformedError(f"body: {printable(str(error), 200)}") from None


# --------------------------------------------------------------------------------------------------------- inference


async def infer(request: web.Request) -> web.StreamResponse:
    """Scores rows; tensors follow the JSON in the body and in the response where the request says so."""
    app_limits, limits, reference = request.app[LIMITS], request.app[RECORD_LIMITS], _reference(request)
    body = await read_body(request, app_limits.body)
    asked, binary = decode_request(body, _json_length(request), limits)
    value = wire_request(asked, binary, str(reference), uuid.uuid4().hex, limits)
    result = await result_within_timeout(request, value, record_headers(request, MSGPACK, app_limits.timeout_s))
    found = decode_result(result.value, MSGPACK, limits)
    if not isinstance(found, Prediction):
        raise found.error()
    data, json_length = encode_response(found, asked)
    if json_length is None:
        response = json_bytes(data)
        response.headers.update(alias_headers(result))
        return response
    headers = {
        **SAFE_HEADERS,
        **alias_headers(result),
        JSON_LENGTH: str(json_length),
        "Content-Type": "application/octet-stream",
    }
    return web.Response(body=data, headers=headers)


def _json_length(request: web.Request) -> int | None:
    given = request.headers.get(JSON_LENGTH)
    return None if given is None else parse_json_length(given)
