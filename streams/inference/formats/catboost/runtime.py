"""The CatBoost runtime: scores model files with CatBoost's own package."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InternalError, ModelNotReadyError, SchemaMismatchError
from inferd.schemas.requests import Output
from inferd.streams.inference.formats.catboost.library import library
from inferd.streams.inference.formats.catboost.losses import (
    CLASSIFICATION,
    EXPLAINED_ONCE,
    MULTILABEL,
    PROBABILITY,
    RAW,
    prediction_type,
)
from inferd.streams.inference.formats.catboost.model_file import CatBoostFile
from inferd.streams.inference.inputs import Inputs, Table
from inferd.streams.inference.runtime import Arrays, check_outputs, label_codes


class CatBoostRuntime:
    """A `ModelRuntime`; equal bit for bit to CatBoost's own `predict` over the same rows.

    `prediction` is the default result of `predict` of `CatBoostClassifier`, `CatBoostRegressor` and `CatBoostRanker`.
    Concurrent `predict` calls share the model, which the library only reads.
    """

    def __init__(self, content: bytes, file: CatBoostFile, threads: int = 1) -> None:
        self.file = file
        self.feature_names = file.feature_names
        self.n_features = len(file.features)
        self.outputs_per_row = file.outputs_per_row
        self.objective = file.objective
        self._threads = threads
        self._prediction_type = prediction_type(file.objective)
        self._places = {
            kind: [place for place, feature in enumerate(file.features) if feature.dtype == kind]
            for kind in ("category", "text")
        }
        self._model: Any = _call(lambda: library().CatBoost().load_model(blob=content))
        self._check_facts()

    def supports(self, output: Output) -> bool:
        """Like `ModelRuntime.supports`."""
        if output == "probabilities":
            return self.objective in CLASSIFICATION | MULTILABEL
        return output != "contributions" or self.file.weighted

    def values_per_row(self, output: Output) -> int:
        """Like `ModelRuntime.values_per_row`."""
        if output == "leaves":
            return self.file.tree_count
        if output == "contributions":
            explained = 1 if self.objective in EXPLAINED_ONCE else self.outputs_per_row
            return explained * (self.n_features + 1)
        if output == "raw" or not self.file.classes:
            return self.outputs_per_row
        return len(self.file.classes) if output == "probabilities" else 1

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """Like `ModelRuntime.predict`."""
        model = self._model
        if model is None:
            raise ModelNotReadyError("the model version was unloaded")
        check_outputs(self, outputs, self._unsupported_reason)
        pool = self._pool(inputs)
        return {output: _call(lambda: self._compute(model, pool, output)) for output in outputs}  # noqa: B023

    def close(self) -> None:
        """Like `ModelRuntime.close`."""
        self._model = None

    def _unsupported_reason(self, output: Output) -> str:
        if output == "probabilities":
            return f"loss function {self.objective or '(custom)'} has no classes"
        return "the model was saved without the weights of its leaves"

    def _pool(self, inputs: Inputs) -> Any:
        """The rows as a CatBoost `Pool`. Numbers are rounded to float32, as CatBoost does."""
        return _call(
            lambda: library().Pool(
                self._rows(inputs),
                cat_features=self._places["category"] or None,
                text_features=self._places["text"] or None,
                thread_count=self._threads,
            )
        )

    def _rows(self, inputs: Inputs) -> NDArray[Any]:
        columns = self.n_features if isinstance(inputs, Table) else inputs.shape[1]
        if columns != self.n_features:
            raise SchemaMismatchError(f"a matrix of {columns} columns: expected {self.n_features}")
        if not isinstance(inputs, Table):
            return inputs.astype(np.float32)
        rows = np.empty((len(inputs), self.n_features), dtype=object)
        for place, column in enumerate(inputs.columns()):
            rows[:, place] = column
        return rows

    def _compute(self, model: Any, pool: Any, output: Output) -> NDArray[Any]:
        if output == "leaves":
            return np.asarray(model.calc_leaf_indexes(pool, thread_count=self._threads), np.int32)
        if output == "contributions":
            values = model.get_feature_importance(pool, type="ShapValues", thread_count=self._threads)
            return np.asarray(values, np.float64)
        if output == "prediction" and self.file.classes:
            labels = model.predict(pool, prediction_type=self._prediction_type, thread_count=self._threads)
            return label_codes(np.asarray(labels).ravel(), self.file.classes)
        kinds: dict[Output, str] = {"prediction": self._prediction_type, "raw": RAW, "probabilities": PROBABILITY}
        return np.asarray(model.predict(pool, prediction_type=kinds[output], thread_count=self._threads), np.float64)

    def _check_facts(self) -> None:
        """Compares the facts read from the file with those of the library."""
        model = self._model
        read = (self.file.tree_count, list(self.feature_names) if self.file.named else None, list(self.file.classes))
        names = list(model.feature_names_) if self.file.named else None
        labels = _call(lambda: np.asarray(model.classes_).tolist()) if self.file.classes else []
        if (loaded := (model.tree_count_, names, labels)) != read:
            raise InternalError(f"CatBoost read trees, features, classes as {loaded}, inferd as {read}")


def _call(function: Callable[[], Any]) -> Any:
    """Calls `function`; `InternalError` with the library's message if it fails."""
    try:
        return function()
    except library().CatBoostError as error:
        raise InternalError(f"CatBoost: {str(error).rpartition(': ')[2] or error}") from None
