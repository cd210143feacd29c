"""The XGBoost runtime: scores model files with XGBoost's own library."""

from __future__ import annotations

import ctypes
import json
import threading
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import InternalError, InvalidValueError, ModelNotReadyError, SchemaMismatchError
from inferd.schemas.requests import Output
from inferd.streams.inference.formats.xgboost.c_library import Library, Result, library
from inferd.streams.inference.formats.xgboost.model_file import XGBoostFile
from inferd.streams.inference.formats.xgboost.objectives import SOFTMAX, SOFTPROB, class_count
from inferd.streams.inference.inputs import Inputs, Matrix
from inferd.streams.inference.runtime import Arrays, check_outputs

VALUE, MARGIN, CONTRIBUTIONS, LEAVES = 0, 1, 2, 6
_PREDICT_TYPE: dict[Output, int] = {
    "prediction": VALUE,
    "probabilities": VALUE,
    "raw": MARGIN,
    "contributions": CONTRIBUTIONS,
    "leaves": LEAVES,
}
_Floats = NDArray[np.float32]


class XGBoostRuntime:
    """A `ModelRuntime`; equal bit for bit to `xgboost.Booster.predict` over the same matrix.

    For a file of the scikit-learn wrapper with early stopping it uses the trees up to the best iteration, as
    `XGBModel.predict` does. Values are rounded to float32 as in the library. Concurrent `predict` calls share the
    booster: XGBoost documents that prediction with trees is thread-safe, and with a linear booster it is not.
    """

    def __init__(self, model: bytes, file: XGBoostFile, threads: int = 1) -> None:
        self.file = file
        self.n_features = len(file.features)
        self.feature_names = file.feature_names
        self.outputs_per_row = file.outputs_per_row
        self.objective = file.objective
        self._classes = class_count(file.objective, file.outputs_per_row)
        self._booster: _Booster | None = _Booster(library(), model, file, threads)
        self._check_shapes()

    def supports(self, output: Output) -> bool:
        """Like `ModelRuntime.supports`."""
        if output == "probabilities":
            return self._classes > 0
        if output == "leaves":
            return self.file.booster != "gblinear"
        return output != "contributions" or not self.file.vector_leaves

    def values_per_row(self, output: Output) -> int:
        """Like `ModelRuntime.values_per_row`."""
        if output == "probabilities":
            return self._classes
        if output == "contributions":
            return self.outputs_per_row * (self.n_features + 1)
        if output == "leaves":
            return self.file.tree_count
        return 1 if output == "prediction" and self.file.classes else self.outputs_per_row

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """Like `ModelRuntime.predict`."""
        matrix = cast(Matrix, inputs)
        booster = self._booster
        if booster is None:
            raise ModelNotReadyError("the model version was unloaded")
        self._check(matrix, outputs)
        narrowed = narrow(matrix)
        computed: dict[int, _Floats] = {}
        for kind in {kind for output in outputs for kind in self._needed(output)}:
            computed[kind] = booster.predict(narrowed, kind)
        return {output: self._shaped(output, computed, len(matrix)) for output in outputs}

    def close(self) -> None:
        """Like `ModelRuntime.close`."""
        # Freed with the last reference: now, or at the end of running calls.
        self._booster = None

    def _needed(self, output: Output) -> tuple[int, ...]:
        """The type of prediction that an output needs from the library."""
        if output == "prediction" and self.objective == SOFTMAX:
            return (MARGIN,)
        return (_PREDICT_TYPE[output],)

    def _check(self, matrix: Matrix, outputs: tuple[Output, ...]) -> None:
        if matrix.ndim != 2 or matrix.shape[1] != self.n_features:
            raise SchemaMismatchError(f"a matrix of shape {matrix.shape}: expected (rows, {self.n_features})")
        check_outputs(self, outputs, self._unsupported_reason)

    def _unsupported_reason(self, output: Output) -> str:
        if output == "probabilities":
            return f"objective {self.objective} has no classes"
        return "the booster is linear" if output == "leaves" else "the trees have vectors as leaves"

    def _shaped(self, output: Output, computed: dict[int, _Floats], rows: int) -> NDArray[Any]:
        values = computed[self._needed(output)[0]]
        if output == "leaves":
            return values.reshape(rows, -1).astype(np.int32)
        if output == "prediction" and self.objective == SOFTMAX:
            # As in the library: the first of the classes with the highest margin.
            return np.asarray(values.reshape(rows, -1).argmax(axis=1), np.int32)
        if output == "probabilities" and self.outputs_per_row == 1:
            # In float32, like `XGBClassifier.predict_proba`.
            values = np.column_stack((np.float32(1.0) - values, values))
        return values.astype(np.float64)

    def _check_shapes(self) -> None:
        """Scores one row, to configure the library before threads share it, and to compare its shapes with the file."""
        outputs: tuple[Output, ...] = tuple(o for o in _PREDICT_TYPE if o != "contributions" and self.supports(o))
        arrays = self.predict(np.zeros((1, self.n_features)), outputs)
        for output, values in arrays.items():
            if output != "prediction" and values.size != self.values_per_row(output):
                raise InternalError(
                    f"XGBoost gives {values.size} values of {output}: {self.values_per_row(output)} read"
                )


