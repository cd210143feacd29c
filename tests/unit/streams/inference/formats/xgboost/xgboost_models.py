"""Small XGBoost models of every kind, trained once a session."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import xgboost
from numpy.typing import NDArray

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


def _score(x: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) * np.nan_to_num(x[:, 2])
    return values


def _binary(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (_score(x) > 0).astype(np.float64)


def _classes(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.digitize(_score(x), [-0.7, 0.7]).astype(np.float64)


def _positive(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(_score(x) / 2)


def _two(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.column_stack((_score(x), np.nan_to_num(x[:, 3])))


def _two_binary(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (_two(x) > 1).astype(np.float64)


_THREE: dict[str, Any] = {"objective": "multi:softprob", "num_class": 3}
_VECTORS: dict[str, Any] = {"tree_method": "hist", "multi_strategy": "multi_output_tree"}
KINDS: dict[str, tuple[dict[str, Any], Label]] = {
    "binary": ({"objective": "binary:logistic"}, _binary),
    "hinge": ({"objective": "binary:hinge"}, _binary),
    "logitraw": ({"objective": "binary:logitraw"}, _binary),
    "logistic": ({"objective": "reg:logistic"}, _binary),
    "softmax": ({"objective": "multi:softmax", "num_class": 3}, _classes),
    "softprob": (_THREE, _classes),
    "regression": ({"objective": "reg:squarederror"}, _score),
    "squaredlog": ({"objective": "reg:squaredlogerror"}, _positive),
    "absolute": ({"objective": "reg:absoluteerror"}, _score),
    "pseudohuber": ({"objective": "reg:pseudohubererror"}, _score),
    "quantile": ({"objective": "reg:quantileerror", "quantile_alpha": 0.8}, _score),
    "quantiles": ({"objective": "reg:quantileerror", "quantile_alpha": [0.1, 0.5, 0.9]}, _score),
    "poisson": ({"objective": "count:poisson"}, _positive),
    "gamma": ({"objective": "reg:gamma"}, _positive),
    "tweedie": ({"objective": "reg:tweedie", "tweedie_variance_power": 1.3}, _positive),
    "cox": ({"objective": "survival:cox"}, _score),
    "aft": ({"objective": "survival:aft"}, _positive),
    "ndcg": ({"objective": "rank:ndcg"}, _binary),
    "pairwise": ({"objective": "rank:pairwise"}, _classes),
    "map": ({"objective": "rank:map"}, _binary),
    "targets": ({"objective": "reg:squarederror"}, _two),
    "labels": ({"objective": "binary:logistic"}, _two_binary),
    "vectors": ({"objective": "reg:squarederror", **_VECTORS}, _two),
    "vector_classes": ({**_THREE, **_VECTORS}, _classes),
    "dart": ({**_THREE, "booster": "dart", "rate_drop": 0.5}, _classes),
    "dart_binary": ({"objective": "binary:logistic", "booster": "dart", "rate_drop": 0.5}, _binary),
    "forest": ({"objective": "reg:squarederror", "num_parallel_tree": 3, "subsample": 0.6}, _score),
    "linear": ({"objective": "reg:squarederror", "booster": "gblinear"}, _score),
    "linear_classes": ({**_THREE, "booster": "gblinear"}, _classes),
    "categories": ({"objective": "reg:squarederror", "max_cat_to_onehot": 1}, lambda x: np.nan_to_num(x[:, 3]) % 3),
    "onehot": ({"objective": "reg:squarederror", "max_cat_to_onehot": 9}, lambda x: np.nan_to_num(x[:, 3]) % 3),
    "constant": ({"objective": "reg:squarederror"}, lambda x: np.full(len(x), 2.5)),
    "deep": ({"objective": "reg:squarederror", "max_depth": 9, "min_child_weight": 0}, _score),
}
CATEGORICAL = ("categories", "onehot")


@cache
def train(name: str, file_format: str = "ubj") -> Trained:
    """The model of a name in `KINDS`."""
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
