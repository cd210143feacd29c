"""Converts a runtime's arrays to the values of a result, following the manifest's `postprocess`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InvalidValueError, SchemaMismatchError
from inferd.schemas.models import ClassLabel, Manifest, Postprocess
from inferd.schemas.requests import Output
from inferd.streams.inference.registry import format_named
from inferd.streams.inference.runtime import Arrays

_THRESHOLD = 0.5

Predictions = Callable[[NDArray[Any]], list[Any]]


class Postprocessor:
    """The postprocessing of one model version. Immutable and thread-safe.

    Labels, threshold and top-k only change `prediction`. Numbers are Python floats equal to the float64; leaves are
    ints.
    """

    def __init__(self, predictions: Predictions, source: Output = "prediction") -> None:
        """`source`: the runtime's array from which `predictions` makes `prediction`."""
        self._predictions = predictions
        self._source = source

    def needed(self, outputs: tuple[Output, ...]) -> tuple[Output, ...]:
        """The arrays that the runtime must compute for `outputs`: `prediction` is derived from the source array."""
        return tuple(dict.fromkeys(self._source if output == "prediction" else output for output in outputs))

    def check(self, arrays: Arrays) -> NDArray[np.bool_] | None:
        """bool (rows,): True for rows with a value that is not finite and so not allowed in a result; None if there are
        none."""
        numbers = [values for values in arrays.values() if values.dtype.kind == "f"]
        finite = [mask for values in numbers if not (mask := np.isfinite(values)).all()]
        if not finite:
            return None
        rows: NDArray[np.bool_] = np.any([~mask.reshape(len(mask), -1).all(axis=1) for mask in finite], axis=0)
        return rows

    def columns(self, arrays: Arrays, outputs: tuple[Output, ...]) -> dict[Output, list[Any]]:
        """`columns[output][row]`: for each of `outputs`, in order, one JSON-serializable value per row."""
        return {
            output: self._predictions(arrays[self._source]) if output == "prediction" else arrays[output].tolist()
            for output in outputs
        }

    def values(self, arrays: Arrays, outputs: tuple[Output, ...], rows: slice, *, single: bool) -> dict[str, Any]:
        """The values of `Prediction.outputs` for one request, the given `rows` of the batch: one value if `single`,
        else a list."""
        columns = self.columns({output: values[rows] for output, values in arrays.items()}, outputs)
        return {output: column[0] if single else column for output, column in columns.items()}


def compile_postprocess(manifest: Manifest) -> Postprocessor:
    """The postprocessor of a version whose manifest is complete, with objective and outputs.

    Raises `InvalidValueError` for settings that the objective does not allow, `SchemaMismatchError` if the number of
    labels is not the number of classes.
    """
    spec = manifest.postprocess or Postprocess()
    if manifest.classes is not None:
        return _of_classes(spec, manifest.classes)
    if spec == Postprocess():
        return Postprocessor(_as_is)
    classes = format_named(manifest.runtime).class_count(manifest.objective, manifest.outputs or 1)
    _check(spec, classes, manifest.objective)
    labels: list[Any] = list(range(classes)) if spec.labels is None else list(spec.labels)
    if spec.top_k is not None:
        return Postprocessor(_top_k(spec.top_k, labels))
    if classes == 2 and (manifest.outputs or 1) == 1:
        return Postprocessor(_by_threshold(_threshold(spec), labels))
    return Postprocessor(_most_likely(labels))


def _of_classes(spec: Postprocess, classes: Sequence[ClassLabel]) -> Postprocessor:
    """The postprocessor of a model that predicts indexes of class labels. Threshold and top-k need its
    probabilities."""
    if spec != Postprocess():
        _check(spec, len(classes), None)
    labels: list[Any] = list(classes if spec.labels is None else spec.labels)
    if spec.top_k is not None:
        return Postprocessor(_top_k(spec.top_k, labels), "probabilities")
    if spec.threshold is not None:
        return Postprocessor(_by_second(spec.threshold, labels), "probabilities")
    return Postprocessor(_at_index(labels))


def _threshold(spec: Postprocess) -> float:
    return _THRESHOLD if spec.threshold is None else spec.threshold


def _check(spec: Postprocess, classes: int, objective: str | None) -> None:
    given = ", ".join(name for name in ("labels", "threshold", "top_k") if getattr(spec, name) is not None)
    if not classes:
        raise InvalidValueError(
            f"manifest: postprocess ({given}) needs classes, objective {objective or 'custom'} has none"
        )
    if spec.labels is not None and len(spec.labels) != classes:
        raise SchemaMismatchError(f"manifest: postprocess.labels has {len(spec.labels)} labels for {classes} classes")
    if spec.labels is not None and len(set(spec.labels)) < classes:
        raise InvalidValueError("manifest: postprocess.labels has the same label twice")
    if spec.threshold is not None and (classes != 2 or spec.top_k is not None):
        raise InvalidValueError(
            "manifest: postprocess.threshold is for binary models, and cannot be combined with top_k"
        )
    if spec.threshold is not None and not 0.0 <= spec.threshold <= 1.0:
        raise InvalidValueError("manifest: postprocess.threshold is not between 0 and 1")
    if spec.top_k is not None and not 1 <= spec.top_k <= classes:
        raise InvalidValueError(f"manifest: postprocess.top_k is not between 1 and the {classes} classes")


def _as_is(prediction: NDArray[np.float64]) -> list[Any]:
    values: list[Any] = prediction.tolist()
    return values


def _at_index(labels: list[Any]) -> Predictions:
    def predictions(prediction: NDArray[Any]) -> list[Any]:
        return [labels[place] for place in prediction.tolist()]

    return predictions


def _by_second(threshold: float, labels: list[Any]) -> Predictions:
    by_threshold = _by_threshold(threshold, labels)
    return lambda probabilities: by_threshold(probabilities[:, 1])


def _by_threshold(threshold: float, labels: list[Any]) -> Predictions:
    def predictions(prediction: NDArray[np.float64]) -> list[Any]:
        return [labels[positive] for positive in (prediction >= threshold).tolist()]

    return predictions


def _most_likely(labels: list[Any]) -> Predictions:
    def predictions(prediction: NDArray[np.float64]) -> list[Any]:
        return [labels[place] for place in prediction.argmax(axis=1).tolist()]

    return predictions


def _top_k(k: int, labels: list[Any]) -> Predictions:
    """The most probable classes first; ties are ordered by index."""

    def predictions(prediction: NDArray[np.float64]) -> list[Any]:
        probabilities = prediction if prediction.ndim == 2 else np.column_stack((1.0 - prediction, prediction))
        places = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
        chosen = np.take_along_axis(probabilities, places, axis=1)
        return [
            [{"label": labels[i], "probability": p} for i, p in zip(row, values, strict=True)]
            for row, values in zip(places.tolist(), chosen.tolist(), strict=True)
        ]

    return predictions
