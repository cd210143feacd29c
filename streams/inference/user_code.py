"""Requests that a user's own code answers: what it is given, and what becomes of what it gives back or raises."""

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
from inferd.streams.inference.micro_batch import Group, MicroBatch, internal_error
from inferd.streams.inference.result_template import ResultTemplate


class PinnedModelId(str):
    """A model reference as a user spelled it, which remembers the version it led to.

    Code that hands it on is answered by just that version, though an alias may have moved meanwhile.
    """

    __slots__ = ("model",)
    model: ServedModel

    @classmethod
    def of(cls, reference: str, model: ServedModel) -> PinnedModelId:
        """`reference`, which led to `model`."""
        pinned = cls(reference)
        pinned.model = model
        return pinned


Ask = Callable[[PinnedModelId, Any, tuple[Output, ...]], Mapping[Output, object]]
"""`ask(model_id, input_data, outputs)` gives a value for each of `outputs`: of one row a bare one, of rows a list."""
AskRows = Callable[[PinnedModelId, list[Any]], Sequence[Any]]
"""`ask_rows(model_id, rows)` gives for each row its prediction, which results can carry, or a `ModelServingError`."""


def plain_input(rows: InputData) -> Any:
    """`input_data` as a program would hold it: a list or dict, several of them, or an array (rows, features)."""
    if isinstance(rows, TensorRows):
        return np.frombuffer(rows.data, rows.dtype).reshape(rows.shape)
    return rows.rows[0] if rows.single and rows.rows else rows.rows


def plain_value(value: object) -> Any:
    """`value` as results can carry it: numpy's arrays and scalars become lists and numbers.

    `InternalError` for what no codec has.
    """
    try:
        plain = msgspec.to_builtins(value, enc_hook=_of_numpy)
        if isinstance(plain, list | dict):
            check_nesting(MSGPACK.encode(plain), MSGPACK, "the value")
    except (TypeError, ValueError, RecursionError, OverflowError, TooDeepError) as error:
        raise InternalError(f"a custom predictor gave what no result can carry: {error}") from None
    return plain


def _of_numpy(value: Any) -> Any:
    if isinstance(value, np.ndarray | np.generic):
        return value.tolist()
    if isinstance(value, str):  # a pinned reference
        return str(value)
    raise TypeError(f"{type(value).__name__} is no number, text, list or mapping")


@dataclass(slots=True)
class CustomGroup(Group):
    """One request that a user's own code answers."""

    in_thread: ClassVar[bool] = True

    ask: Ask = field(kw_only=True)
    model_id: PinnedModelId = field(kw_only=True)
    input_data: Any = field(kw_only=True)
    values: list[Any] = field(default_factory=list)
    """One for each output."""

    def predict(self) -> None:
        """Asks; whatever is raised is the outcome of this request alone."""
        try:
            given = self.ask(self.model_id, self.input_data, self.outputs)
            self.values = [plain_value(given[output]) for output in self.outputs]
        except ModelServingError as error:
            self.error = error
        except SystemExit:
            self.fault = RuntimeError("a custom predictor asked the process to end")
        except Exception as fault:  # noqa: BLE001  # users' code may raise anything
            self.fault = fault

    def finish(self, batch: MicroBatch) -> bool:
        """Puts the answer into the batch, or the fault that the log wants the traceback of."""
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
    """The requests of a micro-batch for predictions of one model, whose rows a user's own code answers in one call."""

    in_thread: ClassVar[bool] = True

    ask_rows: AskRows = field(kw_only=True)
    model_id: PinnedModelId = field(kw_only=True)
    input_rows: list[Any] = field(default_factory=list)
    values: Sequence[Any] = ()
    """One for each row."""

    def add_request(self, index: int, request_id: str, rows: InputData) -> None:
        """Record `index`, and its rows."""
        given = list(plain_input(rows)) if isinstance(rows, TensorRows) else rows.rows
        self.indexes.append(index)
        self.ids.append(request_id)
        self.counts.append(len(given))
        self.singles.append(not isinstance(rows, TensorRows) and rows.single)
        self.input_rows += given
        self.rows = self.to_score = len(self.input_rows)

    def predict(self) -> None:
        """Asks for all rows at once; what is raised for all of them is the outcome of each request."""
        try:
            self.values = self.ask_rows(self.model_id, self.input_rows) if self.input_rows else ()
        except Exception as fault:  # noqa: BLE001  # users' code may raise anything
            self.fault = fault

    def finish(self, batch: MicroBatch) -> bool:
        """Puts the answers into the batch; a request of which a row failed fails with the error of the first."""
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
    """The group of the micro-batch whose rows go to `ask_rows` together with those of `request`."""
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
    """The group of record `index`, whose `request` is to be answered by `ask`; `model` is the version it leads to."""
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
