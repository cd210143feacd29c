"""How each library loads its model file and predicts, as its own documentation shows it. One thread everywhere.

Every function imports its library itself, so that a peer imports the one that it measures.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

Predict = Callable[[Any], list[Any]]
"""Rows (a list of lists or an array) to predictions."""


def _lightgbm(path: str) -> Predict:
    import lightgbm

    booster: Any = lightgbm.Booster(model_file=path)
    return lambda rows: booster.predict(np.asarray(rows), num_threads=1).tolist()


def _xgboost(path: str) -> Predict:
    import xgboost

    booster = xgboost.Booster({"nthread": 1}, model_file=path)
    return lambda rows: booster.inplace_predict(np.asarray(rows)).tolist()


def _catboost(path: str) -> Predict:
    from catboost import CatBoostClassifier

    model = CatBoostClassifier().load_model(path)
    return lambda rows: model.predict(np.asarray(rows), thread_count=1).tolist()


def _onnx(path: str) -> Predict:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda rows: session.run(["label"], {"X": np.asarray(rows, np.float32)})[0].tolist()


def load_estimator(path: str) -> Any:
    """The estimator in a file of skops."""
    import skops.io

    content = Path(path).read_bytes()
    return skops.io.loads(content, trusted=skops.io.get_untrusted_types(data=content))


def _sklearn(path: str) -> Predict:
    estimator = load_estimator(path)
    return lambda rows: estimator.predict(np.asarray(rows)).tolist()


def _sklearn_text(path: str) -> Predict:
    estimator = load_estimator(path)
    return lambda rows: estimator.predict([row[0] for row in rows]).tolist()


LIBRARIES: dict[str, Callable[[str], Predict]] = {
    "lightgbm": _lightgbm,
    "xgboost": _xgboost,
    "catboost": _catboost,
    "onnx": _onnx,
    "sklearn": _sklearn,
    "sklearn-text": _sklearn_text,
}
"""By the name of the kind of model: the path of a file -> the function that predicts."""
TEXT = "sklearn-text"
"""The kind whose rows are one text."""