def narrow(matrix: Matrix) -> _Floats:
    """float32 (rows, features), rounded like the library does; `InvalidValueError` for a number beyond float32."""
    with np.errstate(over="ignore"):
        narrowed = np.ascontiguousarray(matrix, dtype=np.float32)
    if np.isinf(narrowed).any():
        row, column = np.argwhere(np.isinf(narrowed))[0]
        raise InvalidValueError(f"row {row}, feature {column} is beyond float32")
    return narrowed


class _Booster:
    """Owns the library's booster. Callers hold a reference; the booster is freed with the last one."""

    def __init__(self, lib: Library, model: bytes, file: XGBoostFile, threads: int) -> None:
        self._lib = lib
        self._handle = ctypes.c_void_p()
        # With dart it sums in another order than `Booster.predict`, and gblinear does not support it.
        self._in_place_is_equal = file.booster == "gbtree"
        self._lock: AbstractContextManager[object] = threading.Lock() if file.booster == "gblinear" else nullcontext()
        self._matrix_config = b'{"missing": NaN, "nthread": %d}' % threads
        self._configs = {kind: _config(kind, file.rounds) for kind in (VALUE, MARGIN, CONTRIBUTIONS, LEAVES)}
        lib.silence()
        lib.call("XGBoosterCreate", None, 0, ctypes.byref(self._handle))
        lib.call("XGBoosterLoadModelFromBuffer", self._handle, model, len(model))
        for name, value in _parameters(file, threads):
            lib.call("XGBoosterSetParam", self._handle, name, value)

    def predict(self, matrix: _Floats, kind: int) -> _Floats:
        """float32 in the shape of `Booster.predict`; the matrix is float32 in C order."""
        with self._lock:
            in_place = self._in_place_is_equal and kind in (VALUE, MARGIN)
            return self._in_place(matrix, kind) if in_place else self._of_matrix(matrix, kind)

    def _in_place(self, matrix: _Floats, kind: int) -> _Floats:
        result = Result()
        arguments = _interface(matrix), self._configs[kind], None
        self._lib.call("XGBoosterPredictFromDense", self._handle, *arguments, *result.references)
        return result.copied()

    def _of_matrix(self, matrix: _Floats, kind: int) -> _Floats:
        result, handle = Result(), ctypes.c_void_p()
        self._lib.call("XGDMatrixCreateFromDense", _interface(matrix), self._matrix_config, ctypes.byref(handle))
        try:
            self._lib.call("XGBoosterPredictFromDMatrix", self._handle, handle, self._configs[kind], *result.references)
            return result.copied()
        finally:
            self._lib.functions.XGDMatrixFree(handle)

    def __del__(self) -> None:
        if self._handle.value:
            self._lib.functions.XGBoosterFree(self._handle)


def _parameters(file: XGBoostFile, threads: int) -> list[tuple[bytes, bytes]]:
    parameters = [(b"nthread", b"%d" % threads), (b"verbosity", b"0"), (b"device", b"cpu")]
    # Softmax returns only the class; its probabilities are those of softprob for the same margins.
    return [*parameters, (b"objective", SOFTPROB.encode())] if file.objective == SOFTMAX else parameters


def _config(kind: int, rounds: int) -> bytes:
    config = {
        "type": kind,
        "training": False,
        "iteration_begin": 0,
        "iteration_end": rounds,
        "strict_shape": False,
        "missing": float("nan"),
        "cache_id": 0,
    }
    return json.dumps(config).encode()


def _interface(matrix: _Floats) -> bytes:
    """numpy's array interface, as JSON."""
    rows, columns = matrix.shape
    return b'{"data": [%d, true], "shape": [%d, %d], "typestr": "<f4", "version": 3}' % (
        matrix.ctypes.data, rows, columns,
    )  # fmt: skip
