"""The ONNX runtime: graphs, run by ONNX Runtime on the processor."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InternalError, InvalidValueError, ModelNotReadyError
from inferd.schemas.requests import Output
from inferd.streams.inference.formats.onnx.graph import BOOL, DOUBLE, FLOAT, INT32, INT64, STRING
from inferd.streams.inference.formats.onnx.library import library
from inferd.streams.inference.formats.onnx.model_file import Input, OnnxFile
from inferd.streams.inference.inputs import Inputs, Table
from inferd.streams.inference.runtime import Arrays, check_outputs, label_codes

_NUMPY: dict[int, Any] = {
    FLOAT: np.float32, DOUBLE: np.float64, INT32: np.int32, INT64: np.int64, BOOL: np.bool_, STRING: object
}  # fmt: skip


class OnnxRuntime:
    """A `ModelRuntime`; equal bit for bit to `InferenceSession.run` over the same rows.

    A session may run in several threads at once. Where an operator may add in another order for other numbers of rows,
    or several threads share a row, rows are run one by one.
    """

    def __init__(self, content: bytes, file: OnnxFile, threads: int) -> None:
        """`MalformedError` if ONNX Runtime refuses the graph."""
        self._file = file
        self._library = library()
        self._session: Any = self._library.session(content, threads)
        self.batching = file.by_row and threads == 1
        self.feature_names = file.feature_names
        self.n_features = len(self.feature_names)
        self.outputs_per_row = file.outputs_per_row
        self.objective = file.objective

    def supports(self, output: Output) -> bool:
        """As `ModelRuntime.supports`."""
        return output == "prediction" or (output == "probabilities" and self._file.probabilities is not None)

    def values_per_row(self, output: Output) -> int:
        """As `ModelRuntime.values_per_row`."""
        if output == "probabilities":
            return len(self._file.classes)
        return 1 if self._file.labelled else self.outputs_per_row

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """As `ModelRuntime.predict`."""
        session = self._session
        if session is None:
            raise ModelNotReadyError("the model version was unloaded")
        check_outputs(self, outputs, lambda _output: "the graph does not compute it")
        names = [
            str(self._file.probabilities) if each == "probabilities" else self._file.prediction for each in outputs
        ]
        results = self._run(session, names, self._feed(inputs), len(inputs))
        return {
            output: self._shaped(output, result, len(inputs)) for output, result in zip(outputs, results, strict=True)
        }

    def close(self) -> None:
        """As `ModelRuntime.close`."""
        self._session = None

    def _run(self, session: Any, names: list[str], feed: dict[str, NDArray[Any]], count: int) -> list[Any]:
        """The outputs of all rows: arrays, or lists of maps."""
        if self.batching or count == 1:
            try:
                return self._library.run(session, names, feed)
            except InvalidValueError:
                if count == 1:
                    raise
        parts = [self._run_row(session, names, feed, row, alone=count == 1) for row in range(count)]
        return [_joined([part[place] for part in parts]) for place in range(len(names))]

    def _run_row(self, session: Any, names: list[str], feed: dict[str, NDArray[Any]], row: int, *, alone: bool) -> Any:
        try:
            return self._library.run(session, names, {name: values[row : row + 1] for name, values in feed.items()})
        except InvalidValueError as error:
            raise InvalidValueError(error.message if alone else f"row {row}: {error.message}") from None

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
        if output == "probabilities":
            return self._probabilities(result, count)
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
            raise InternalError("the graph predicts a label that is none of its class labels") from None

    def _probabilities(self, result: Any, count: int) -> NDArray[np.float64]:
        if isinstance(result, list):
            try:
                result = np.array([[row[label] for label in self._file.classes] for row in result])
            except (KeyError, TypeError):
                raise InternalError("the graph maps other labels to probabilities than its class labels") from None
        return self._numbers(result, count, len(self._file.classes)).reshape(count, -1)

    def _numbers(self, result: Any, count: int, width: int) -> NDArray[np.float64]:
        values = np.asarray(result)
        if values.size != count * width or values.dtype.kind not in "fiub":
            raise InternalError(f"the graph gives values of shape {values.shape}: expected {width} a row")
        return values.astype(np.float64).reshape((count,) if width == 1 else (count, width))


def _typed(each: Input, block: NDArray[Any]) -> NDArray[Any]:
    typed = block.astype(_NUMPY[each.kind])
    return typed.reshape(-1) if each.flat else np.ascontiguousarray(typed)


def _joined(parts: list[Any]) -> Any:
    """The results of single rows, as those of all rows."""
    if isinstance(parts[0], list):
        return [each for part in parts for each in part]
    return np.concatenate(parts)
