"""Small XGBoost models of every kind, trained once per session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

from tests.unit.streams.inference.trained_models import binary_of, classes_of, positive_of, score_of

ROWS, FEATURES, ROUNDS = 200, 4, 4
FAST: dict[str, Any] = {"max_depth": 3, "nthread": 1, "seed": 7, "verbosity": 0}
Label = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Trained:
    """A model file, and XGBoost's own booster of it."""

    content: bytes
    booster: Any

    def expected(self, rows: NDArray[np.float64], **how: bool) -> NDArray[np.float32]:
        predicted: NDArray[np.float32] = self.booster.predict(xgboost.DMatrix(rows, nthread=1), **how)
        return predicted


def matrix(seed: int = 0, rows: int = ROWS) -> NDArray[np.float64]:
    """Three columns of numbers, some missing, and one of small integers."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, FEATURES))
    x[:, 3] = random.integers(0, 6, rows)
    x[random.random(x.shape) < 0.1] = np.nan
    return x


def _two(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack((score_of(x), np.nan_to_num(x[:, 3])))


def _two_binary(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (_two(x) > 1).astype(np.float64)


_THREE: dict[str, Any] = {"objective": "multi:softprob", "num_class": 3}
_VECTORS: dict[str, Any] = {"tree_method": "hist", "multi_strategy": "multi_output_tree"}
KINDS: dict[str, tuple[dict[str, Any], Label]] = {
    "binary": ({"objective": "binary:logistic"}, binary_of),
    "hinge": ({"objective": "binary:hinge"}, binary_of),
    "logitraw": ({"objective": "binary:logitraw"}, binary_of),
    "logistic": ({"objective": "reg:logistic"}, binary_of),
    "softmax": ({"objective": "multi:softmax", "num_class": 3}, classes_of),
    "softprob": (_THREE, classes_of),
    "regression": ({"objective": "reg:squarederror"}, score_of),
    "squaredlog": ({"objective": "reg:squaredlogerror"}, positive_of),
    "absolute": ({"objective": "reg:absoluteerror"}, score_of),
    "pseudohuber": ({"objective": "reg:pseudohubererror"}, score_of),
    "quantile": ({"objective": "reg:quantileerror", "quantile_alpha": 0.8}, score_of),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, score_of),
    "poisson": ({"objective": "count:poisson"}, positive_of),
    "gamma": ({"objective": "reg:gamma"}, positive_of),
    "tweedie": ({"objective": "reg:tweedie", "tweedie_variance_power": 1.3}, positive_of),
    "cox": ({"objective": "survival:cox"}, score_of),
    "aft": ({"objective": "survival:aft"}, positive_of),
    "ndcg": ({"objective": "rank:ndcg"}, binary_of),
    "pairwise": ({"objective": "rank:pairwise"}, classes_of),
    "map": ({"objective": "rank:map"}, binary_of),
    "targets": ({"objective": "reg:squarederror"}, _two),
    "labels": ({"objective": "binary:logistic"}, _two_binary),
    "vectors": ({"objective": "reg:squarederror", **_VECTORS}, _two),
    "vector_classes": ({**_THREE, **_VECTORS}, classes_of),
    "dart": ({**_THREE, "booster": "dart", "rate_drop": 0.5}, classes_of),
    "dart_binary": ({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5}, binary_of),
    "forest": ({"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.6}, score_of),
    "linear": ({"objective": "reg:squarederror", "booster": "gblinear"}, score_of),
    "linear_classes": ({**_THREE, "booster": "gblinear"}, classes_of),
    "categories": ({"objective": "reg:squarederror", "max_cat_to_onehot": 1}, lambda x: np.nan_to_num(x[:, 3]) % 3),
    "onehot": ({"objective": "reg:squarederror", "max_cat_to_onehot": 9}, lambda x: np.nan_to_num(x[:, 3]) % 3),
    "constant": ({"objective": "reg:squarederror"}, lambda x: np.full(len(x), 2.5)),
    "deep": ({"objective": "reg:squarederror", "max_depth": 9, "min_child_weight": 0}, score_of),
}
CATEGORICAL = ("categories", "onehot")


@cache
def train(name: str, file_format: str = "ubj") -> Trained:
    """The model with a name in `KINDS`."""
    parameters, label = KINDS[name]
    x = matrix()
    types = ["float", "float", "float", "c"] if name in CATEGORICAL else None
    data = xgboost.DMatrix(x, feature_types=types, nthread=1)
    y = label(x)
    if name == "aft":
        data.set_float_info("label_lower_bound", y)
        data.set_float_info("label_upper_bound", y + 1)
    else:
        data.set_label(y)
    if parameters["objective"].startswith("rank:"):
        data.set_info(qid=np.repeat(np.arange(10), ROWS // 10))
    booster = xgboost.train({**FAST, **parameters}, data, ROUNDS)
    return loaded(bytes(booster.save_raw(file_format)))


def loaded(content: bytes) -> Trained:
    """A model file as XGBoost itself loads it."""
    booster = xgboost.Booster({"nthread": 1})
    booster.load_model(bytearray(content))
    return Trained(content, booster)
