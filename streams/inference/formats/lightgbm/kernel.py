"""Scores LightGBM models with the compiled tree kernel, after comparing it with the library.

The kernel must equal `GBDT::Predict` in LightGBM's `gbdt_prediction.cpp`, and `ConvertOutput` of each objective.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable, Iterator
from functools import cache

import numpy as np
from numpy.typing import NDArray

from inferd.streams.inference.formats.lightgbm.model_file import LightGBMFile, read_model_file
from inferd.streams.inference.kernels import (
    Ending,
    Transform,
    TreeKernel,
    Trees,
    UnavailableError,
    UnsupportedError,
    library,
    pack,
)

Predict = Callable[[NDArray[np.float64], bool], NDArray[np.float64]]
"""(float64 (rows, features), whether raw) -> float64 (rows * outputs,), by the library."""
OpenBooster = Callable[[bytes, int], Predict]
"""(model text, features) -> its predictions by the library."""

_TRANSFORMS: dict[str, Transform] = {
    "binary": "sigmoid",
    "cross_entropy": "sigmoid",
    "cross_entropy_lambda": "log1p_exp",
    "gamma": "exp",
    "multiclass": "softmax",
    "multiclassova": "sigmoid",
    "poisson": "exp",
    "tweedie": "exp",
}
_WITH_SQRT = frozenset({"fair", "mape", "quantile", "regression", "regression_l1"})
"""Objectives that keep `reg_sqrt`."""
_ZERO = float(np.float32(1e-35))
_ODD_VALUES = (
    np.nan, 0.0, -0.0, 1.0, -1.0, 0.5, -0.5, -0.999, 3.7, _ZERO, -_ZERO, 1e-36, -1e-36, np.nextafter(_ZERO, 1), 5e-324,
    1e10, 2.0**31 - 1, 2.0**31, 2.0**32 + 1, 2.0**63, -(2.0**31), 1e300, -1e300, np.inf, -np.inf,
)  # fmt: skip
_SINGLE_ROWS = 64
_CHUNK_VALUES = 1_000_000
_ROWS_MIN, _TREE_ROWS_MAX, _TRANSFORM_TREE_ROWS_MAX = 256, 4_000_000, 50_000
"""Bounds of the comparison of a large model: minimum rows, and maxima of rows times trees."""
_PROBE_LEAVES = 1_024


def compared_kernel(file: LightGBMFile, predict: Predict, open_booster: OpenBooster) -> TreeKernel:
    """The kernel of a model, after its results equalled those of `predict` for rows around each threshold.

    Raises `UnavailableError` or `UnsupportedError` with the reason if the library must score the model.
    """
    _check_functions(open_booster)
    return _compared(file, predict)


def _compared(file: LightGBMFile, predict: Predict) -> TreeKernel:
    if file.linear:
        raise UnsupportedError("it has linear trees")
    trees = Trees.joined(file.trees)
    kernel = TreeKernel(library(), pack(trees, len(file.feature_names), file.outputs_per_row), _ending(file), _math())
    transforms = _TRANSFORM_TREE_ROWS_MAX // len(trees.leaves) + 1
    for rows in adversarial_rows(trees, len(file.feature_names)):
        raw = predict(rows, True)
        singles = np.concatenate([kernel.predict(row[None], raw=True) for row in rows[:_SINGLE_ROWS]])
        if not (_same(kernel.predict(rows, raw=True), raw) and _same(singles, raw[: len(singles)])):
            raise UnsupportedError("its sums differ from those of the library")
        some = rows[: max(transforms, 0)]
        if len(some) and not _same(kernel.predict(some), predict(some, False)):
            raise UnsupportedError("its predictions differ from those of the library")
        transforms -= len(rows)
    return kernel


def _ending(file: LightGBMFile) -> Ending:
    rounds = file.tree_count // file.outputs_per_row if file.average_output else 0
    if file.objective in _WITH_SQRT and "sqrt" in file.objective_parameters:
        return Ending("signed_square", rounds=rounds)
    parameters = dict(p.split(":", 1) for p in file.objective_parameters if ":" in p)
    scale = _number(parameters["sigmoid"]) if "sigmoid" in parameters else 1.0
    return Ending(_TRANSFORMS.get(file.objective or "", "identity"), scale, rounds)


def _number(text: str) -> float:
    """Parses a number like `Common::Atof`, which rounds more than once."""
    mantissa, _, exponent = text.lower().partition("e")
    whole, _, fraction = mantissa.partition(".")
    value = float(whole or 0) + float(fraction or 0) / 10.0 ** len(fraction)
    power = int(exponent or 0)
    return value / 10.0**-power if power < 0 else value * 10.0**power


def _math() -> ctypes.CDLL:
    """The LightGBM library: symbols of the libraries that it is linked with, such as `exp`, are resolved through it."""
    from inferd.streams.inference.formats.lightgbm.c_library import library as lightgbm

    return lightgbm().functions


def _same(a: NDArray[np.float64], b: NDArray[np.float64]) -> bool:
    return np.array_equal(a.view(np.uint64), b.view(np.uint64))


# ---- rows that reveal errors


def adversarial_rows(trees: Trees, features: int) -> Iterator[NDArray[np.float64]]:
    """float64 (rows, features), in parts: each feature takes each threshold of its splits and the next float64 above
    it, the codes of its sets, and missing, zero, tiny and huge values; of large models a sample of these. The rows
    depend only on the trees."""
    pools = _pools(trees)
    longest = max(map(len, pools.values()), default=len(_ODD_VALUES))
    count = min(longest, max(_ROWS_MIN, _TREE_ROWS_MAX // max(len(trees.leaves), 1)))
    # Irregular orders, so that features do not take their extremes in the same rows.
    mixed = np.random.default_rng(0)
    picks = {feature: mixed.permutation(np.arange(count) % len(pool)) for feature, pool in pools.items()}
    step = max(1, _CHUNK_VALUES // features)
    for first in range(0, count, step):
        rows = np.zeros((min(step, count - first), features))
        for feature, pool in pools.items():
            rows[:, feature] = pool[picks[feature][first : first + step]]
        yield rows


def _pools(trees: Trees) -> dict[int, NDArray[np.float64]]:
    """The values for each feature that has splits, in arbitrary order."""
    by_category = (trees.kind & 1).astype(bool)
    ends: dict[int, int] = {}
    for feature, members in zip(trees.feature[by_category].tolist(), trees.sets, strict=True):
        ends[feature] = max(ends.get(feature, 0), 32 * len(members))
    pools = {}
    for feature in np.unique(trees.feature).tolist():
        cuts = np.unique(trees.threshold[(trees.feature == feature) & ~by_category])
        around = np.concatenate((cuts, np.nextafter(cuts, np.inf)))
        codes = np.arange(-1.0, min(ends[feature], 4_096) + 2) if feature in ends else np.empty(0)
        pools[feature] = np.random.default_rng(feature).permutation(np.concatenate((_ODD_VALUES, around, codes)))
    return pools


# ---- the functions of the transforms, checked once per process


def _check_functions(open_booster: OpenBooster) -> None:
    """`UnavailableError` if `exp` or `log1p` differ from those that the library uses."""
    if (reason := _functions_differ(open_booster)) is not None:
        raise UnavailableError(reason)


@cache
def _functions_differ(open_booster: OpenBooster) -> str | None:
    for objective in ("poisson", "cross_entropy_lambda"):
        text = probe_model(objective)
        try:
            _compared(read_model_file(text), open_booster(text, 1))
        except UnsupportedError as error:
            return f"{objective} of a model made for this differs: {error}"
    return None


def probe_model(objective: str) -> bytes:
    """A model of one feature and one balanced tree, whose leaves are spread over the range of `exp`."""
    splits = _PROBE_LEAVES - 1
    child = np.arange(1, 2 * splits + 1)
    children = np.where(child < splits, child, ~(child - splits)).reshape(splits, 2)
    depth = np.frexp(np.arange(1, splits + 1))[1] - 1
    width = _PROBE_LEAVES >> depth
    threshold = (np.arange(1, splits + 1) - (1 << depth)) * width + width / 2 - 0.5
    spread = np.random.default_rng(0).normal(size=_PROBE_LEAVES) * np.resize([1e-3, 1.0, 10.0, 250.0], _PROBE_LEAVES)
    fields = {
        "num_leaves": [_PROBE_LEAVES],
        "num_cat": [0],
        "split_feature": [0] * splits,
        "threshold": threshold.tolist(),
        "decision_type": [2] * splits,
        "left_child": children[:, 0].tolist(),
        "right_child": children[:, 1].tolist(),
        "leaf_value": spread.tolist(),
    }
    tree = "".join(f"{name}={' '.join(map(str, values))}\n" for name, values in fields.items())
    return (
        "tree\nversion=v4\nnum_class=1\nnum_tree_per_iteration=1\nlabel_index=0\nmax_feature_idx=0\n"
        f"objective={objective}\nfeature_names=x\nfeature_infos=none\n\nTree=0\n{tree}\n\nend of trees\n"
    ).encode()
