"""The ONNX runtime: scores graphs with ONNX Runtime on the CPU."""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InternalError, InvalidValueError, ModelNotReadyError
from inferd.schemas.requests import Output
from inferd.streams.inference.formats.onnx.graph import BOOL, DOUBLE, FLOAT, INT32, INT64, STRING
from inferd.streams.inference.formats.onnx.library import library
from inferd.streams.inference.formats.onnx.model_file import Input, OnnxFile
from inferd.streams.inference.inputs import Inputs, Table
from inferd.streams.inference.row_by_row import RowByRow
from inferd.streams.inference.runtime import Arrays, check_outputs, label_codes

_NUMPY: dict[int, Any] = {
    FLOAT: np.float32, DOUBLE: np.float64, INT32: np.int32, INT64: np.int64, BOOL: np.bool_, STRING: object
}  # fmt: skip


class OnnxRuntime:
    """A `ModelRuntime`; equal bit for bit to `InferenceSession.run` over the same rows.

    Sessions are thread-safe. Rows are not batched if an operator may sum in another order depending on the number of
    rows, or if several threads share a row.
    """

    def __init__(self, content: bytes, file: OnnxFile, threads: int) -> None:
        """`MalformedError` if ONNX Runtime rejects the graph."""
        self._file = file
        self._library = library()
        self._session: Any = self._library.session(content, threads)
        self.batching = file.by_row and threads == 1
        self.feature_names = file.feature_names
        self.n_features = len(self.feature_names)
        self.outputs_per_row = file.outputs_per_row
        self.objective = file.objective
        self._shapes = {value.name: tuple(length or 0 for length in value.dims[1:]) for value in file.tensors}
        self._names: dict[Output, str] = {value.name: value.name for value in file.tensors}
        self._names["prediction"] = file.prediction
        if file.probabilities is not None:
            self._names["probabilities"] = file.probabilities

    def supports(self, output: Output) -> bool:
        """Like `ModelRuntime.supports`."""
        return output in self._names

    def values_per_row(self, output: Output) -> int:
        """Like `ModelRuntime.values_per_row`."""
        if self._names[output] == self._file.probabilities:
            return len(self._file.classes)
        return self.outputs_per_row if output == "prediction" else prod(self._shapes[output])

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """Like `ModelRuntime.predict`."""
        session = self._session
        if session is None:
            raise ModelNotReadyError("the model version was unloaded")
        check_outputs(self, outputs, lambda _output: "the graph has no such output")
        names = list(dict.fromkeys(self._names[output] for output in outputs))
        try:
            results = dict(zip(names, self._library.run(session, names, self._feed(inputs)), strict=True))
        except InvalidValueError:
            if len(inputs) == 1:
                raise
            return RowByRow(self).predict(inputs, outputs)
        return {output: self._shaped(output, results[self._names[output]], len(inputs)) for output in outputs}

    def close(self) -> None:
        """Like `ModelRuntime.close`."""
        self._session = None

    def _feed(self, inputs: Inputs) -> dict[str, NDArray[Any]]:
        """The inputs of the graph by name, in their types."""
        columns = list(inputs.columns() if isinstance(inputs, Table) else inputs.T)
        feed, first = {}, 0
        for each in self._file.inputs:
            last = first + each.columns
            feed[each.name] = _typed(each, np.column_stack(columns[first:last]))
            first = last
        return feed

    def _shaped(self, output: Output, result: Any, count: int) -> NDArray[Any]:
        if self._names[output] == self._file.probabilities:
            return self._probabilities(result, count)
        if output != "prediction":
            return self._tensor(output, result, count)
        if not self._file.labelled:
            return self._numbers(result, count, self.outputs_per_row)
        labels = np.asarray(result).reshape(-1)
        if len(labels) != count:
            raise InternalError(f"the graph gives {len(labels)} labels for {count} rows")
        if not self._file.classes:
            return labels
        try:
            return label_codes(labels, self._file.classes)
        except KeyError:
            raise InternalError("the graph predicts a label that is not one of its class labels") from None

    def _probabilities(self, result: Any, count: int) -> NDArray[np.float64]:
        if isinstance(result, list):
            try:
                result = np.array([[row[label] for label in self._file.classes] for row in result])
            except (KeyError, TypeError):
                raise InternalError("the graph maps other labels to probabilities than its class labels") from None
        return self._numbers(result, count, len(self._file.classes)).reshape(count, -1)

    def _tensor(self, output: Output, result: Any, count: int) -> NDArray[Any]:
        values = np.asarray(result)
        shape = self._shapes[output]
        if values.shape != (count, *shape):
            raise InternalError(
                f"the graph gives {output!r} of shape {values.shape} for {count} rows: expected {shape} a row"
            )
        return values.astype(np.float64) if values.dtype.kind == "f" else values

    def _numbers(self, result: Any, count: int, width: int) -> NDArray[np.float64]:
        values = np.asarray(result)
        if values.size != count * width or values.dtype.kind not in "fiub":
            raise InternalError(f"the graph gives values of shape {values.shape}: expected {width} a row")
        return values.astype(np.float64).reshape((count,) if width == 1 else (count, width))


def _typed(each: Input, block: NDArray[Any]) -> NDArray[Any]:
    typed = block.astype(_NUMPY[each.kind])
    return typed.reshape(-1) if each.flat else np.ascontiguousarray(typed)
