"""Reports of quality: the measures of each version, alias and variant, from their windows."""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from inferd.schemas.monitoring.window import Variant, WindowStats, merged


class CalibrationBin(msgspec.Struct, frozen=True):
    """The binary rows whose probability is in one tenth."""

    probability: float
    """Mean of the predicted probabilities of the second class."""
    positives: float
    """Share of the second class."""
    weight: float


class QualityReport(msgspec.Struct, frozen=True, kw_only=True):
    """How good the predictions of one version were. Measures that do not fit the model are None."""

    model_id: str
    version: int
    alias: str | None
    variant: Variant | None
    rows: int
    """Rows that were scored."""
    labelled_rows: int
    """Those of them whose labels have come."""
    accuracy: float | None
    auc: float | None
    log_loss: float | None
    brier: float | None
    rmse: float | None
    mae: float | None
    calibration: list[CalibrationBin]


def quality_reports(windows: Iterable[WindowStats]) -> list[QualityReport]:
    """A report for each version, alias and variant that has labels."""
    groups: dict[tuple[int, str, str], list[WindowStats]] = {}
    for window in windows:
        groups.setdefault((window.version, window.alias or "", window.variant or ""), []).append(window)
    totals = [total for _, group in sorted(groups.items()) if (total := merged(group)) is not None]
    return [_report(total) for total in totals if total.quality.rows]


def _report(total: WindowStats) -> QualityReport:
    found = total.quality
    return QualityReport(
        model_id=total.model_id, version=total.version, alias=total.alias, variant=total.variant, rows=total.rows,
        labelled_rows=found.rows, accuracy=found.accuracy, auc=found.auc, log_loss=found.log_loss, brier=found.brier,
        rmse=found.rmse, mae=found.mae, calibration=[CalibrationBin(*each) for each in found.calibration()],
    )  # fmt: skip
