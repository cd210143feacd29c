"""`inferd models`: deploys, lists, shows and removes the models of a tenant; aliases are in `model_aliases`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from inferd.daemon.cli.model_aliases import COMMANDS as ALIAS_COMMANDS
from inferd.daemon.cli.model_monitoring import COMMANDS as MONITORING_COMMANDS
from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import (
    report,
    report_error,
    write_json,
    write_result,
    write_table,
)
from inferd.daemon.cli.session import run_with_broker
from inferd.schemas.errors import MalformedError
from inferd.schemas.models import (
    CHAMPION,
    Alias,
    Feature,
    Manifest,
    alias_label,
    alias_labels,
    dangling_alias_message,
    shares,
)
from inferd.schemas.requests import ModelReference, Scalar
from inferd.schemas.topics import DEFAULT_TENANT

if TYPE_CHECKING:
    from inferd.models import ModelList

LIST_COLUMNS = ("model", "version", "aliases", "objective", "features", "size", "sha256", "deployed")
DIGEST_CHARS = 12
EXAMPLE_FEATURES_MAX = 20
CLASSES_SHOWN = 20


class ModelSource(click.Path):
    """The path of a file, or a URI of MLflow (a string)."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        """A `Path`, or the URI."""
        from inferd.mlflow import is_mlflow_uri

        return value if isinstance(value, str) and is_mlflow_uri(value) else super().convert(value, param, ctx)


@click.group(epilog="Example: inferd models deploy model.txt --name churn, and then: inferd models list")
def models() -> None:
    """Deploy, list, show or remove the models of a tenant, and move their aliases.

    A deploy needs only the broker: it writes the model to the tenant's topics, from which all workers load it.
    """


@models.command(epilog="Example: inferd models deploy model.txt --name churn --alias champion")
@click.argument("model", type=ModelSource(exists=True, path_type=Path))
@click.option("--name", required=True, help="Name of the model.")
@click.option("--version", type=click.IntRange(1), help="Version number.  [default: the next one]")
@click.option("--alias", help="Also point NAME@ALIAS at it. A bare NAME means NAME@champion, if that alias exists.")
@click.option(
    "--manifest",
    "manifest_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="JSON file with fields that the model file does not have: preprocess, postprocess, warmup, labels…",
)
@click.option(
    "--trial/--no-trial", default=True, show_default=True, help="First load and run the model once on this machine."
)
@click.option(
    "--baseline",
    "baseline_path",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="File of training rows (CSV, NDJSON, Parquet), with which requests are compared; only histograms are stored.",
)
@broker_options
def deploy(
    model: Path | str,
    name: str,
    version: int | None,
    alias: str | None,
    manifest_path: Path | None,
    trial: bool,
    baseline_path: Path | None,
    target: Target,
) -> None:
    """Deploy MODEL, a model file of LightGBM, XGBoost, CatBoost, scikit-learn or ONNX (docs/models.md).

    MODEL may also be in MLflow: models:/NAME@ALIAS, models:/NAME/VERSION or runs:/RUN_ID/PATH, on the tracking server
    of MLFLOW_TRACKING_URI. Its alias and signature are taken over.

    Features, categories and objective are read from the file. The file is checked before it is sent. Each worker tests
    the new version before it serves it, and serves the previous one until then.
    """
    from inferd.daemon.cli.baseline_rows import baseline_rows
    from inferd.deploy import deploy_file
    from inferd.mlflow import TrackingServer, fetch_mlflow_model

    given = None if manifest_path is None else _manifest_json(manifest_path)

    async def run() -> tuple[Manifest, ModelList]:
        content: bytes | str | Path = model
        fields, pointed = given, alias
        if isinstance(model, str):
            fetched = await fetch_mlflow_model(model, TrackingServer.from_environment(os.environ), target.limits)
            content, fields, pointed = fetched.content, fetched.manifest(given), alias or fetched.alias
        async with target.client() as client:
            deployed = await deploy_file(
                client,
                content,
                name,
                version=version,
                manifest=fields,
                alias=pointed,
                trial=trial,
                trial_limits=target.trial.limits(target.limits),
                baseline=None if baseline_path is None else partial(baseline_rows, baseline_path),
            )
            return deployed, await client.models()

    deployed, found = run_with_broker(target.connection, run)
    write_result(target.output, deployed, LIST_COLUMNS, [_list_row(deployed, found.aliases_of(name))])
    tenant = "" if target.tenant == DEFAULT_TENANT else f"--tenant {target.tenant} "
    report(f"try it: inferd predict {tenant}{name}:{deployed.version} {_example_input(deployed)}")
    for hint in (_served_version_hint(found, deployed), _class_names_hint(deployed)):
        if hint is not None:
            report(hint)


@models.command("list", epilog="Example: inferd models list --output json")
@broker_options
def list_models(target: Target) -> None:
    """List the deployed versions of all models."""
    found = _read(target)
    manifests = [manifest for name in sorted(found.highest) for manifest in found.versions_of(name)]
    rows = [_list_row(manifest, found.aliases_of(manifest.model_id)) for manifest in manifests]
    write_result(target.output, manifests, LIST_COLUMNS, rows)
    for alias, missing in found.dangling().items():
        report_error(dangling_alias_message(alias, missing))
    for key, reason in found.unreadable.items():
        report_error(f"record {key!r} of {target.topics.name('models')} cannot be decoded: {reason}")


@models.command(epilog="Example: inferd models show churn:2")
@click.argument("reference", metavar="NAME[:VERSION|@ALIAS]")
@broker_options
def show(reference: str, target: Target) -> None:
    """Show the manifest of a version: its features, outputs and settings.

    A bare NAME is resolved as in a request: to NAME@champion, or else to the newest version.
    """
    from inferd.models import manifest_behind

    found = _read(target)
    manifest = manifest_behind(found, ModelReference.parse(reference))
    if target.output == "json":
        write_json(manifest)
        return
    write_table(("field", "value"), _facts(manifest, found.aliases_of(manifest.model_id)))
    click.echo()
    write_table(("feature", "dtype", "allowed", "missing"), [_feature_row(feature) for feature in manifest.features])


for _command in (*ALIAS_COMMANDS, *MONITORING_COMMANDS):
    models.add_command(_command)


@models.command(epilog="Example: inferd models remove churn:1")
@click.argument("reference", metavar="NAME:VERSION|NAME@ALIAS|NAME")
@click.option("--all", "everything", is_flag=True, help="Remove all versions and aliases of NAME.")
@click.option(
    "--move-aliases-to",
    type=click.IntRange(1),
    metavar="VERSION",
    help="First move aliases of the removed version to this one.",
)
@broker_options
def remove(reference: str, everything: bool, move_aliases_to: int | None, target: Target) -> None:
    """Remove a version or an alias, or with --all a whole model. All workers stop serving it.

    A version that an alias points at is not removed, since requests to the alias would fail: move the alias to another
    version in the same step (--move-aliases-to), or remove the alias first.
    """

    async def run() -> list[str]:
        async with target.client() as client:
            return await client.remove_model(reference, everything=everything, move_aliases_to=move_aliases_to)

    removed = run_with_broker(target.connection, run)
    write_result(target.output, {"removed": removed}, ("removed",), [[key] for key in removed])


def _read(target: Target) -> ModelList:
    async def run() -> ModelList:
        async with target.client() as client:
            return await client.models()

    return run_with_broker(target.connection, run)


def _manifest_json(path: Path) -> dict[str, Any]:
    import msgspec

    try:
        return msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"--manifest {path}: not a JSON object: {error}") from error


def _list_row(manifest: Manifest, aliases: dict[str, Alias]) -> list[object]:
    return [
        manifest.model_id,
        manifest.version,
        ", ".join(alias_labels(aliases, manifest.version)) or None,
        manifest.objective,
        len(manifest.features),
        _size(manifest.size),
        manifest.sha256[:DIGEST_CHARS],
        manifest.created_at,
    ]


def _served_version_hint(models: ModelList, deployed: Manifest) -> str | None:
    """Says which versions serve requests to the bare name; None if it is the deployed version alone."""
    name = deployed.model_id
    champion = models.aliases_of(name).get(CHAMPION)
    if champion is None:
        newest = models.versions_of(name)[-1].version
        return None if newest == deployed.version else f"requests to {name} are served by its newest version, {newest}"
    if shares(champion).keys() == {deployed.version}:
        return None
    served = ", ".join(alias_label(f"version {number}", champion, number) for number in shares(champion))
    return (
        f"requests to {name} are served by {served}, because of its alias {CHAMPION}; to point the alias at this"
        f" version: inferd models alias {name}@{CHAMPION} {deployed.version}"
    )


def _class_names_hint(deployed: Manifest) -> str | None:
    """Explains how to name the classes of a multiclass model without labels; None for any other model."""
    from inferd.streams.inference import format_named

    if deployed.classes is not None:
        return None
    classes = format_named(deployed.runtime).class_count(deployed.objective, deployed.outputs or 1)
    if classes != deployed.outputs or (deployed.postprocess and deployed.postprocess.labels):
        return None
    return (
        f"its prediction is a list of {deployed.outputs} probabilities, ordered by class number; to get class names"
        " instead, deploy it with --manifest and postprocess.labels (docs/models.md)"
    )


def _facts(manifest: Manifest, aliases: dict[str, Alias]) -> Iterator[tuple[str, object]]:
    yield "model", manifest.model_id
    yield "version", manifest.version
    yield "aliases", ", ".join(alias_labels(aliases, manifest.version)) or None
    yield "runtime", manifest.runtime
    yield "objective", manifest.objective
    yield "outputs", manifest.outputs
    yield "own outputs", ", ".join(manifest.output_names or ()) or None
    yield "classes", _classes(manifest)
    if not manifest.batching:
        yield "batching", "no: rows are scored one by one, because a batch would change the bits of some predictions"
    yield "size", _size(manifest.size)
    yield "sha256", manifest.sha256
    yield "deployed", manifest.created_at
    for name in ("preprocess", "postprocess", "cache", "labels"):
        if (value := getattr(manifest, name)) is not None:
            yield name, _compact_json(value)


def _classes(manifest: Manifest) -> str | None:
    """The class labels, in the order of `probabilities`."""
    if manifest.classes is None:
        return None
    shown = ", ".join(map(str, manifest.classes[:CLASSES_SHOWN]))
    more = len(manifest.classes) - CLASSES_SHOWN
    return f"{shown}, … {more} more" if more > 0 else shown


def _feature_row(feature: Feature) -> tuple[object, ...]:
    missing = {None: "null", True: "rejected", False: "null or omitted"}[feature.required]
    return feature.name, feature.dtype, _allowed(feature), missing


def _allowed(feature: Feature) -> str | None:
    if (described := feature.described_categories) is not None and described.kind == "any":
        return "any text"
    if described is not None:
        shown = [str(value) for value in described.first]
        more = described.count - len(shown)
        return ", ".join(shown) + (f", … {more} more" if more else "") or "none"
    if feature.min is None and feature.max is None:
        return None
    return f"{'' if feature.min is None else feature.min} … {'' if feature.max is None else feature.max}"


def _example_input(manifest: Manifest) -> str:
    if len(manifest.features) > EXAMPLE_FEATURES_MAX:
        return "rows.csv"
    return f"'{_compact_json([_example_value(feature) for feature in manifest.features])}'"


def _example_value(feature: Feature) -> Scalar:
    if feature.dtype == "text":
        return "text"
    if feature.dtype != "category":
        return 0
    described = feature.described_categories
    if described is not None and described.kind == "any":
        return "text"
    return described.first[0] if described is not None and described.first else None


def _compact_json(value: object) -> str:
    import msgspec

    return msgspec.json.encode(value).decode()


def _size(size: int) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1_000:
            return f"{size:.3g} {unit}"
        size = size / 1_000  # type: ignore[assignment]
    return f"{size:.3g} GB"
