"""Synchronous predictions in the caller's thread: a class for users to call and to subclass."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np

from inferd.schemas.codec import check_outputs
from inferd.schemas.errors import InferenceError, ModelServingError
from inferd.schemas.requests import DEFAULT_OUTPUTS, Output, TensorRows
from inferd.streams.inference import Inputs, PinnedModelId, ServedModel, rows_as_bytes
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
    """Predicts with the models of a `ModelManager`, with the same code that scores requests from Kafka.

    Override `predict` to change the predictions, or `predict_batch` to answer the rows of many requests in one call;
    both must be thread-safe. List names that need no model file in `own_models`. With a `cache` (any mutable mapping,
    or an object with `get` and `set`) a row is scored only once per model; predictions do not change.
    """

    own_models: ClassVar[Mapping[str, int]] = {}
    """Model names that this class answers without a deployed model, each with its version: 1, 2, …

    The digest in results is derived from name and version, and a result must be a function of request and digest: use
    the next version whenever predictions change."""

    def __init__(self, model_manager: ModelManager, cache: Cache | None = None, tenant_id: str | None = None) -> None:
        """`tenant_id` defaults to the manager's. Raises `ServerError` for an unsupported cache."""
        self.model_manager = manager_of(model_manager, tenant_id)
        self.tenant_id: str = self.model_manager.tenant_id
        self._cache = None if cache is None else RowCache(cache, self.tenant_id)
        self._calls = itertools.count()

    def predict(self, model_id: str, input_data: Any) -> Any:
        """The prediction for one row (a list, tuple, dict or array), or a list of predictions for rows.

        `model_id` is `name`, `name:version` or `name@alias`. Raises `InferenceError` for a model that does not exist or
        cannot be loaded, and for invalid input, naming row and feature.
        """
        return self.predict_outputs(model_id, input_data)["prediction"]

    def predict_outputs(
        self, model_id: str, input_data: Any, outputs: Sequence[Output] = DEFAULT_OUTPUTS
    ) -> dict[Output, Any]:
        """Like `predict`, for any of `prediction`, `probabilities`, `raw`, `contributions`, `leaves` and the model's
        own outputs, by name."""
        requested = check_outputs(list(outputs))
        model = model_of(self.model_manager, model_id, b"%d" % next(self._calls))
        rows = checked_input(model_id, input_data, requested, UNBOUNDED)
        inputs = model.features.inputs(rows)
        columns = self._columns(model, inputs, requested)
        single = not isinstance(rows, TensorRows) and rows.single
        return {output: column[0] if single else column for output, column in columns.items()}

    def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> Sequence[Any]:
        """The predictions for rows, one per row, in order; in a worker, for the rows of a micro-batch of requests.

        Override it to answer them in one call. If it raises, it is called again with parts of the rows, so that only
        the faulty row fails. An `InferenceError` in the returned list fails its row.
        """
        values: Sequence[Any] = self.predict_outputs(model_id, list(input_batch))["prediction"]
        return values

    @property
    def takes_batches(self) -> bool:
        """Whether `predict_batch` is overridden."""
        return type(self).predict_batch is not RealtimePredictor.predict_batch

    @property
    def handles_requests(self) -> bool:
        """Whether requests must go through this object: a method is overridden, or there is a cache."""
        own = type(self).predict is not RealtimePredictor.predict or self.takes_batches
        return own or self._cache is not None

    def answer(self, model_id: PinnedModelId, input_data: Any, outputs: tuple[Output, ...]) -> Mapping[Output, object]:
        """The outputs for a request: `prediction` from `predict`, the others from the model."""
        others = tuple(output for output in outputs if output != "prediction")
        answers: dict[Output, object] = dict(self.predict_outputs(model_id, input_data, others)) if others else {}
        if "prediction" in outputs:
            answers["prediction"] = self._prediction(model_id, input_data)
        return answers

    def rows_answered(self, model_id: str, rows: Sequence[Any]) -> list[Any]:
        """For each row its prediction or a `ModelServingError`; nothing is raised."""
        if self.takes_batches:
            return row_outcomes(lambda part: self.predict_batch(model_id, part), rows, "predict_batch", alone=True)
        return row_outcomes(lambda part: [self.predict(model_id, row) for row in part], rows, "predict", alone=True)

    def _prediction(self, model_id: PinnedModelId, input_data: Any) -> Any:
        """The prediction from `predict`, or from `predict_batch` if only that is overridden."""
        if not self.takes_batches or type(self).predict is not RealtimePredictor.predict:
            return self.predict(model_id, input_data)
        single = not isinstance(input_data, np.ndarray) and not are_rows(input_data)
        outcomes = self.rows_answered(model_id, [input_data] if single else list(input_data))
        if (error := next((each for each in outcomes if isinstance(each, ModelServingError)), None)) is not None:
            raise error
        return outcomes[0] if single else outcomes

    def _columns(self, model: ServedModel, inputs: Inputs, outputs: tuple[Output, ...]) -> dict[Output, list[Any]]:
        if self._cache is None or not len(inputs):
            return columns_of(model, inputs, outputs)
        keys = self._cache.keys(model.manifest, outputs, rows_as_bytes(inputs))
        values = {key: self._cache.get(key, len(outputs)) for key in dict.fromkeys(keys)}
        missing = {key: index for index, key in enumerate(keys) if values[key] is None}
        if missing:
            values |= self._score(model, inputs, outputs, missing)
        found = [values[key] or [] for key in keys]
        return {output: [row[index] for row in found] for index, output in enumerate(outputs)}

    def _score(
        self, model: ServedModel, inputs: Inputs, outputs: tuple[Output, ...], indexes: Mapping[str, int]
    ) -> dict[str, list[Any]]:
        """Score and cache the rows at `indexes`; returns their values by key."""
        assert self._cache is not None
        try:
            scored = columns_of(model, inputs[np.array(list(indexes.values()))], outputs)
        except InferenceError:
            # Raise the same error as without a cache, with the row's index in the whole matrix.
            columns_of(model, inputs, outputs)
            raise
        rows = dict(zip(indexes, map(list, zip(*(scored[output] for output in outputs), strict=True)), strict=True))
        ttl_s = model.manifest.cache.ttl_s if model.manifest.cache is not None else None
        for key, row in rows.items():
            self._cache.set(key, row, ttl_s)
        return rows
