"""Predictions at once, in the caller's own thread: the class that users call, and subclass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from schemas.codec import check_outputs
from schemas.errors import InferenceError
from schemas.requests import DEFAULT_OUTPUTS, Output, TensorRows
from streams.inference.catalog import ServedModel
from streams.inference.custom import PinnedModelId
from streams.inference.runtime import Matrix
from streams.serving.model_manager import ModelManager, manager_of
from streams.serving.row_cache import Cache, RowCache
from streams.serving.rows import UNBOUNDED, checked_input, columns_of, model_of


class RealtimePredictor:
    """Predicts with the models of a `ModelManager`, through the code that scores requests from Kafka.

    Override `predict` to change what requests are answered with; it is called from several threads at once. With a
    `cache` (any mutable mapping, or an object with `get` and `set`) a row is scored once for each model; answers are
    the same with and without.
    """

    def __init__(self, model_manager: ModelManager, cache: Cache | None = None, tenant_id: str | None = None) -> None:
        """`tenant_id` is the manager's by default. Raises `ServerError` for a cache that is none."""
        self.model_manager = manager_of(model_manager, tenant_id)
        self.tenant_id: str = self.model_manager.tenant_id
        self._cache = None if cache is None else RowCache(cache, self.tenant_id)
        self._calls = itertools.count()

    def predict(self, model_id: str, input_data: Any) -> Any:
        """The prediction for one row (a list, tuple, dict or array), or a list of them for rows.

        `model_id` is `name`, `name:version` or `name@alias`. Raises `InferenceError` for a model that is not there or
        does not load, and for input that does not fit it, naming row and feature.
        """
        return self.predict_outputs(model_id, input_data)["prediction"]

    def predict_outputs(
        self, model_id: str, input_data: Any, outputs: Sequence[Output] = DEFAULT_OUTPUTS
    ) -> dict[Output, Any]:
        """As `predict`, for any of `prediction`, `probabilities`, `raw`, `contributions`, `leaves`, by name."""
        asked = check_outputs(list(outputs))
        model = model_of(self.model_manager, model_id, b"%d" % next(self._calls))
        rows = checked_input(model_id, input_data, asked, UNBOUNDED)
        matrix = model.features.matrix(rows)
        columns = self._columns(model, matrix, asked)
        single = not isinstance(rows, TensorRows) and rows.single
        return {output: column[0] if single else column for output, column in columns.items()}

    @property
    def answers_itself(self) -> bool:
        """Whether requests have to go through `predict`: it is a user's own, or there is a cache."""
        return type(self).predict is not RealtimePredictor.predict or self._cache is not None

    def answer(self, model_id: PinnedModelId, input_data: Any, outputs: tuple[Output, ...]) -> Mapping[Output, object]:
        """What a request is answered with: `predict` gives the prediction, the model itself whatever else is asked."""
        others = tuple(output for output in outputs if output != "prediction")
        answers: dict[Output, object] = dict(self.predict_outputs(model_id, input_data, others)) if others else {}
        if "prediction" in outputs:
            answers["prediction"] = self.predict(model_id, input_data)
        return answers

    def _columns(self, model: ServedModel, matrix: Matrix, outputs: tuple[Output, ...]) -> dict[Output, list[Any]]:
        if self._cache is None or not len(matrix):
            return columns_of(model, matrix, outputs)
        keys = self._cache.keys(model.manifest, outputs, [row.tobytes() for row in matrix])
        values = {key: self._cache.get(key, len(outputs)) for key in dict.fromkeys(keys)}
        missing = {key: place for place, key in enumerate(keys) if values[key] is None}
        if missing:
            values |= self._score(model, matrix, outputs, missing)
        found = [values[key] or [] for key in keys]
        return {output: [row[place] for row in found] for place, output in enumerate(outputs)}

    def _score(
        self, model: ServedModel, matrix: Matrix, outputs: tuple[Output, ...], places: Mapping[str, int]
    ) -> dict[str, list[Any]]:
        """The values of the rows at `places`, by key; they are cached from now on."""
        assert self._cache is not None
        try:
            scored = columns_of(model, np.ascontiguousarray(matrix[list(places.values())]), outputs)
        except InferenceError:
            # The same error as without a cache: it names the row by its place among all.
            columns_of(model, matrix, outputs)
            raise
        rows = dict(zip(places, map(list, zip(*(scored[output] for output in outputs), strict=True)), strict=True))
        ttl_s = model.manifest.cache.ttl_s if model.manifest.cache is not None else None
        for key, row in rows.items():
            self._cache.set(key, row, ttl_s)
        return rows
