"""The scikit-learn runtime: scores estimators of `.skops` files with their own methods."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InternalError, InvalidValueError, MalformedError, ModelNotReadyError
from inferd.schemas.requests import Output
from inferd.streams.inference.formats.sklearn.batching import is_batchable
from inferd.streams.inference.formats.sklearn.library import library
from inferd.streams.inference.formats.sklearn.model_file import SklearnFile
from inferd.streams.inference.formats.sklearn.text_counts import count_faster
from inferd.streams.inference.inputs import Inputs, Table
from inferd.streams.inference.row_by_row import RowByRow
from inferd.streams.inference.runtime import Arrays, check_outputs, label_codes

_METHODS: dict[Output, str] = {
    "prediction": "predict",
    "probabilities": "predict_proba",
    "raw": "decision_function",
}
_NUMPY_DTYPES = {"float32": np.float32, "int64": np.int64, "bool": np.bool_}


class SklearnRuntime:
    """A `ModelRuntime`; equal bit for bit to the estimator's own methods over the same rows.

    Numbers are passed as float64 in column order. A model that was fitted on a data frame gets one, with the dtypes of
    its features. Concurrent calls share the estimator, which prediction does not modify.
    """

    def __init__(self, content: bytes, file: SklearnFile, threads: int) -> None:
        """`MalformedError` if the file cannot be loaded, or the estimator differs from the file's facts."""
        self._file = file
        self._library = library()
        self._threads = threads
        self._model = self._library.load(content, file.types, file.types_allowed)
        _prepare(self._model, self._library.base_estimator)
        self._library.limit_linear_algebra(threads)
        self.batching = is_batchable(self._model)
        self.feature_names = file.feature_names
        self.n_features = len(self.feature_names)
        self.outputs_per_row = file.outputs_per_row
        self.objective = file.objective
        self._columns_to_frame = file.named and not file.reads_text
        self._has_pairs = getattr(_last(self._model), "decision_function_shape", None) == "ovo"
        self._methods = {output: name for output, name in _METHODS.items() if hasattr(self._model, name)}
        self._check_facts()

    def supports(self, output: Output) -> bool:
        """Like `ModelRuntime.supports`."""
        if output == "probabilities" and not self._file.classes:
            return False
        return output in self._methods

    def values_per_row(self, output: Output) -> int:
        """Like `ModelRuntime.values_per_row`."""
        if output == "probabilities":
            return len(self._file.classes)
        if output == "raw":
            classes = len(self._file.classes)
            return 1 if classes <= 2 else (classes * (classes - 1) // 2 if self._has_pairs else classes)
        return 1 if self._file.classes else self.outputs_per_row

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """Like `ModelRuntime.predict`."""
        model = self._model
        if model is None:
            raise ModelNotReadyError("the model version was unloaded")
        check_outputs(self, outputs, lambda _output: f"{self.objective} does not compute it")
        rows = self._rows(inputs)
        try:
            with self._library.limited(self._threads):
                return {output: self._computed(model, output, rows, len(inputs)) for output in outputs}
        except ValueError as error:
            if len(inputs) == 1:
                raise InvalidValueError(_cause(error)) from None
        return RowByRow(self).predict(inputs, outputs)

    def close(self) -> None:
        """Like `ModelRuntime.close`."""
        self._model = None

    def _computed(self, model: Any, output: Output, rows: Any, count: int) -> NDArray[Any]:
        values = np.asarray(getattr(model, self._methods[output])(rows))
        if output == "prediction" and self._file.classes:
            return self._codes(values, count)
        return self._shaped(output, values, count)

    def _codes(self, labels: NDArray[Any], count: int) -> NDArray[np.int32]:
        if labels.shape != (count,):
            raise InternalError(f"{self.objective} predicts labels of shape {labels.shape}: expected one a row")
        try:
            return label_codes(labels, self._file.classes)
        except KeyError:
            raise InternalError(f"{self.objective} predicts a label that is not in classes_") from None

    def _shaped(self, output: Output, values: NDArray[Any], count: int) -> NDArray[Any]:
        width = self.values_per_row(output)
        if values.size != count * width or len(values) != count:
            raise InternalError(f"{self.objective} gives {output} of shape {values.shape}: expected {width} a row")
        shaped = values.reshape(count if width == 1 and output != "probabilities" else (count, width))
        # Labels of several outputs are returned unchanged.
        return shaped.astype(np.float64) if shaped.dtype.kind == "f" else shaped

    def _rows(self, inputs: Inputs) -> Any:
        """The rows in the form that the estimator was fitted on: a data frame, an array, or a list of texts."""
        if self._file.reads_text:
            assert isinstance(inputs, Table)
            return inputs.values[:, 0].tolist()
        if self._columns_to_frame:
            return self._frame(inputs)
        if isinstance(inputs, Table):
            return np.column_stack([self._column(place, values) for place, values in enumerate(inputs.columns())])
        dtypes = {feature.dtype for feature in self._file.features}
        return inputs.astype(np.float32) if dtypes == {"float32"} else inputs

    def _frame(self, inputs: Inputs) -> Any:
        frame = self._library.pandas.DataFrame
        if not isinstance(inputs, Table) and {feature.dtype for feature in self._file.features} == {"float64"}:
            return frame(inputs, columns=list(self.feature_names))
        columns = inputs.columns() if isinstance(inputs, Table) else iter(inputs.T)
        typed = [self._column(place, values) for place, values in enumerate(columns)]
        return frame(dict(zip(self.feature_names, typed, strict=True)))

    def _column(self, place: int, values: NDArray[Any]) -> NDArray[Any]:
        """A column in the dtype of its feature."""
        if values.dtype == object:
            return _of_values(values, none=place in self._file.none)
        dtype = _NUMPY_DTYPES.get(self._file.features[place].dtype)
        # As in pandas, an integer column with missing values becomes float64.
        return values if dtype is None or (dtype != np.float32 and np.isnan(values).any()) else values.astype(dtype)

    def _check_facts(self) -> None:
        """`MalformedError` if the estimator differs from the facts read from the file."""
        if "prediction" not in self._methods:
            raise MalformedError(f"model file: {self.objective} has no predict: save the whole pipeline")
        labels = getattr(self._model, "classes_", None)
        if self._file.classes and labels is not None and list(np.asarray(labels).tolist()) != list(self._file.classes):
            raise MalformedError(f"model file: classes_ of {self.objective} are not those that its file shows")
        if (count := getattr(self._model, "n_features_in_", self.n_features)) != self.n_features:
            raise MalformedError(f"model file: {self.objective} has {count} features, its file shows {self.n_features}")


def _last(model: Any) -> Any:
    """The final estimator, which predicts."""
    for _ in range(100):
        if hasattr(model, "steps"):
            model = model.steps[-1][1]
        elif hasattr(model, "best_estimator_"):
            model = model.best_estimator_
    return model


def _of_values(values: NDArray[Any], *, none: bool) -> NDArray[Any]:
    """An array of texts and categories, with missing values in the estimator's form; numeric if all values are
    numbers."""
    missing = np.array([value is None for value in values.tolist()], bool)
    if missing.any() and not none:
        values = values.copy()
        values[missing] = np.nan
    if not missing.any() and {type(value) for value in values.tolist()} in ({int}, {float}, {bool}):
        return np.array(values.tolist())
    return values


def _cause(error: ValueError) -> str:
    """The cause of an exception of the library, without its message, which may reveal values."""
    text = str(error)
    if "NaN" in text:
        return "a step of the model does not accept missing values, and a value is missing"
    if "infinity" in text or "too large" in text:
        return "a value is too large for a step of the model"
    if "unknown" in text.lower():
        return "a category is unknown to a step of the model"
    return "a step of the model rejects its values"


def _prepare(model: Any, base_estimator: type[Any]) -> None:
    """Makes all nested estimators compute in the calling thread and print nothing, and count tokens faster.

    The threads of a forest add its trees in the order in which they finish, so that bits would vary.
    """
    for estimator in _estimators(model, base_estimator):
        for name, value in (("n_jobs", None), ("verbose", 0)):
            if name in vars(estimator):
                setattr(estimator, name, value)
        count_faster(estimator)


def _estimators(model: Any, base_estimator: type[Any]) -> Iterator[Any]:
    waiting, seen = [model], set[int]()
    while waiting:
        value = waiting.pop()
        if id(value) in seen:
            continue
        seen.add(id(value))
        if isinstance(value, base_estimator) or _is_private_estimator(value):
            yield value
            waiting += vars(value).values()
        elif isinstance(value, dict):
            waiting += value.values()
        elif isinstance(value, list | tuple):
            waiting += value
        elif isinstance(value, np.ndarray) and value.dtype == object:
            waiting += value.ravel().tolist()


def _is_private_estimator(value: Any) -> bool:
    """Whether it is an object like `_CalibratedClassifier`, which is not a `BaseEstimator` but contains one."""
    return type(value).__module__.startswith("sklearn.") and hasattr(value, "__dict__") and not isinstance(value, type)
