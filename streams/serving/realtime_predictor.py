"""Predictions at once, in the caller's own thread: the class that users call, and subclass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from inferd.schemas.codec import check_outputs
from inferd.schemas.errors import InferenceError, ModelServingError
from inferd.schemas.requests import DEFAULT_OUTPUTS, Output, TensorRows
from inferd.streams.inference import Matrix, PinnedModelId, ServedModel
from inferd.streams.serving.model_manager import ModelManager, manager_of
from inferd.streams.serving.row_cache import Cache, RowCache
from inferd.streams.serving.row_outcomes import row_outcomes
from inferd.streams.serving.rows import (
    UNBOUNDED,
    are_rows,
    checked_input,
    columns_of,
    model_of,
)


class RealtimePredictor:
    """Predicts with the models of a `ModelManager`, through the code that scores requests from Kafka.

    Override `predict` to change what requests are answered with, or `predict_batch` to answer the rows of many requests
    in one call; both are called from several threads at once. Name in `own_models` what needs no model file. With a
    `cache` (any mutable mapping, or an object with `get` and `set`) a row is scored once for each model; answers are
    the same with and without.
    """

    own_models: ClassVar[Mapping[str, int]] = {}
    """Model names that this class answers without a deployed model, each with its version: 1, 2, …

    A result is a function of request and digest, and the digest of an own name follows from its version: give the next
    version whenever answers change."""

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

    def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> Sequence[Any]:
        """The predictions for rows, one each, in order: in a worker, those of the requests of a micro-batch.

        Override it to answer them in one call. Where it raises, it is called again with parts of the rows, so that the
        row to blame fails alone; an `InferenceError` among the predictions is the outcome of its row.
        """
        values: Sequence[Any] = self.predict_outputs(model_id, list(input_batch))["prediction"]
        return values

    @property
    def takes_batches(self) -> bool:
        """Whether `predict_batch` is a user's own."""
        return type(self).predict_batch is not RealtimePredictor.predict_batch

    @property
    def answers_itself(self) -> bool:
        """Whether requests have to go through this object: a method is a user's own, or there is a cache."""
        own = type(self).predict is not RealtimePredictor.predict or self.takes_batches
        return own or self._cache is not None

    def answer(self, model_id: PinnedModelId, input_data: Any, outputs: tuple[Output, ...]) -> Mapping[Output, object]:
        """What a request is answered with: `predict` gives the prediction, the model itself whatever else is asked."""
        others = tuple(output for output in outputs if output != "prediction")
        answers: dict[Output, object] = dict(self.predict_outputs(model_id, input_data, others)) if others else {}
        if "prediction" in outputs:
            answers["prediction"] = self._prediction(model_id, input_data)
        return answers

    def rows_answered(self, model_id: str, rows: Sequence[Any]) -> list[Any]:
        """For each row its prediction, or the `ModelServingError` that it alone got; nothing is raised."""
        if self.takes_batches:
            return row_outcomes(lambda part: self.predict_batch(model_id, part), rows, "predict_batch", alone=True)
        return row_outcomes(lambda part: [self.predict(model_id, row) for row in part], rows, "predict", alone=True)

    def _prediction(self, model_id: PinnedModelId, input_data: Any) -> Any:
        """As `predict`, by `predict_batch` where that is a user's own and `predict` is not."""
        if not self.takes_batches or type(self).predict is not RealtimePredictor.predict:
            return self.predict(model_id, input_data)
        single = not isinstance(input_data, np.ndarray) and not are_rows(input_data)
        outcomes = self.rows_answered(model_id, [input_data] if single else list(input_data))
        if (error := next((each for each in outcomes if isinstance(each, ModelServingError)), None)) is not None:
            raise error
        return outcomes[0] if single else outcomes

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
