"""Whether two versions disagree about a row."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.models import Manifest, Postprocess
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.registry import format_named
from inferd.streams.inference.runtime import Arrays

TOLERANCE: Final = 0.01
"""Numbers disagree if they differ by more than this share of the greater magnitude."""
_THRESHOLD: Final = 0.5


@dataclass(frozen=True, slots=True, eq=False)
class _Classes:
    """The decisions of a classifier."""

    places: NDArray[np.intp]
    """intp (rows,): the index of the class."""
    labels: Sequence[Any] | None
    """The names of the classes; None if it has none."""


def disagreements(
    champion: ServedModel, of_champion: Arrays, shadow: ServedModel, of_shadow: Arrays
) -> NDArray[np.bool_] | None:
    """bool (rows,): whether the predictions of two versions disagree; None if they cannot be compared.

    Classes disagree if they differ: the label, the most probable class, or the side of the decision threshold, of each
    version by its own threshold. Numbers disagree if they differ by more than `TOLERANCE` of the greater magnitude, or
    if one of them is not a number. `of_champion` and `of_shadow` are arrays of the runtimes for the same rows.
    """
    first, then = _decisions(champion, of_champion), _decisions(shadow, of_shadow)
    if isinstance(first, _Classes) and isinstance(then, _Classes):
        return _other_class(first, then)
    if isinstance(first, _Classes) or isinstance(then, _Classes) or first is None or then is None:
        return None
    return _far_apart(first, then) if first.shape == then.shape else None


def _decisions(model: ServedModel, arrays: Arrays) -> _Classes | NDArray[np.float64] | None:
    """The classes, or the numbers, float64 (rows, values); None without a prediction, or if it is neither."""
    manifest = model.manifest
    (source,) = model.postprocessor.needed(("prediction",))
    values = arrays.get(source)
    if values is None or values.dtype.kind not in "biuf":
        return None
    spec = manifest.postprocess or Postprocess()
    if manifest.classes is not None:
        labels: Sequence[Any] = spec.labels or manifest.classes
        return _Classes(values if source == "prediction" else _chosen(values, spec, 2), labels)
    classes = format_named(manifest.runtime).class_count(manifest.objective, manifest.outputs or 1)
    if classes:
        return _Classes(_chosen(values, spec, classes if _one_value(manifest) else 0), spec.labels)
    return values.astype(np.float64).reshape(len(values), -1)


def _one_value(manifest: Manifest) -> bool:
    return (manifest.outputs or 1) == 1


def _chosen(values: NDArray[Any], spec: Postprocess, classes: int) -> NDArray[np.intp]:
    """The index of the class. `values`: float64 (rows,), the probability of the second of two; or (rows, classes)."""
    if values.ndim == 1:
        return (values >= (_THRESHOLD if spec.threshold is None else spec.threshold)).astype(np.intp)
    if classes == 2 and spec.threshold is not None:
        return (values[:, 1] >= spec.threshold).astype(np.intp)
    return np.asarray(values.argmax(axis=1), np.intp)


def _other_class(first: _Classes, then: _Classes) -> NDArray[np.bool_]:
    if first.labels is None or then.labels is None or list(first.labels) == list(then.labels):
        return np.asarray(first.places != then.places)
    names, others = (np.array(each.labels, object)[each.places] for each in (first, then))
    return np.asarray(names != others, np.bool_)


def _far_apart(first: NDArray[np.float64], then: NDArray[np.float64]) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        far = np.abs(first - then) > TOLERANCE * np.maximum(np.abs(first), np.abs(then))
    return np.asarray((far | (np.isnan(first) != np.isnan(then))).any(axis=1))
