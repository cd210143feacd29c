"""Small ONNX models: graphs with every type of input, and scikit-learn models that skl2onnx converts."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from onnx import TensorProto, helper
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType, Int64TensorType, StringTensorType
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import GradientBoostingRegressor, RandomForestClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, StandardScaler

_OPSETS = [helper.make_opsetid("", 17), helper.make_opsetid("ai.onnx.ml", 3)]


def graph(nodes: list[Any], inputs: list[Any], outputs: list[Any], constants: list[Any] | None = None) -> Any:
    made = helper.make_graph(nodes, "g", inputs, outputs, constants or [])
    return helper.make_model(made, opset_imports=_OPSETS, ir_version=8)


def tensor(name: str, kind: int, columns: int | None = 1) -> Any:
    return helper.make_tensor_value_info(name, kind, [None, columns])


def typed(kind: int) -> bytes:
    """One column of a type, cast to float."""
    node = helper.make_node("Cast", ["x"], ["y"], to=TensorProto.DOUBLE)
    made = graph([node], [tensor("x", kind)], [tensor("y", TensorProto.DOUBLE)])
    return bytes(made.SerializeToString())


def doubled() -> bytes:
    node = helper.make_node("Add", ["x", "x"], ["y"])
    return bytes(
        graph([node], [tensor("x", TensorProto.FLOAT, 3)], [tensor("y", TensorProto.FLOAT, 3)]).SerializeToString()
    )


def numbers(seed: int = 0, rows: int = 40) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(seed).normal(size=(rows, 4)).astype(np.float32)


def labels() -> Any:
    return np.where(numbers()[:, 0] > 0, "yes", "nö")


def _columns() -> tuple[Any, list[Any]]:
    import pandas as pd

    frame = pd.DataFrame({"age": numbers()[:, 0], "visits": np.arange(40) % 5, "plan": ["basic", "pro"] * 20})
    transformer = ColumnTransformer(
        [
            ("n", StandardScaler(), ["age"]),
            ("v", "passthrough", ["visits"]),
            ("p", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
        ]
    )
    types = [
        ("age", FloatTensorType([None, 1])),
        ("visits", Int64TensorType([None, 1])),
        ("plan", StringTensorType([None, 1])),
    ]
    return make_pipeline(transformer, LogisticRegression()).fit(frame, labels()), types


_MATRIX = [("X", FloatTensorType([None, 4]))]
KINDS: dict[str, Callable[[], tuple[Any, list[Any]]]] = {
    "linear": lambda: (LinearRegression().fit(numbers(), numbers()[:, 0]), _MATRIX),
    "linear_two": lambda: (LinearRegression().fit(numbers(), numbers()[:, :2]), _MATRIX),
    "logistic": lambda: (LogisticRegression().fit(numbers(), labels()), _MATRIX),
    "logistic_three": lambda: (LogisticRegression().fit(numbers(), np.arange(40) % 3), _MATRIX),
    "forest": lambda: (RandomForestClassifier(5, max_depth=3, random_state=0).fit(numbers(), labels()), _MATRIX),
    "boosted": lambda: (GradientBoostingRegressor(n_estimators=4).fit(numbers(), numbers()[:, 1]), _MATRIX),
    "imputed": lambda: (
        make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression()).fit(numbers(), labels()),
        _MATRIX,
    ),
    "columns": _columns,
}


@cache
def converted(name: str, *, zipmap: bool = True) -> bytes:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        estimator, types = KINDS[name]()
        options = None if zipmap or not hasattr(estimator, "predict_proba") else {id(estimator): {"zipmap": False}}
        model = convert_sklearn(estimator, initial_types=types, options=options, target_opset=17)
    return bytes(model.SerializeToString())
