"""Random trees and rows through the kernel and its equivalent in Python.

The kernel's input and output end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import ctypes
import dataclasses
import mmap
import random
import time
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.kernels import Ending, Library, Transform, TreeKernel, Trees, library, pack
from tests.fuzz import tree_twin

TRANSFORMS: tuple[Transform, ...] = ("identity", "sigmoid", "softmax", "exp", "log1p_exp", "signed_square")
ARRAYS = ("plane", "tree", "node", "split", "cuts", "values", "words")
MATH = ctypes.CDLL(None)
ODD = (
    np.nan,
    np.inf,
    -np.inf,
    0.0,
    -0.0,
    tree_twin.ZERO,
    -tree_twin.ZERO,
    1e-36,
    1.1e-35,
    5e-324,
    -0.5,
    -1.0,
    1e300,
    2.0**31,
)


class Guarded:
    """Arrays that end directly before an inaccessible page."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._libc.mmap.restype = ctypes.c_void_p
        self._libc.mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
        self._libc.mprotect.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int]
        self._libc.munmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t]
        self._mapped: list[tuple[int, int]] = []

    def __call__(self, array: NDArray[Any]) -> NDArray[Any]:
        if not array.nbytes:
            return array
        room = (array.nbytes + mmap.PAGESIZE - 1) // mmap.PAGESIZE * mmap.PAGESIZE
        start = self._libc.mmap(None, room + mmap.PAGESIZE, 3, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS, -1, 0)
        assert start not in (None, ctypes.c_void_p(-1).value)
        assert self._libc.mprotect(start + room, mmap.PAGESIZE, 0) == 0
        self._mapped.append((start, room + mmap.PAGESIZE))
        memory = (ctypes.c_uint8 * array.nbytes).from_address(start + room - array.nbytes)
        copy: NDArray[Any] = np.frombuffer(memoryview(memory), array.dtype).reshape(array.shape)
        copy[...] = array
        return copy

    def release(self) -> None:
        for start, size in self._mapped:
            self._libc.munmap(start, size)
        self._mapped.clear()


def random_trees(rng: random.Random, features: int, outputs: int) -> Trees:
    """Trees of any shape, with few or many thresholds, categorical splits and every missing type."""
    pool = [
        rng.choice((rng.gauss(0, 1), float(rng.randrange(-3, 4)), np.inf, 1e-35))
        for _ in range(rng.choice((3, 40, 900)))
    ]
    most = rng.choice((1, 2, 7, 31, 31, 256, 300))
    columns: dict[str, list[Any]] = {
        name: [] for name in ("leaves", "feature", "threshold", "kind", "left", "right", "value")
    }
    sets: list[NDArray[np.uint32]] = []
    for _ in range(outputs * rng.randrange(1, 12)):
        leaves = rng.randrange(1, most + 1)
        left, right = random_shape(rng, leaves)
        columns["leaves"].append(leaves)
        columns["left"] += left
        columns["right"] += right
        columns["value"] += [rng.choice((rng.gauss(0, 1), 0.0, -0.0, 1e-300, 1e16)) for _ in range(leaves)]
        for _ in range(leaves - 1):
            by_category = rng.random() < 0.2
            columns["feature"].append(rng.randrange(features))
            columns["kind"].append(1 if by_category else rng.choice((0, 2, 4, 6, 8, 10)))
            columns["threshold"].append(0.0 if by_category else rng.choice(pool))
            if by_category:
                sets.append(np.array([rng.getrandbits(32) for _ in range(rng.randrange(0, 4))], np.uint32))
    kinds = {"threshold": np.float64, "value": np.float64}
    arrays: dict[str, Any] = {name: np.array(column, kinds.get(name, np.int64)) for name, column in columns.items()}
    return Trees(**arrays, sets=sets)


def random_shape(rng: random.Random, leaves: int) -> tuple[list[int], list[int]]:
    """Children numbered as in LightGBM: a split replaces a leaf, which becomes its left child."""
    left, right = list[int](), list[int]()
    parent = {0: (-1, 0)}
    for split in range(leaves - 1):
        leaf = rng.randrange(split + 1) if rng.random() < 0.8 else split
        node, side = parent[leaf]
        if node >= 0:
            (left, right)[side][node] = split
        left.append(~leaf)
        right.append(~(split + 1))
        parent[leaf], parent[split + 1] = (split, 0), (split, 1)
    return left, right


def random_rows(rng: random.Random, trees: Trees, count: int, features: int) -> NDArray[np.float64]:
    """Values at and next to thresholds, category codes, and special values."""
    cuts = trees.threshold.tolist() or [0.0]

    def value() -> float:
        kind = rng.randrange(4)
        if kind == 0:
            return rng.choice(ODD)
        if kind == 1:
            return float(rng.randrange(-1, 110))
        cut = rng.choice(cuts)
        return float(rng.choice((cut, np.nextafter(cut, np.inf), np.nextafter(cut, -np.inf), rng.gauss(0, 1))))

    return np.array([[value() for _ in range(features)] for _ in range(count)])


def compare_once(rng: random.Random, guarded: Guarded, lib: Library) -> int:
    """One model and some rows; how many rows were compared."""
    features, outputs = rng.randrange(1, 7), rng.choice((1, 1, 1, 3))
    trees = random_trees(rng, features, outputs)
    rows = random_rows(rng, trees, rng.choice((1, 2, 9, 63, 64, 65, 130)), features)
    ending = Ending(rng.choice(TRANSFORMS), rng.choice((1.0, 0.7, 2.5)), rng.choice((0, 0, 7)))
    forest = pack(trees, features, outputs)
    arrays: dict[str, Any] = {name: guarded(getattr(forest, name)) for name in ARRAYS}
    forest = dataclasses.replace(forest, **arrays)
    kernel = TreeKernel(lib, forest, ending, MATH, rng.choice((1, 8, 10**6)))
    twin = tree_twin.Twin(trees, outputs)
    totals = [twin.sums(row) for row in rows.tolist()]
    out, matrix = guarded(np.zeros(len(rows) * outputs)), guarded(rows)
    assert_same(kernel.predict_into(out, matrix, raw=True), totals, trees)
    finished = [tree_twin.finished(row, ending) for row in totals]
    assert_same(kernel.predict_into(out, matrix, raw=False), finished, trees)
    guarded.release()
    return len(rows)


def assert_same(found: NDArray[np.float64], expected: list[list[float]], trees: Trees) -> None:
    wanted = np.array(expected).ravel()
    differ = (found.view(np.uint64) != wanted.view(np.uint64)) & ~(np.isnan(found) & np.isnan(wanted))
    assert not differ.any(), (
        f"value {int(differ.argmax())}: {found[differ][0]!r}, expected {wanted[differ][0]!r}, {trees}"
    )


def fuzz_tree_kernel(seconds: float, seed: int, rounds: int = 10**9) -> str:
    """Runs for a number of rounds or seconds, alternating all versions of the kernel that this CPU supports; returns a
    summary."""
    rng, guarded, lib = random.Random(seed), Guarded(), library()
    best, done, rows, end = lib.version, 0, 0, time.monotonic() + seconds
    try:
        while done < rounds and time.monotonic() < end:
            lib.version = done % (best + 1)
            rows += compare_once(rng, guarded, lib)
            done += 1
    finally:
        lib.version = best
    return f"tree kernel: {done:,} models and {rows:,} rows, no difference from the twin"
