"""Small LightGBM models of every kind."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROWS = 300
FEATURES = 6
FAST: dict[str, Any] = {"verbosity": -1, "num_leaves": 7, "min_data_in_leaf": 5, "num_threads": 1, "seed": 7}
Label = Callable[[NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True)
class Trained:
    """A model file, its LightGBM booster, and rows to score."""

    name: str
    text: bytes
    booster: Any
    rows: NDArray[np.float64]

    def expected(self, **how: bool) -> NDArray[np.float64]:
        predicted: NDArray[np.float64] = self.booster.predict(self.rows, num_threads=1, **how)
        return predicted


def score_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    values: NDArray[np.float64] = np.nan_to_num(x[:, 0]) + np.nan_to_num(x[:, 1]) * np.nan_to_num(x[:, 2])
    return values


def binary_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return (score_of(x) > 0).astype(np.float64)


def classes_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.digitize(score_of(x), [-0.7, 0.7]).astype(np.float64)


def positive_of(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.exp(score_of(x) / 2)


def _share(x: NDArray[np.float64]) -> NDArray[np.float64]:
    return 1 / (1 + np.exp(-score_of(x)))


def _squares(predicted: NDArray[np.float64], data: Any) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    label = data.get_label()
    target = np.eye(predicted.shape[1])[label.astype(int)] if predicted.ndim == 2 else label
    return predicted - target, np.ones_like(predicted)


KINDS: dict[str, tuple[dict[str, Any], Label]] = {
    "binary": ({"objective": "binary"}, binary_of),
    "binary_sigmoid": ({"objective": "binary", "sigmoid": 2.5}, binary_of),
    "multiclass": ({"objective": "multiclass", "num_class": 3}, classes_of),
    "multiclassova": ({"objective": "multiclassova", "num_class": 3}, classes_of),
    "regression": ({"objective": "regression"}, score_of),
    "regression_sqrt": ({"objective": "regression", "reg_sqrt": True}, score_of),
    "regression_l1": ({"objective": "regression_l1"}, score_of),
    "huber": ({"objective": "huber"}, score_of),
    "fair": ({"objective": "fair"}, score_of),
    "poisson": ({"objective": "poisson"}, positive_of),
    "quantile": ({"objective": "quantile", "alpha": 0.8}, score_of),
    "mape": ({"objective": "mape"}, positive_of),
    "gamma": ({"objective": "gamma"}, positive_of),
    "tweedie": ({"objective": "tweedie", "tweedie_variance_power": 1.3}, positive_of),
    "cross_entropy": ({"objective": "cross_entropy"}, _share),
    "cross_entropy_lambda": ({"objective": "cross_entropy_lambda"}, _share),
    "lambdarank": ({"objective": "lambdarank"}, classes_of),
    "rank_xendcg": ({"objective": "rank_xendcg"}, classes_of),
    "custom": ({"objective": _squares}, score_of),
    "custom_multi": ({"objective": _squares, "num_class": 3}, classes_of),
    "linear": ({"objective": "regression", "linear_tree": True}, score_of),
    "linear_binary": ({"objective": "binary", "linear_tree": True, "linear_lambda": 0.01}, binary_of),
    "dart": ({"objective": "binary", "boosting": "dart", "drop_rate": 0.5}, binary_of),
    "goss": ({"objective": "regression", "data_sample_strategy": "goss"}, score_of),
    "rf": ({"objective": "binary", "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6}, binary_of),
    "rf_multiclass": (
        {"objective": "multiclass", "num_class": 3, "boosting": "rf", "bagging_freq": 1, "bagging_fraction": 0.6},
        classes_of,
    ),
    "one_leaf": ({"objective": "regression"}, lambda x: np.full(len(x), 2.5)),
    "zero_as_missing": ({"objective": "regression", "zero_as_missing": True}, score_of),
    "monotone": ({"objective": "regression", "monotone_constraints": [1, 0, -1, 0, 0, 0]}, score_of),
    "missing_alone": ({"objective": "regression"}, lambda x: np.isnan(x[:, 3]).astype(np.float64)),
    "int_coded": ({"objective": "regression", "min_data_per_group": 5}, lambda x: (x[:, 4] % 3) + (x[:, 5] % 2)),
    "stump": ({"objective": "binary", "num_leaves": 2}, binary_of),
    "deep": ({"objective": "regression", "num_leaves": 60, "min_data_in_leaf": 1}, score_of),
    "quantized": ({"objective": "binary", "use_quantized_grad": True}, binary_of),
}


def matrix(seed: int = 0, rows: int = ROWS) -> NDArray[np.float64]:
    """Four columns of numbers, one of which is often missing, and two of small integers."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, FEATURES))
    x[:, 4:] = random.integers(0, 12, size=(rows, 2))
    x[random.random(rows) < 0.3, 3] = np.nan
    x[random.random(rows) < 0.1, 0] = 0.0
    return x


def train(name: str) -> Trained:
    parameters, label = KINDS[name]
    x = matrix()
    group = [30] * 10 if "rank" in name else None
    codes: Any = [4, 5] if name == "int_coded" else "auto"
    data = lightgbm.Dataset(x, label(x), group=group, categorical_feature=codes)
    booster = lightgbm.train({**FAST, **parameters}, data, 4)
    text = booster.model_to_string()
    return Trained(name, text.encode(), lightgbm.Booster(model_str=text), matrix(1, 64))


@dataclass(frozen=True)
class PandasTrained:
    """A model trained on a data frame with categories, and frames to score."""

    text: bytes
    booster: Any
    frame: Any


def frame(seed: int = 0, rows: int = ROWS) -> Any:
    random = np.random.default_rng(seed)
    carrier = pd.Categorical(
        random.choice(["AA", "B6", "ü x", "9E"], rows), categories=["9E", "AA", "B6", "ü x", "never"]
    )
    data = pd.DataFrame(
        {
            "distance": random.normal(size=rows),
            "carrier": carrier,
            "gate": pd.Categorical(random.choice([3, 5, 90], rows)),
            "night": pd.Categorical(random.choice([True, False], rows)),
            "factor": pd.Categorical(random.choice([0.5, 1.5, -2.0], rows)),
            "delay": random.normal(size=rows),
        }
    )
    for column in ("carrier", "gate", "night", "factor", "delay"):
        data.loc[random.random(rows) < 0.1, column] = None
    return data


def frame_label(data: Any) -> Any:
    return data.distance + data.carrier.cat.codes + data.gate.cat.codes * data.night.cat.codes + data.factor.cat.codes


def train_on_frame() -> PandasTrained:
    """A model over string, integer, boolean and float categories, with missing values."""
    data = frame()
    parameters = {**FAST, "objective": "regression", "min_data_per_group": 5, "cat_smooth": 1.0, "num_leaves": 15}
    booster = lightgbm.train(parameters, lightgbm.Dataset(data, frame_label(data)), 8)
    text = booster.model_to_string()
    return PandasTrained(text.encode(), lightgbm.Booster(model_str=text), frame(1, 64))
