"""`/openapi.json`, generated from the wire types and the error codes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any, Literal

import msgspec
from aiohttp import web

from inferd.daemon.http.core import ACCESS, HTTP_CODES, MEANINGS, ROLES, Access, Role, RouteKey, json_bytes
from inferd.daemon.http.routes.dead_letter_operations import DEAD_LETTERS
from inferd.daemon.http.routes.open_inference_operations import OPEN_INFERENCE
from inferd.daemon.http.routes.operating_operations import OPERATING
from inferd.daemon.http.routes.operation import BYTES, JSON, RECORD, Error, ErrorAnswer, Operation, Parameter
from inferd.daemon.http.routes.operations import CSRF_HEADER, OPERATIONS, TENANT
from inferd.daemon.http.routes.topic_operations import TOPICS
from inferd.daemon.version import inferd_version
from inferd.schemas.codecs import content_types
from inferd.schemas.errors import CODES

PATH = "/openapi.json"
ALL_OPERATIONS = (*OPERATIONS, *OPERATING, *DEAD_LETTERS, *TOPICS, *OPEN_INFERENCE)
ROLES_OF_OPERATIONS: Mapping[RouteKey, tuple[Role, ...]] = {
    (operation.method, operation.path): operation.roles for operation in ALL_OPERATIONS
}
"""For `create_app`: the roles that each route accepts."""
REF = "#/components/schemas/{name}"
DESCRIPTION = web.AppKey("openapi", dict[str, bytes])
ABOUT = (
    'Predictions, models and batch jobs of one tenant. Every error is a JSON object `{"error": {"code", "message"}}`;'
    " the meaning of a code never changes."
)
ABOUT_ROLES = "Roles of tokens: " + "; ".join(f"{role}: {meaning}" for role, meaning in MEANINGS.items()) + "."
TOO_LONG = "the request line or a header is too long (`too_large`)"
"""The connection itself rejects such requests, on any route."""


def add_openapi(app: web.Application) -> None:
    """Adds `/openapi.json`; it describes the routes that the application has at the first request for it."""
    app[DESCRIPTION] = {}
    app.router.add_get(PATH, openapi)


async def openapi(request: web.Request) -> web.Response:
    """The OpenAPI 3.1 document, generated once."""
    document = request.app[DESCRIPTION]
    if not document:
        operations = operations_of(request.app, ALL_OPERATIONS)
        document["json"] = msgspec.json.encode(describe(operations, request.app[ACCESS]))
    return json_bytes(document["json"])


def operations_of(app: web.Application, operations: Iterable[Operation]) -> list[Operation]:
    """The operations that the application has routes for."""
    routes = {
        (route.method.lower(), route.resource.canonical) for route in app.router.routes() if route.resource is not None
    }
    return [operation for operation in operations if (operation.method, operation.path) in routes]


def describe(operations: Sequence[Operation], access: Access) -> dict[str, Any]:
    """The OpenAPI document of these operations, with the authentication and tenant header that `access` requires."""
    operations = [_of_access(operation, access) for operation in operations]
    types = _types(operations)
    schemas, components = msgspec.json.schema_components(types, ref_template=REF)
    schema_of = dict(zip(map(_key, types), schemas, strict=True))
    paths: dict[str, dict[str, Any]] = {}
    for operation in operations:
        paths.setdefault(operation.path, {})[operation.method] = _operation(
            operation, schema_of, with_token=access.requires_token
        )
    components["Fault"]["properties"]["code"]["enum"] = [*CODES, *HTTP_CODES]
    return {
        "openapi": "3.1.0",
        "info": {"title": "inferd", "version": inferd_version(), "description": ABOUT},
        "paths": paths,
        "components": {
            "schemas": components,
            "securitySchemes": {"token": {"type": "http", "scheme": "bearer", "description": ABOUT_ROLES}},
        },
    }


def _of_access(operation: Operation, access: Access) -> Operation:
    """The operation with the headers that `access` requires."""
    if access.requires_token:
        kept = tuple(item for item in operation.parameters if item is not CSRF_HEADER)
        operation = replace(operation, parameters=kept)
    if TENANT not in operation.parameters:
        return operation
    others = tuple(item for item in operation.parameters if item is not TENANT)
    if access.requires_token or len(access.tenants) == 1:
        return replace(operation, parameters=others)
    named = replace(TENANT, type=Literal[access.tenants], required=True)
    return replace(operation, parameters=(*others, named))


def _types(operations: Sequence[Operation]) -> list[Any]:
    found: dict[str, Any] = {_key(ErrorAnswer): ErrorAnswer}
    for operation in operations:
        answers = [type_ for answer in operation.answers.values() for type_ in _alternatives(answer)]
        parameters = [item.type for item in operation.parameters]
        headers = [item.type for item in operation.headers]
        types = [*operation.body.values(), *answers, operation.error_body, *parameters, *headers]
        found |= {_key(type_): type_ for type_ in types}
    return list(found.values())


def _alternatives(answer: Any) -> tuple[Any, ...]:
    if answer is None:
        return ()
    return answer if isinstance(answer, tuple) else (answer,)


def _key(type_: Any) -> str:
    return repr(type_)


def _operation(operation: Operation, schema_of: dict[str, Any], *, with_token: bool) -> dict[str, Any]:
    responses = _answers(operation, schema_of) | _errors(operation, schema_of)
    if operation.headers:
        headers = {
            item.name: {"description": item.meaning, "schema": schema_of[_key(item.type)]} for item in operation.headers
        }
        responses = {status: {**response, "headers": headers} for status, response in responses.items()}
    described: dict[str, Any] = {
        "operationId": operation.name,
        "summary": operation.summary,
        "responses": responses,
    }
    if not operation.public:
        described["security"] = _security(operation, with_token=with_token)
    if operation.parameters:
        described["parameters"] = [_parameter(item, schema_of) for item in operation.parameters]
    if operation.body:
        content = {name: {"schema": _body(type_, schema_of)} for name, type_ in operation.body.items()}
        described["requestBody"] = {"required": True, "content": _by_media_type(content)}
    return described


def _security(operation: Operation, *, with_token: bool) -> list[dict[str, list[str]]]:
    """OpenAPI 3.1, "Security Requirement Object": one of these; for bearer tokens, the array lists the needed roles."""
    accepted: list[list[str]] = [[]] if operation.roles == ROLES else [[role] for role in operation.roles]
    return [{"token": roles} for roles in accepted] if with_token else [{}, *({"token": roles} for roles in accepted)]


def _by_media_type(contents: Mapping[str, Any]) -> dict[str, Any]:
    expanded = [(content_types() if name == RECORD else (name,), content) for name, content in contents.items()]
    return {media_type: content for media_types, content in expanded for media_type in media_types}


def _body(type_: Any, schema_of: dict[str, Any]) -> dict[str, Any]:
    """Binary bodies have no schema in OpenAPI 3.1: the media type describes them."""
    return {} if type_ is bytes else schema_of[_key(type_)]


def _parameter(item: Parameter, schema_of: dict[str, Any]) -> dict[str, Any]:
    return {
        "name": item.name,
        "in": item.place,
        "required": item.required or item.place == "path",
        "description": item.meaning,
        "schema": schema_of[_key(item.type)],
    }


def _answers(operation: Operation, schema_of: dict[str, Any]) -> dict[str, Any]:
    described = {}
    for status, answer in operation.answers.items():
        schemas = [schema_of[_key(type_)] for type_ in _alternatives(answer)]
        content = {"schema": schemas[0] if len(schemas) == 1 else {"anyOf": schemas}} if schemas else {}
        contents = _by_media_type({name: {} if name == BYTES else content for name in operation.media_types})
        described[str(status)] = {"description": "success", "content": contents}
    return described


def _errors(operation: Operation, schema_of: dict[str, Any]) -> dict[str, Any]:
    by_status: dict[int, list[Error]] = {}
    for error in dict.fromkeys(operation.errors):
        by_status.setdefault(error.http_status, []).append(error)
    content = {JSON: {"schema": schema_of[_key(operation.error_body)]}}
    described = {
        str(status): {
            "description": "; ".join(f"`{error.code}`: {error.meaning}" for error in errors),
            "content": content,
        }
        for status, errors in sorted(by_status.items())
    }
    too_long = {JSON: {"schema": schema_of[_key(ErrorAnswer)]}}
    return described | {"431": {"description": TOO_LONG, "content": too_long}}
