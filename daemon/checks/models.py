"""Checks of models and routes: every version on the topics is assembled, tried and loaded, as in a worker."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

from inferd.daemon.checks import Check, attempt
from inferd.daemon.checks.routes import check_routes
from inferd.daemon.cluster import metadata
from inferd.daemon.settings import Settings
from inferd.schemas.errors import ModelServingError
from inferd.schemas.models import AliasKey, dangling_alias_message
from inferd.schemas.topics import Stream, TenantTopics
from inferd.streams.inference import ModelCatalog, Version
from inferd.streams.models.follower import ModelFollower
from inferd.streams.models.rejections import ModelRecord
from inferd.streams.routes import RouteTable

STREAMS: tuple[Stream, ...] = ("models", "model-artifacts")
REMEDY_NONE = "inferd models deploy MODEL --name NAME"


async def check_models_and_routes(settings: Settings) -> list[Check]:
    """One check for each version that cannot be served and one for all others; then those of the routes."""
    names = [TenantTopics(settings.namespace, tenant).name(stream) for tenant in settings.tenants for stream in STREAMS]
    if not (await metadata(settings.connection())).topics() >= set(names):
        return [Check("models", "skip", "their topics do not exist")]
    problems: list[str] = []
    not_routes: list[Check] = []

    def rejected(record: ModelRecord, error: ModelServingError) -> None:
        if record.topic.endswith(".routes"):
            detail = f"a record was rejected, {record.topic}: {error.message}"
            not_routes.append(Check("routes", "fail", detail, "create the route again: inferd routes create --replace"))
        else:
            problems.append(f"{record.topic}: {error.message}")

    with TemporaryDirectory(prefix="inferd-doctor-") as folder:
        # A separate directory: a worker on this machine may be using its own.
        wanted = replace(settings.streams(), data_dir=Path(folder), worker_id=f"{settings.worker_id}-doctor")
        table = RouteTable(wanted.tenants, wanted.limits)
        follower = ModelFollower(wanted, rejected, on_route=table.apply)
        try:
            await follower.start()
            found = await attempt("routes", lambda: check_routes(wanted, table.routes, follower.catalogs))
            return [*model_checks(follower.catalogs, problems), *not_routes, *found]
        finally:
            await follower.stop()


def model_checks(catalogs: Mapping[str, ModelCatalog], problems: list[str]) -> list[Check]:
    """The checks for catalogs that have been read to the end."""
    versions = [(tenant, version) for tenant, catalog in catalogs.items() for version in catalog.versions()]
    broken = [(tenant, version) for tenant, version in versions if version.state != "ready"]
    checks = [_broken(tenant, version) for tenant, version in broken]
    reasons = [version.reason for _, version in broken if version.reason]
    others = [problem for problem in problems if not any(reason in problem for reason in reasons)]
    checks += [Check("models", "fail", f"a record was rejected, {problem}", "deploy it again") for problem in others]
    checks += [_dangling(tenant, name, alias, missing) for tenant, name, alias, missing in _all_dangling(catalogs)]
    if not versions and not checks:
        return [Check("models", "warn", "no model is deployed", REMEDY_NONE)]
    ready = len(versions) - len(broken)
    return [*checks, Check("models", "ok", f"{ready} versions load and predict")] if ready else checks


def _all_dangling(catalogs: Mapping[str, ModelCatalog]) -> Iterator[tuple[str, str, str, list[int]]]:
    for tenant, catalog in catalogs.items():
        for (name, alias), missing in catalog.dangling_aliases().items():
            yield tenant, name, alias, missing


def _dangling(tenant: str, name: str, alias: str, missing: list[int]) -> Check:
    detail = f"tenant {tenant}: {dangling_alias_message(AliasKey(name, alias), missing)}"
    remedy = f"inferd models remove {name}@{alias}, or deploy a version with --alias {alias}"
    return Check("models", "fail", detail, remedy)


def _broken(tenant: str, version: Version) -> Check:
    manifest = version.manifest
    detail = f"{manifest.model_id}:{manifest.version} of tenant {tenant} is {version.state}: {version.reason}"
    state = "fail" if version.state == "failed" else "warn"
    return Check("models", state, detail, "deploy it again, or remove it: inferd models remove")  # type: ignore[arg-type]
