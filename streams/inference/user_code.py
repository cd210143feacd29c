"""Requests that user code answers: converts its inputs, results and exceptions."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, ClassVar

import msgspec
import numpy as np

from inferd.schemas.codecs import MSGPACK, Codec, check_nesting
from inferd.schemas.errors import InternalError, ModelServingError, TooDeepError
from inferd.schemas.requests import (
    InputData,
    Output,
    PredictionRequest,
    TensorRows,
)
from inferd.streams.inference.catalog import ServedModel
from inferd.streams.inference.micro_batch import Group, MicroBatch, internal_error, joined_ids
from inferd.streams.inference.result_template import ResultTemplate


class PinnedModelId(str):
    """A model reference as sent in the request, together with the version that it resolved to.

    User code that passes it on gets this version, even if the alias was moved since.
    """

    __slots__ = ("model",)
    model: ServedModel

    @classmethod
    def of(cls, reference: str, model: ServedModel) -> PinnedModelId:
        """Pins `reference` to `model`, the version that it resolved to."""
        pinned = cls(reference)
        pinned.model = model
        return pinned


Ask = Callable[[PinnedModelId, Any, tuple[Output, ...]], Mapping[Output, object]]
"""`ask(model_id, input_data, outputs)` returns a value for each of `outputs`: a single value for one row, a list for
rows."""
AskRows = Callable[[PinnedModelId, list[Any]], Sequence[Any]]
"""`ask_rows(model_id, rows)` returns for each row a prediction that can be encoded in a result, or a
`ModelServingError`."""


def plain_input(rows: InputData) -> Any:
    """`input_data` as Python objects: one row (list or dict), a list of rows, or an array (rows, features)."""
    if isinstance(rows, TensorRows):
        return np.frombuffer(rows.data, rows.dtype).reshape(rows.shape)
    return rows.rows[0] if rows.single and rows.rows else rows.rows


def plain_value(value: object) -> Any:
    """`value` as encoded in results: numpy arrays and scalars become lists and numbers.

    `InternalError` for types that cannot be encoded.
    """
    try:
        plain = msgspec.to_builtins(value, enc_hook=_of_numpy)
        if isinstance(plain, list | dict):
            check_nesting(MSGPACK.encode(plain), MSGPACK, "the value")
    except (TypeError, ValueError, RecursionError, OverflowError, TooDeepError) as error:
        raise InternalError(f"a custom predictor returned a value that cannot be encoded: {error}") from None
    return plain


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, str):  # a pinned reference
        return str(value)
    raise TypeError(f"{type(value).__name__} is not a number, text, list or mapping")


@dataclass(slots=True)
class CustomGroup(Group):
    """One request that user code answers."""

    in_thread: ClassVar[bool] = True

    ask: Ask = field(kw_only=True)
    model_id: PinnedModelId = field(kw_only=True)
    input_data: Any = field(kw_only=True)
    values: list[Any] = field(default_factory=list)
    """One for each output."""

    def predict(self) -> None:
        """Calls user code. An exception fails only this request."""
        try:
            given = self.ask(self.model_id, self.input_data, self.outputs)
            self.values = [plain_value(given[output]) for output in self.outputs]
        except ModelServingError as error:
            self.error = error
        except SystemExit:
            self.fault = RuntimeError("a custom predictor raised SystemExit")
        except Exception as fault:  # noqa: BLE001  # users' code may raise anything
            self.fault = fault

    def finish(self, batch: MicroBatch) -> bool:
        """Writes the result into the batch; an unexpected exception is passed on for the log."""
        if self.fault is not None:
            batch.fault(self.fault)
            self.error = internal_error(self.fault)
        if self.error is not None:
            batch.fail_member(self, 0, self.error)
        else:
            template = ResultTemplate(self.model.manifest, self.outputs, self.codec)
            batch.put(self, 0, template.render(self.ids[0], self.values))
        return True


@dataclass(slots=True)
class CustomBatch(Group):
    """The requests of a micro-batch for predictions of one model. User code answers their rows in one call."""

    in_thread: ClassVar[bool] = True

    ask_rows: AskRows = field(kw_only=True)
    model_id: PinnedModelId = field(kw_only=True)
    input_rows: list[Any] = field(default_factory=list)
    values: Sequence[Any] = ()
    """One for each row."""

    def add_request(self, index: int, request_id: str, rows: InputData) -> None:
        """Adds record `index` and its rows."""
        given = list(plain_input(rows)) if isinstance(rows, TensorRows) else rows.rows
        self.indexes.append(index)
        self.ids = joined_ids(self.ids, [request_id])
        self.counts.append(len(given))
        self.singles.append(not isinstance(rows, TensorRows) and rows.single)
        self.input_rows += given
        self.rows = self.to_score = len(self.input_rows)

    def predict(self) -> None:
        """Calls user code for all rows at once. An exception fails all requests of the group."""
        try:
            self.values = self.ask_rows(self.model_id, self.input_rows) if self.input_rows else ()
        except Exception as fault:  # noqa: BLE001  # users' code may raise anything
            self.fault = fault

    def finish(self, batch: MicroBatch) -> bool:
        """Writes the results into the batch. A request with failed rows gets the error of the first one."""
        if self.fault is not None:
            batch.fault(self.fault)
            self.values = [internal_error(self.fault)] * self.rows
        template = ResultTemplate(self.model.manifest, self.outputs, self.codec)
        for place, rows in enumerate(self.spans()):
            values = self.values[rows]
            error = next((value for value in values if isinstance(value, ModelServingError)), None)
            if error is not None:
                batch.fail_member(self, place, error)
            else:
                value = values[0] if self.singles[place] else list(values)
                batch.put(self, place, template.render(self.ids[place], [value]))
        return True


def group_of_rows(
    batch: MicroBatch, ask_rows: AskRows, model: ServedModel, request: PredictionRequest, codec: Codec
) -> CustomBatch:
    """The group whose rows are passed to `ask_rows` together with those of `request`; created if absent."""
    reference = str(request.model)
    return batch.keyed(
        (reference, id(model), codec),
        lambda: CustomBatch(
            model, request.outputs, codec, ask_rows=ask_rows, model_id=PinnedModelId.of(reference, model)
        ),
    )


def custom_group(
    ask: Ask, model: ServedModel, request: PredictionRequest, index: int, request_id: str, codec: Codec
) -> CustomGroup:
    """The group for record `index`, which `ask` answers. `model` is the version that the `request` resolves to."""
    rows = request.input_data
    count = rows.shape[0] if isinstance(rows, TensorRows) else len(rows.rows)
    return CustomGroup(
        model,
        request.outputs,
        codec,
        indexes=[index],
        ids=[request_id],
        rows=count,
        to_score=count,
        ask=ask,
        model_id=PinnedModelId.of(str(request.model), model),
        input_data=plain_input(rows),
    )
