"""`/models…`: deploys, aliases and removal of a tenant's models. A change at one worker reaches all workers."""

from __future__ import annotations

import re
from collections.abc import Callable
from http import HTTPStatus

from aiohttp import web
from msgspec import Struct

from inferd.daemon.http.core import LIMITS, Respond, codec_of_request, json_response, read_body, tenant_of
from inferd.daemon.http.routes.services import ModelOverview, Models
from inferd.daemon.http.routes.uploads import Uploads
from inferd.schemas.errors import InvalidIdError, InvalidValueError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, check_model_name, decode_target
from inferd.schemas.monitoring import Baseline
from inferd.schemas.requests import ModelReference

MODELS: web.AppKey[Models] = web.AppKey("models", Models)
UPLOADS = web.AppKey("uploads", Uploads)
_VERSION = re.compile(r"[1-9][0-9]{0,8}", re.ASCII)
ReferenceOf = Callable[[web.Request], ModelReference]


class ModelsAnswer(Struct, frozen=True):
    """The models of a tenant, by name."""

    models: list[ModelOverview]


class AliasAnswer(Struct, frozen=True):
    """An alias, with its target, revision and history."""

    model_id: str
    alias: str
    target: Alias


class AliasesAnswer(Struct, frozen=True):
    """The aliases of a model by name, with their history."""

    model_id: str
    aliases: dict[str, Alias]


class BaselineAnswer(Struct, frozen=True):
    """The baseline of a version; null if it has none yet."""

    baseline: Baseline | None


class RemovedAnswer(Struct, frozen=True):
    """Keys of the records that were removed: `<model id>/<version>` or `<model id>@<alias>`."""

    removed: list[str]


def add_models(app: web.Application, models: Models, uploads: Uploads) -> None:
    """Adds `/models…`, backed by `models`; `uploads` receives model files."""
    app[MODELS], app[UPLOADS] = models, uploads
    router = app.router
    router.add_get("/models", list_models)
    router.add_get("/models/{model_id}/aliases", list_aliases)
    router.add_post(f"{ALIAS_PATH}/rollback", rollback_alias)
    router.add_post(f"{ALIAS_PATH}/promote", promote_alias)
    router.add_get("/models/{model_id}/versions/{version}/baseline", show_baseline)
    for path, reference_of in REFERENCE_PATHS.items():
        router.add_get(path, _get(reference_of))
        router.add_delete(path, _delete(reference_of))
        router.add_put(path, put_alias if path == ALIAS_PATH else _put_version(reference_of))


async def list_models(request: web.Request) -> web.StreamResponse:
    """Every model of the tenant."""
    tenant = tenant_of(request)
    return json_response(ModelsAnswer(list(await request.app[MODELS].list_models(tenant))))


async def put_alias(request: web.Request) -> web.StreamResponse:
    """Points an alias at a version, or splits it between versions."""
    tenant, reference = tenant_of(request), _alias_reference(request)
    codec = codec_of_request(request)
    target = decode_target(await read_body(request, request.app[LIMITS].body), DEFAULT_LIMITS, codec)
    name, alias = reference.name, reference.alias or ""
    changed = await request.app[MODELS].set_alias(
        tenant, name, alias, target, revision=_revision(request), changed_by=_changed_by(request)
    )
    return json_response(AliasAnswer(name, alias, changed))


async def show_baseline(request: web.Request) -> web.StreamResponse:
    """What features and predictions of a version are compared with."""
    tenant, reference = tenant_of(request), _version_reference(request)
    return json_response(BaselineAnswer(await request.app[MODELS].baseline(tenant, reference)))


async def list_aliases(request: web.Request) -> web.StreamResponse:
    """The aliases of a model, with their history."""
    name = check_model_name(request.match_info["model_id"])
    return json_response(AliasesAnswer(name, dict(await request.app[MODELS].aliases(tenant_of(request), name))))


