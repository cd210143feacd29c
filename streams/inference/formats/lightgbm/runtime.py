"""The LightGBM runtime: scores text model files with LightGBM's own library."""

from __future__ import annotations

import ctypes
import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from inferd.schemas.errors import (
    InternalError,
    ModelNotReadyError,
    SchemaMismatchError,
)
from inferd.schemas.requests import Output
from inferd.streams.inference.formats.lightgbm.c_library import (
    ALL_ITERATIONS,
    FIRST_ITERATION,
    FLOAT64,
    PREDICT_CONTRIBUTIONS,
    PREDICT_LEAVES,
    PREDICT_NORMAL,
    PREDICT_RAW,
    ROW_MAJOR,
    Library,
    library,
)
from inferd.streams.inference.formats.lightgbm.kernel import Predict, compared_kernel
from inferd.streams.inference.formats.lightgbm.model_file import LightGBMFile, read_model_file
from inferd.streams.inference.formats.lightgbm.model_text import plain_text
from inferd.streams.inference.formats.lightgbm.objectives import class_count
from inferd.streams.inference.inputs import Inputs, Matrix, Table
from inferd.streams.inference.kernels import TreeKernel, UnavailableError, UnsupportedError
from inferd.streams.inference.runtime import Arrays, check_outputs

_PREDICT_TYPE: dict[Output, int] = {
    "prediction": PREDICT_NORMAL,
    "probabilities": PREDICT_NORMAL,
    "raw": PREDICT_RAW,
    "contributions": PREDICT_CONTRIBUTIONS,
    "leaves": PREDICT_LEAVES,
}


