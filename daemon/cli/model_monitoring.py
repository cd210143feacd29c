"""`inferd models windows`, `drift` and `quality`: what versions scored, how far that is from their baselines, and how
good it was."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

import click

from inferd.daemon.cli.options import Target, broker_options
from inferd.daemon.cli.output import report, write_result
from inferd.daemon.cli.session import run_with_broker
from inferd.schemas.monitoring import WINDOW_S, Drift, QualityReport, WindowStats, latency_quantile_ms
from inferd.schemas.requests import ModelReference

if TYPE_CHECKING:
    from inferd.monitoring import DriftReport

WINDOW_COLUMNS = (
    "minute",
    "version",
    "alias",
    "variant",
    "requests",
    "rows",
    "errors",
    "p50 ms",
    "p99 ms",
    "differing",
)
DRIFT_COLUMNS = ("version", "feature", "values", "psi", "js", "ks", "missing", "out of range", "unknown")
MEASURES = ("accuracy", "auc", "log_loss", "brier", "rmse", "mae")
QUALITY_COLUMNS = (
    "version",
    "alias",
    "variant",
    "rows",
    "labelled",
    "accuracy",
    "auc",
    "log loss",
    "brier",
    "rmse",
    "mae",
)
PREDICTION = "(prediction)"


def _window_options(command: Callable[..., None]) -> Callable[..., None]:
    command = click.option(
        "--since", "since_min", type=click.IntRange(1, 60 * 24 * 31), default=60, show_default=True, metavar="MINUTES",
        help="How far back.",
    )(command)  # fmt: skip
    return click.option("--group", help="Consumer group of the workers.  [default: the namespace]")(command)


@click.command(epilog="Example: inferd models windows churn --since 30")
@click.argument("reference", metavar="NAME[:VERSION]")
@_window_options
@broker_options
def windows(reference: str, since_min: int, group: str | None, target: Target) -> None:
    """List what the versions of NAME scored, minute by minute (docs/monitoring.md)."""
    parsed = ModelReference.parse(reference)

    async def run() -> list[WindowStats]:
        async with target.client() as client:
            return await client.model_windows(
                parsed.name, version=parsed.version, since_s=60 * since_min, group=group
            )  # fmt: skip

    found = run_with_broker(target.connection, run)
    write_result(target.output, found, WINDOW_COLUMNS, map(_window_row, found))


@click.command(epilog="Example: inferd models drift churn:3 --since 1440")
@click.argument("reference", metavar="NAME[:VERSION]")
@_window_options
@broker_options
def drift(reference: str, since_min: int, group: str | None, target: Target) -> None:
    """Compare what the versions of NAME scored with their baselines, feature by feature; the largest PSI first.

    PSI above 0.2 is worth a look (docs/monitoring.md).
    """
    parsed = ModelReference.parse(reference)

    async def run() -> list[DriftReport]:
        async with target.client() as client:
            return await client.model_drift(parsed.name, version=parsed.version, since_s=60 * since_min, group=group)

    found = run_with_broker(target.connection, run)
    measured = [each.drift for each in found if each.drift is not None]
    write_result(target.output, measured, DRIFT_COLUMNS, (row for each in measured for row in _drift_rows(each)))
    for each in found:
        report(_summary(each))


@click.command(epilog="Example: inferd models quality churn --since 10080")
@click.argument("reference", metavar="NAME[:VERSION]")
@_window_options
@broker_options
def quality(reference: str, since_min: int, group: str | None, target: Target) -> None:
    """Show how good the predictions of the versions of NAME were, by the labels of requests scored since then.

    Rows of a version that several variants of an alias have scored are listed apart (docs/quality.md).
    """
    parsed = ModelReference.parse(reference)

    async def run() -> list[QualityReport]:
        async with target.client() as client:
            return await client.model_quality(
                parsed.name, version=parsed.version, since_s=60 * since_min, group=group
            )  # fmt: skip

    found = run_with_broker(target.connection, run)
    write_result(target.output, found, QUALITY_COLUMNS, map(_quality_row, found))
    if not found:
        report(f"no labels of requests to {reference} in the last {since_min} minutes")


COMMANDS = (windows, drift, quality)


def _quality_row(found: QualityReport) -> tuple[object, ...]:
    measures = (getattr(found, name) for name in MEASURES)
    return found.version, found.alias, found.variant, found.rows, found.labelled_rows, *map(_rounded, measures)


def _window_row(window: WindowStats) -> tuple[object, ...]:
    minute = datetime.fromtimestamp(window.minute * WINDOW_S, UTC).isoformat(timespec="minutes")
    errors = ", ".join(f"{code} {count}" for code, count in sorted(window.errors.items())) or None
    quantiles = (_rounded(latency_quantile_ms(window.latency, quantile)) for quantile in (0.5, 0.99))
    return (minute, window.version, window.alias, window.variant, window.requests, window.rows, errors, *quantiles,
            f"{window.differing} of {window.compared}" if window.compared else None)  # fmt: skip


def _drift_rows(drift: Drift) -> Iterator[tuple[object, ...]]:
    if (found := drift.prediction) is not None:
        yield drift.version, PREDICTION, None, *map(_rounded, (found.psi, found.js, found.ks)), None, None, None
    for each in drift.features:
        distances = map(_rounded, (each.psi, each.js, each.ks))
        shares = map(_percent, (each.missing, each.out_of_range, each.unknown))
        yield drift.version, each.name, each.values, *distances, *shares


def _summary(found: DriftReport) -> str:
    window, drift = found.window, found.drift
    version = f"{window.model_id}:{window.version}"
    if drift is None:
        return f"{version} has no baseline yet: deploy with --baseline, or wait until 10,000 rows were scored"
    source = "given with the deploy" if drift.source == "given" else "learned from the first rows that were scored"
    few = "" if drift.enough else "; too few rows for a judgement"
    return f"{version}: {drift.rows} rows, compared with {drift.baseline_rows} of a baseline {source}{few}"


def _rounded(value: float | None) -> float | None:
    return None if value is None else float(f"{value:.3g}")


def _percent(share: float) -> str:
    return f"{share:.1%}"
