"""Small CatBoost models of every kind, trained once per session."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

ROWS = 200
FAST: dict[str, Any] = {
    "iterations": 4,
    "depth": 3,
    "verbose": 0,
    "thread_count": 1,
    "random_seed": 7,
    "allow_writing_files": False,
}
Label = Callable[[Any], Any]


@dataclass(frozen=True)
class Trained:
    """A model file, and the model that was saved in it."""

    content: bytes
    model: Any


def numbers(seed: int = 0, rows: int = ROWS) -> NDArray[np.float64]:
    """Three columns, with missing values."""
    random = np.random.default_rng(seed)
    x = random.normal(size=(rows, 3))
    x[random.random(x.shape) < 0.1] = np.nan
    return x


def frame(seed: int = 0, rows: int = ROWS) -> Any:
    """Two numbers, a category of texts, a category of integers, and text."""
    random = np.random.default_rng(seed)
    return pd.DataFrame(
        {
            "x": numbers(seed, rows)[:, 0],
            "town": random.choice(["Ås", "oslo", "B6", "日本", ""], rows),
            "y z": random.normal(size=rows),
            "gate": random.integers(-2, 6, rows),
            "body": random.choice(["late bag", "no bag at all", "späte Ankunft 🙂", ""], rows),
        }
    )


def score(x: Any) -> NDArray[np.float64]:
    values = np.asarray(x["x"] + x["gate"] if hasattr(x, "gate") else x[:, 0] + x[:, 1], np.float64)
    return np.nan_to_num(values)


def binary(x: Any) -> NDArray[Any]:
    return (score(x) > 0).astype(int)


def classes(x: Any) -> NDArray[Any]:
    return np.digitize(score(x), [-0.7, 0.7])


def positive(x: Any) -> NDArray[np.float64]:
    return np.exp(score(x) / 4)


def named(labels: list[Any]) -> Label:
    return lambda x: np.array(labels)[classes(x) if len(labels) > 2 else binary(x)]


def pairs(x: Any) -> NDArray[np.float64]:
    return np.column_stack((score(x), positive(x)))


CLASSIFIER, REGRESSOR, RANKER = "CatBoostClassifier", "CatBoostRegressor", "CatBoostRanker"
KINDS: dict[str, tuple[str, dict[str, Any], Label]] = {
    "rmse": (REGRESSOR, {}, score),
    "quantile": (REGRESSOR, {"loss_function": "Quantile:alpha=0.3"}, score),
    "quantiles": (REGRESSOR, {"loss_function": "MultiQuantile:alpha=0.1,0.5"}, score),
    "poisson": (REGRESSOR, {"loss_function": "Poisson"}, positive),
    "tweedie": (REGRESSOR, {"loss_function": "Tweedie:variance_power=1.5"}, positive),
    "uncertainty": (REGRESSOR, {"loss_function": "RMSEWithUncertainty"}, score),
    "targets": (REGRESSOR, {"loss_function": "MultiRMSE"}, pairs),
    "cox": (REGRESSOR, {"loss_function": "Cox"}, lambda x: positive(x) * (2 * binary(x) - 1)),
    "aft": (
        REGRESSOR,
        {"loss_function": "SurvivalAft:dist=Normal"},
        lambda x: np.column_stack((positive(x), np.where(binary(x), positive(x), -1))),
    ),
    "logloss": (CLASSIFIER, {}, binary),
    "cross_entropy": (CLASSIFIER, {"loss_function": "CrossEntropy"}, binary),
    "multiclass": (CLASSIFIER, {"loss_function": "MultiClass"}, classes),
    "one_vs_all": (CLASSIFIER, {"loss_function": "MultiClassOneVsAll"}, classes),
    "labels": (CLASSIFIER, {"loss_function": "MultiLogloss"}, lambda x: np.column_stack((binary(x), 1 - binary(x)))),
    "text_labels": (CLASSIFIER, {}, named(["bug", "ßpam", "question"])),
    "boolean_labels": (CLASSIFIER, {}, lambda x: binary(x).astype(bool)),
    "float_labels": (CLASSIFIER, {}, lambda x: binary(x) + 0.5),
    "integer_labels": (CLASSIFIER, {}, lambda x: binary(x) * 7 - 3),
    "ranking": (RANKER, {"loss_function": "YetiRank"}, binary),
    "query_rmse": (RANKER, {"loss_function": "QueryRMSE"}, score),
    "depthwise": (CLASSIFIER, {"grow_policy": "Depthwise"}, binary),
    "lossguide": (REGRESSOR, {"grow_policy": "Lossguide", "max_leaves": 7}, score),
    "nan_max": (REGRESSOR, {"nan_mode": "Max"}, score),
    "deep": (REGRESSOR, {"depth": 8}, score),
}
OF_FRAMES: dict[str, tuple[str, dict[str, Any], Label]] = {
    "mixed": (CLASSIFIER, {}, named(["no", "yes"])),
    "onehot": (REGRESSOR, {"one_hot_max_size": 10}, score),
    "ctr": (CLASSIFIER, {"loss_function": "MultiClass", "one_hot_max_size": 1}, classes),
}


@cache
def train(name: str) -> Trained:
    """The model with a name in `KINDS` or `OF_FRAMES`."""
    import catboost

    kind, parameters, label = (KINDS | OF_FRAMES)[name]
    x = frame() if name in OF_FRAMES else numbers()
    model = getattr(catboost, kind)(**{**FAST, **parameters})
    how: dict[str, Any] = {}
    if name in OF_FRAMES:
        how = {"cat_features": ["town", "gate"], "text_features": ["body"]}
    if kind == RANKER:
        how["group_id"] = np.repeat(np.arange(10), ROWS // 10)
    return saved(model.fit(x, label(x), **how))


def saved(model: Any) -> Trained:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.cbm"
        model.save_model(str(path))
        return Trained(path.read_bytes(), model)
