"""Histograms of the columns of a matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels.compiled import Library, UnavailableError, library

BLOCK_ROWS = 1_024
"""Rows that are counted at a time without a kernel, so that they stay in the processor's cache."""


class BinCounter:
    """Counts the values of some columns by bins of their own."""

    def __init__(self, columns: NDArray[np.intp], edges: NDArray[np.float64]) -> None:
        """`columns`: intp (columns,), their places in a row; `edges`: float64 (edges, columns), in ascending order, NaN
        where a column has fewer."""
        self._columns = np.ascontiguousarray(columns, np.int64)
        self._edges = np.ascontiguousarray(edges, np.float64)
        self._row_size_min = int(columns.max()) + 1 if len(columns) else 0
        if edges.shape[1] != len(columns) or (len(columns) and columns.min() < 0):
            raise ValueError(f"edges of shape {edges.shape} for the columns {columns.tolist()}")

    def count(self, matrix: NDArray[np.float64], groups: NDArray[np.intp], number: int) -> NDArray[np.int64]:
        """The histograms of rows that belong to `groups`: intp (rows,), below `number`.

        int64 (number, columns, edges + 2): bin i has the values that i edges are not above, the last one those that are
        missing (NaN)."""
        edges, columns = self._edges.shape
        if matrix.ndim != 2 or matrix.shape[1] < self._row_size_min or groups.shape != (len(matrix),):
            raise ValueError(f"a matrix of shape {matrix.shape} and groups of shape {groups.shape}")
        if len(groups) and not 0 <= groups.min() <= groups.max() < number:
            raise ValueError(f"a group that is not below {number}")
        counts = np.zeros((number, columns, edges + 2), np.int64)
        try:
            kernels = library()
        except UnavailableError:
            self._count_blocks(matrix, groups, counts)
        else:
            self._count_in_kernel(kernels, matrix, groups, counts)
        return counts

    def _count_in_kernel(
        self, kernels: Library, matrix: NDArray[np.float64], groups: NDArray[np.intp], counts: NDArray[np.int64]
    ) -> None:
        matrix, groups = np.ascontiguousarray(matrix, np.float64), np.ascontiguousarray(groups, np.int64)
        kernels.count_bins(
            matrix.ctypes.data, len(matrix), matrix.shape[1], self._columns.ctypes.data, len(self._columns),
            self._edges.ctypes.data, len(self._edges), groups.ctypes.data, counts.ctypes.data, kernels.version,
        )  # fmt: skip

    def _count_blocks(self, matrix: NDArray[np.float64], groups: NDArray[np.intp], counts: NDArray[np.int64]) -> None:
        number, columns, bins = counts.shape
        flat = counts.reshape(-1)
        for start in range(0, len(matrix) if columns else 0, BLOCK_ROWS):
            block = slice(start, start + BLOCK_ROWS)
            places = self._places(matrix[block, self._columns], bins) + (groups[block] * (columns * bins))[:, None]
            flat += np.bincount(places.ravel(), minlength=number * columns * bins)

    def _places(self, values: NDArray[np.float64], bins: int) -> NDArray[np.intp]:
        """The bin of each value, with `bins` bins for each column: intp (rows, columns)."""
        found = np.where(np.isnan(values), bins - 1, 0)
        for edges in self._edges:
            found += values >= edges
        places: NDArray[np.intp] = found + np.arange(values.shape[1]) * bins
        return places