async def rollback_alias(request: web.Request) -> web.StreamResponse:
    """Points an alias at its earlier target."""
    tenant, reference = tenant_of(request), _alias_reference(request)
    name, alias = reference.name, reference.alias or ""
    changed = await request.app[MODELS].rollback_alias(
        tenant, name, alias, revision=_revision(request), changed_by=_changed_by(request)
    )
    return json_response(AliasAnswer(name, alias, changed))


async def promote_alias(request: web.Request) -> web.StreamResponse:
    """Points another alias at the target of this one."""
    tenant, reference = tenant_of(request), _alias_reference(request)
    name, alias, to = reference.name, reference.alias or "", check_model_name(request.query.get("to", ""))
    changed = await request.app[MODELS].promote_alias(
        tenant, name, alias, to, revision=_revision(request), changed_by=_changed_by(request)
    )
    return json_response(AliasAnswer(name, to, changed))


def _get(reference_of: ReferenceOf) -> Respond:
    async def get_model(request: web.Request) -> web.StreamResponse:
        tenant, reference, models = tenant_of(request), reference_of(request), request.app[MODELS]
        if reference.version is None and reference.alias is None:
            return json_response(await models.show_model(tenant, reference.name))
        return json_response(await models.show_version(tenant, reference))

    return get_model


def _delete(reference_of: ReferenceOf) -> Respond:
    async def delete_model(request: web.Request) -> web.StreamResponse:
        tenant, reference = tenant_of(request), reference_of(request)
        everything, move_to = _flag(request, "all"), _version_parameter(request, "move_aliases_to")
        removed = await request.app[MODELS].remove(tenant, reference, everything=everything, move_aliases_to=move_to)
        return json_response(RemovedAnswer(list(removed)))

    return delete_model


def _put_version(reference_of: ReferenceOf) -> Respond:
    async def put_version(request: web.Request) -> web.StreamResponse:
        tenant, reference = tenant_of(request), reference_of(request)
        if reference.alias is not None:
            raise InvalidIdError(f"{reference} is an alias: use PUT /models/{reference.name}/aliases/{reference.alias}")
        async with request.app[UPLOADS].receive(request, reference) as deploy:
            deployed = await request.app[MODELS].deploy(tenant, deploy)
        status = HTTPStatus.CREATED if deployed.created else HTTPStatus.OK
        return json_response(deployed.manifest, status)

    return put_version


def _reference(request: web.Request) -> ModelReference:
    return ModelReference.parse(request.match_info["model_id"])


def _version_reference(request: web.Request) -> ModelReference:
    version = request.match_info["version"]
    if not _VERSION.fullmatch(version):
        raise InvalidIdError(f"version {version[:80]!r}: expected a positive integer")
    return ModelReference(check_model_name(request.match_info["model_id"]), version=int(version))


def _alias_reference(request: web.Request) -> ModelReference:
    name, alias = request.match_info["model_id"], request.match_info["alias"]
    return ModelReference(check_model_name(name), alias=check_model_name(alias))


def _flag(request: web.Request, name: str) -> bool:
    value = request.query.get(name, "false")
    if value not in ("true", "false"):
        raise InvalidValueError(f"query parameter {name}={value[:80]!r}: expected true or false")
    return value == "true"


def _version_parameter(request: web.Request, name: str) -> int | None:
    value = request.query.get(name)
    if value is None:
        return None
    if not _VERSION.fullmatch(value):
        raise InvalidValueError(
            f"query parameter {name}={value[:80]!r}: expected a version number (a positive integer)"
        )
    return int(value)


def _revision(request: web.Request) -> int | None:
    value = request.query.get("revision")
    if value is None:
        return None
    if not re.fullmatch(r"[0-9]{1,15}", value, re.ASCII):
        raise InvalidValueError(f"query parameter revision={value[:80]!r}: expected a revision number")
    return int(value)


def _changed_by(request: web.Request) -> str:
    return request.query.get("changed_by") or "http"


ALIAS_PATH = "/models/{model_id}/aliases/{alias}"
REFERENCE_PATHS: dict[str, ReferenceOf] = {
    "/models/{model_id}": _reference,
    "/models/{model_id}/versions/{version}": _version_reference,
    ALIAS_PATH: _alias_reference,
}
