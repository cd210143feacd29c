"""Scores trees with the compiled kernel: sums of leaf values and their transform."""

from __future__ import annotations

import ctypes
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library
from inferd.streams.inference.kernels.forest import Forest

Transform = Literal["identity", "sigmoid", "softmax", "exp", "log1p_exp", "signed_square"]
_TRANSFORMS: tuple[Transform, ...] = ("identity", "sigmoid", "softmax", "exp", "log1p_exp", "signed_square")
_BLOCKS_FROM = 8
"""Rows from which on a block of 64 takes less time than its rows one by one: measured with `bench.kernels`."""


@dataclass(frozen=True, slots=True)
class Ending:
    """How the sums of a row become its prediction."""

    transform: Transform = "identity"
    scale: float = 1.0
    """Of `sigmoid`: 1 / (1 + exp(-scale x))."""
    rounds: int = 0
    """What sums are divided by first: the trees of each output, of a random forest; 0: they are not divided."""


class _Forest(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_int64) for name in ("features", "planes", "trees", "outputs", "blocks_from")),
        *((name, ctypes.c_void_p) for name in ("plane", "tree", "node", "split", "cuts", "values", "words")),
    ]


class _Ending(ctypes.Structure):
    _fields_ = [
        ("rounds", ctypes.c_int64),
        ("scale", ctypes.c_double),
        ("exp", ctypes.c_void_p),
        ("log1p", ctypes.c_void_p),
        ("transform", ctypes.c_int32),
    ]


class TreeKernel:
    """The trees of one model. Thread-safe: calls only read them."""

    def __init__(
        self, library: Library, forest: Forest, ending: Ending, math: ctypes.CDLL, blocks_from: int = _BLOCKS_FROM
    ) -> None:
        """`math`: the C library with `exp` and `log1p`, or a library linked with it."""
        self._library, self._predict = library, library.tree_predict
        self._forest = forest  # keeps the memory that the structure points to alive
        self._features, self._outputs = forest.features, forest.outputs
        arrays = (forest.plane, forest.tree, forest.node, forest.split, forest.cuts, forest.values, forest.words)
        counts = (forest.features, len(forest.plane), len(forest.tree), forest.outputs)
        self._structure = _Forest(*counts, blocks_from if forest.in_blocks else 0, *map(_address, arrays))
        functions = (ctypes.cast(math.exp, ctypes.c_void_p), ctypes.cast(math.log1p, ctypes.c_void_p))
        self._ending = _Ending(ending.rounds, ending.scale, *functions, _TRANSFORMS.index(ending.transform))
        self._forest_at, self._ending_at = ctypes.addressof(self._structure), ctypes.addressof(self._ending)

    def predict(self, matrix: NDArray[np.float64], *, raw: bool = False) -> NDArray[np.float64]:
        """float64 (rows * outputs,) for `matrix`, float64 (rows, features), C-contiguous; untransformed sums if `raw`.

        `MemoryError` if there is no memory for the ranks of a block.
        """
        return self.predict_into(np.empty(len(matrix) * self._outputs), matrix, raw=raw)

    def predict_into(self, out: NDArray[np.float64], matrix: NDArray[np.float64], *, raw: bool) -> NDArray[np.float64]:
        """Like `predict`, written to `out`: float64 (rows * outputs,)."""
        rows, features = matrix.shape
        if features != self._features or matrix.dtype != np.float64 or not matrix.flags.c_contiguous:
            raise ValueError(f"a matrix of {matrix.dtype} {matrix.shape}: expected {self._features} columns of float64")
        if out.shape != (rows * self._outputs,) or out.dtype != np.float64 or not out.flags.c_contiguous:
            raise ValueError(f"room for {out.shape} of {out.dtype}: expected {rows * self._outputs} of float64")
        ending = None if raw else self._ending_at
        if self._predict(self._forest_at, ending, _address(matrix), rows, _address(out), self._library.version):
            raise MemoryError(f"trees of {rows} rows")
        return out


def _address(array: NDArray[Any]) -> int:
    return array.ctypes.data
