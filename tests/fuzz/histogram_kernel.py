"""Random matrices through the histogram kernel, and random keys through the kernel of split keys, compared with plain
Python.

All arrays end at an inaccessible page: an access out of bounds kills the process.
"""

from __future__ import annotations

import hashlib
import math
import random
import time
from bisect import bisect_right
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference import library
from tests.fuzz.tree_kernel import Guarded

ODD = (math.nan, math.inf, -math.inf, 0.0, -0.0, 5e-324, 1.7976931348623157e308)
KEY_SIZES = (1, 7, 8, 9, 16, 120, 127, 128, 129, 255, 256, 257, 1_000)
Kernel = Callable[..., None]


def compare_bins(rng: random.Random, guarded: Guarded, kernel: Kernel, versions: int) -> int:
    """Compares one matrix; returns how many values it has."""
    draw = np.random.default_rng(rng.getrandbits(32))
    columns, rows = rng.choice((1, 2, 30, 63, 64, 65, 130)), rng.choice((0, 1, 3, 70, 257))
    spare, edge_count, number = rng.randrange(3), rng.randrange(12), rng.randrange(1, 4)
    chosen = draw.permutation(columns + spare)[:columns].astype(np.int64)
    edges = np.sort(draw.integers(-3, 4, (edge_count, columns)).astype(np.float64), axis=0)
    for column in range(columns):
        edges[rng.randrange(edge_count + 1) :, column] = np.nan
    matrix = draw.integers(-4, 5, (rows, columns + spare)).astype(np.float64)
    odd = draw.random(matrix.shape) < 0.2
    matrix[odd] = draw.choice(ODD, int(odd.sum()))
    groups = draw.integers(0, number, rows)
    expected = count(matrix, chosen, edges, groups, number)
    given = [guarded(each) for each in (matrix, chosen, edges, groups)]
    for version in range(versions + 1):
        counts = guarded(np.zeros((number, columns, edge_count + 2), np.int64))
        at_matrix, at_chosen, at_edges, at_groups = (each.ctypes.data for each in given)
        kernel(
            at_matrix, rows, columns + spare, at_chosen, columns, at_edges, edge_count, at_groups, counts.ctypes.data,
            version,
        )  # fmt: skip
        assert (counts == expected).all(), f"version {version}: {counts.tolist()}, expected {expected.tolist()}"
    guarded.release()
    return rows * columns


def count(
    matrix: NDArray[Any], chosen: NDArray[Any], edges: NDArray[Any], groups: NDArray[Any], number: int
) -> NDArray[np.int64]:
    """The histograms, one value at a time."""
    counts = np.zeros((number, len(chosen), len(edges) + 2), np.int64)
    for column, place in enumerate(chosen.tolist()):
        own = [edge for edge in edges[:, column].tolist() if not math.isnan(edge)]
        for group, value in zip(groups.tolist(), matrix[:, place].tolist(), strict=True):
            counts[group, column, len(edges) + 1 if math.isnan(value) else bisect_right(own, value)] += 1
    return counts


def compare_keys(rng: random.Random, guarded: Guarded, kernel: Kernel, versions: int) -> int:
    """Compares the digests of some keys, which overlap or leave gaps; returns how many they are."""
    size = rng.choice(KEY_SIZES)
    content = rng.randbytes(size)
    starts = [rng.randrange(size + 1) for _ in range(rng.randrange(1, 40))]
    ends = [rng.choice((size, rng.randrange(start, size + 1))) for start in starts]
    expected = [
        int.from_bytes(hashlib.blake2b(content[start:end], digest_size=8).digest(), "big")
        for start, end in zip(starts, ends, strict=True)
    ]
    bytes_, begin, stop = (guarded(np.array(each)) for each in (np.frombuffer(content, np.uint8), starts, ends))
    for version in range(versions + 1):
        digests = guarded(np.zeros(len(starts), np.uint64))
        kernel(
            bytes_.ctypes.data, size, begin.ctypes.data, stop.ctypes.data, len(starts), digests.ctypes.data, version
        )  # fmt: skip
        assert digests.tolist() == expected, f"version {version}: {starts} to {ends} of {content!r}"
    guarded.release()
    return len(starts)


def fuzz_histogram_kernel(seconds: float, seed: int, rounds: int = 10**9) -> str:
    """Runs for a number of rounds or seconds; returns a summary."""
    rng, guarded, kernels = random.Random(seed), Guarded(), library()
    done = values = keys = 0
    end = time.monotonic() + seconds
    while done < rounds and time.monotonic() < end:
        values += compare_bins(rng, guarded, kernels.count_bins, kernels.version)
        keys += compare_keys(rng, guarded, kernels.hash_keys, kernels.version)
        done += 1
    return f"histogram and key kernels: {values:,} values, {keys:,} keys, no difference from plain Python"