class LightGBMRuntime:
    """A `ModelRuntime`; equal bit for bit to `lightgbm.Booster.predict` over the same matrix.

    Concurrent `predict` calls share the booster, which the library only reads; everything else is allocated per call.
    The one exception: the first call for contributions initialises data in the booster, so it runs alone.
    """

    def __init__(self, model: bytes, *, file: LightGBMFile | None = None, num_threads: int = 1) -> None:
        """`file`: the result of `read_model_file(model)`, if it is already available. The check is required, because
        the library crashes on invalid bytes.

        Raises the errors of `read_model_file`, and `InternalError` if the library cannot load the model.
        """
        self.file = file or read_model_file(model)
        self.n_features = len(self.file.feature_names)
        self.feature_names = self.file.feature_names
        self.outputs_per_row = self.file.outputs_per_row
        self.objective = self.file.objective
        self._classes = class_count(self.objective, self.outputs_per_row)
        self._booster: _Booster | None = _Booster(library(), plain_text(model), self.n_features, num_threads)
        self._contributions_lock = threading.Lock()
        self._contributions_ready = False
        if (loaded := self._booster.shape()) != self.file.shape:
            raise InternalError(f"LightGBM read features, outputs, trees as {loaded}, inferd as {self.file.shape}")
        self._kernel: TreeKernel | None = None
        self.kernel_fault: str | None = None
        try:
            self._kernel = compared_kernel(self.file, self._booster.predictions(self.outputs_per_row), _open_booster)
        except (UnavailableError, UnsupportedError) as error:
            self.kernel_fault = str(error)
        self.file = replace(self.file, trees=())

    def supports(self, output: Output) -> bool:
        """Like `ModelRuntime.supports`."""
        if output == "probabilities":
            return self._classes > 0
        return output != "contributions" or not self.file.linear

    def values_per_row(self, output: Output) -> int:
        """Like `ModelRuntime.values_per_row`."""
        if output == "probabilities":
            return self._classes
        if output == "contributions":
            return self.outputs_per_row * (self.n_features + 1)
        return self.file.tree_count if output == "leaves" else self.outputs_per_row

    def predict(self, inputs: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        """Like `ModelRuntime.predict`."""
        booster = self._booster
        if booster is None:
            raise ModelNotReadyError("the model version was unloaded")
        matrix = self._checked(inputs, outputs)
        computed: dict[int, NDArray[np.float64]] = {}
        arrays: Arrays = {}
        for output in outputs:
            predict_type = _PREDICT_TYPE[output]
            if predict_type not in computed:
                computed[predict_type] = self._compute(booster, matrix, output, predict_type)
            arrays[output] = self._shaped(output, computed[predict_type], len(matrix))
        return arrays

    def close(self) -> None:
        """Like `ModelRuntime.close`."""
        # Freed with the last reference: now, or at the end of running calls.
        self._booster = self._kernel = None

    def _checked(self, matrix: Inputs, outputs: tuple[Output, ...]) -> Matrix:
        if isinstance(matrix, Table):
            raise SchemaMismatchError("a table of columns: expected a matrix, as all features are numbers")
        if matrix.ndim != 2 or matrix.shape[1] != self.n_features:
            raise SchemaMismatchError(f"a matrix of shape {matrix.shape}: expected (rows, {self.n_features})")
        if matrix.dtype != np.float64 or not matrix.flags.c_contiguous:
            raise InternalError(f"a matrix of {matrix.dtype}: expected float64 in C order")
        check_outputs(self, outputs, self._unsupported_reason)
        return matrix

    def _unsupported_reason(self, output: Output) -> str:
        if output == "probabilities":
            return f"objective {self.objective or 'none (custom)'} has no classes"
        return "the model has linear trees"

    def _compute(self, booster: _Booster, matrix: Matrix, output: Output, predict_type: int) -> NDArray[np.float64]:
        if (kernel := self._kernel) is not None and predict_type in (PREDICT_NORMAL, PREDICT_RAW):
            return kernel.predict(matrix, raw=predict_type == PREDICT_RAW)
        if len(matrix) == 1 and predict_type == PREDICT_NORMAL:
            return booster.predict_one(matrix, self.outputs_per_row)
        values = len(matrix) * (self.outputs_per_row if predict_type == PREDICT_NORMAL else self.values_per_row(output))
        if predict_type != PREDICT_CONTRIBUTIONS or self._contributions_ready:
            return booster.predict(matrix, predict_type, values)
        with self._contributions_lock:
            result = booster.predict(matrix, predict_type, values)
            self._contributions_ready = True
        return result

    def _shaped(
        self, output: Output, values: NDArray[np.float64], rows: int
    ) -> NDArray[np.float64] | NDArray[np.int32]:
        if output == "leaves":
            return values.astype(np.int32).reshape(rows, self.file.tree_count)
        if output == "probabilities" and self.outputs_per_row == 1:
            return np.column_stack((1.0 - values, values))
        if self.outputs_per_row == 1:
            return values if output != "contributions" else values.reshape(rows, self.n_features + 1)
        if output == "contributions":
            return values.reshape(rows, self.outputs_per_row, self.n_features + 1)
        return values.reshape(rows, self.outputs_per_row)


class _Booster:
    """Owns the library's booster. Callers hold a reference; the booster is freed with the last one."""

    def __init__(self, lib: Library, model: bytes, n_features: int, num_threads: int) -> None:
        self._lib = lib
        self._handle = ctypes.c_void_p()
        self._single_row = ctypes.c_void_p()
        self._n_features = n_features
        self._parameters = lib.parameters(num_threads)
        self._predict = lib.functions.LGBM_BoosterPredictForMat
        self._predict_one = lib.functions.LGBM_BoosterPredictForMatSingleRowFast
        self._load(model)

    def _load(self, model: bytes) -> None:
        lib, ignored = self._lib, ctypes.c_int()
        lib.silence(self._parameters)
        lib.call("LGBM_BoosterLoadModelFromString", model, ctypes.byref(ignored), ctypes.byref(self._handle))
        # Parameters for single rows are parsed once, which halves the cost of such a call. The library then reuses a
        # buffer, which it protects with a lock.
        init = (PREDICT_NORMAL, FIRST_ITERATION, ALL_ITERATIONS, FLOAT64, self._n_features, self._parameters)
        lib.call("LGBM_BoosterPredictForMatSingleRowFastInit", self._handle, *init, ctypes.byref(self._single_row))

    def shape(self) -> tuple[int, int, int]:
        names = "LGBM_BoosterGetNumFeature", "LGBM_BoosterNumModelPerIteration", "LGBM_BoosterNumberOfTotalModel"
        features, outputs, trees = (self._lib.integer(name, self._handle) for name in names)
        return features, outputs, trees

    def predict(self, matrix: Matrix, predict_type: int, values: int) -> NDArray[np.float64]:
        """Calls the library; returns float64 (values,)."""
        out, written = np.empty(values), ctypes.c_int64()
        if self._predict(
            self._handle,
            matrix.ctypes.data,
            FLOAT64,
            matrix.shape[0],
            self._n_features,
            ROW_MAJOR,
            predict_type,
            FIRST_ITERATION,
            ALL_ITERATIONS,
            self._parameters,
            ctypes.byref(written),
            out.ctypes.data,
        ):
            raise self._lib.error("LGBM_BoosterPredictForMat")
        return out

    def predictions(self, outputs: int) -> Predict:
        """A function that returns predictions or raw sums."""
        return lambda rows, raw: self.predict(rows, PREDICT_RAW if raw else PREDICT_NORMAL, len(rows) * outputs)

    def predict_one(self, matrix: Matrix, values: int) -> NDArray[np.float64]:
        """float64 (values,) of PREDICT_NORMAL for the single row of `matrix`."""
        out, written = np.empty(values), ctypes.c_int64()
        if self._predict_one(self._single_row, matrix.ctypes.data, ctypes.byref(written), out.ctypes.data):
            raise self._lib.error("LGBM_BoosterPredictForMatSingleRowFast")
        return out

    def __del__(self) -> None:
        functions = self._lib.functions
        if self._single_row.value:
            functions.LGBM_FastConfigFree(self._single_row)
        if self._handle.value:
            functions.LGBM_BoosterFree(self._handle)


def _open_booster(model: bytes, n_features: int) -> Predict:
    """The predict function of a model with one output; it does not depend on the process' number of threads."""
    lib = library()
    return _Booster(lib, model, n_features, lib.threads or 1).predictions(1)
