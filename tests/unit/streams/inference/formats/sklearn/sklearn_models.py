"""Small scikit-learn models of many shapes, as `.skops` files, and rows to score."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pandas as pd
import skops.io
from sklearn.calibration import CalibratedClassifierCV
from sklearn.cluster import KMeans
from sklearn.compose import ColumnTransformer, TransformedTargetRegressor
from sklearn.ensemble import (
    ExtraTreesRegressor,
    GradientBoostingClassifier,
    HistGradientBoostingClassifier,
    HistGradientBoostingRegressor,
    IsolationForest,
    RandomForestClassifier,
    StackingClassifier,
    VotingClassifier,
)
from sklearn.feature_extraction.text import CountVectorizer, HashingVectorizer, TfidfVectorizer
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LinearRegression, LogisticRegression, Ridge, SGDClassifier
from sklearn.model_selection import GridSearchCV
from sklearn.multioutput import MultiOutputClassifier, MultiOutputRegressor
from sklearn.naive_bayes import MultinomialNB
from sklearn.neighbors import KNeighborsClassifier
from sklearn.pipeline import FeatureUnion, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler, TargetEncoder
from sklearn.svm import SVC, LinearSVC
from sklearn.tree import DecisionTreeClassifier

ROWS = 40
WORDS = ("refund", "invoice", "crash", "login", "slow", "thanks", "ünïcode", "数据", "🙂", "don't")


@dataclass(frozen=True)
class Trained:
    """An estimator, its file, and rows from the distribution that it was fitted on."""

    estimator: Any
    content: bytes
    rows: Any
    """A data frame, an array, or a list of texts."""


def numbers(seed: int = 0, rows: int = ROWS) -> np.ndarray[Any, np.dtype[np.float64]]:
    return np.random.default_rng(seed).normal(size=(rows, 4)) * [1.0, 10.0, 0.1, 3.0]


def frame(seed: int = 0, rows: int = ROWS) -> Any:
    random = np.random.default_rng(seed)
    x = numbers(seed, rows)
    return pd.DataFrame(
        {
            "age": x[:, 0],
            "spend": np.where(random.random(rows) < 0.2, np.nan, x[:, 1]),
            "plan": random.choice(["basic", "pro", "ünlimited"], rows),
            "visits": random.integers(0, 6, rows),
            "region": random.integers(1, 4, rows),
            "member": x[:, 2] > 0,
            "note": texts(seed, rows),
        }
    )


def texts(seed: int = 0, rows: int = ROWS) -> list[str]:
    random = np.random.default_rng(seed)
    return [" ".join(random.choice(WORDS, 6)) for _ in range(rows)]


def labels(rows: int = ROWS) -> Any:
    return np.where(numbers()[:rows, 0] > 0, "yes", "nö")


def three(rows: int = ROWS) -> Any:
    return np.array(["bug", "question", "rückfrage"])[np.digitize(numbers()[:rows, 0], [-0.5, 0.5])]


def _columns() -> ColumnTransformer:
    return ColumnTransformer(
        [
            ("numbers", make_pipeline(SimpleImputer(), StandardScaler()), ["age", "spend"]),
            ("plan", OneHotEncoder(handle_unknown="ignore"), ["plan"]),
            ("region", OneHotEncoder(), ["region"]),
            ("text", TfidfVectorizer(), "note"),
            ("rest", "passthrough", ["visits", "member"]),
        ]
    )


def _trees() -> ColumnTransformer:
    return ColumnTransformer(
        [("plan", OrdinalEncoder(), ["plan"]), ("rest", "passthrough", ["age", "spend", "visits", "member"])]
    )


def _numeric(estimator: Any, target: Callable[[], Any]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (estimator.fit(numbers(), target()), numbers(1))


def _text(estimator: Any, target: Callable[[], Any]) -> Callable[[], tuple[Any, Any]]:
    return lambda: (estimator.fit(texts(), target()), texts(1))


def _framed(
    estimator: Any, target: Callable[[], Any], columns: list[str] | None = None
) -> Callable[[], tuple[Any, Any]]:
    def fit() -> tuple[Any, Any]:
        chosen = columns or list(frame().columns)
        return estimator.fit(frame()[chosen], target()), frame(1)[chosen]

    return fit


def value() -> Any:
    return numbers()[:, 0] + numbers()[:, 1] * 0.1


def two_values() -> Any:
    return numbers()[:, :2] * 2.0


def two_labels() -> Any:
    return (numbers()[:, :2] > 0).astype(int)


def flags() -> Any:
    return numbers()[:, 0] > 0


def _linear() -> LogisticRegression:
    return LogisticRegression(max_iter=50)


KINDS: dict[str, Callable[[], tuple[Any, Any]]] = {
    "logistic": _numeric(LogisticRegression(), labels),
    "logistic_three": _numeric(make_pipeline(StandardScaler(), _linear()), three),
    "flags": _numeric(LogisticRegression(), flags),
    "linear": _numeric(LinearRegression(), value),
    "ridge_two": _numeric(Ridge(), two_values),
    "multi_regressor": _numeric(MultiOutputRegressor(Ridge()), two_values),
    "multi_classifier": _numeric(MultiOutputClassifier(LogisticRegression()), two_labels),
    "tree": _numeric(DecisionTreeClassifier(max_depth=3), three),
    "forest": _numeric(RandomForestClassifier(5, max_depth=3, n_jobs=2, random_state=0), labels),
    "forest_two": _numeric(ExtraTreesRegressor(5, max_depth=3, random_state=0), two_values),
    "boosted": _numeric(GradientBoostingClassifier(n_estimators=4, random_state=0), three),
    "histogram": _numeric(HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=3), labels),
    "histogram_quantile": _numeric(
        HistGradientBoostingRegressor(loss="quantile", quantile=0.8, max_iter=4, min_samples_leaf=3), value
    ),
    "calibrated": _numeric(CalibratedClassifierCV(LinearSVC(), cv=3), labels),
    "isotonic": _numeric(CalibratedClassifierCV(DecisionTreeClassifier(max_depth=2), method="isotonic", cv=3), labels),
    "stacked": _numeric(
        StackingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))], cv=3), three
    ),
    "voting": _numeric(
        VotingClassifier([("a", LogisticRegression()), ("b", DecisionTreeClassifier(max_depth=2))], voting="soft"),
        labels,
    ),
    "searched": _numeric(GridSearchCV(LogisticRegression(), {"C": [0.1, 1.0]}, cv=3), three),
    "svc": _numeric(SVC(), three),
    "neighbours": _numeric(KNeighborsClassifier(3, algorithm="brute"), labels),
    "target": _numeric(TransformedTargetRegressor(Ridge(), func=np.arcsinh, inverse_func=np.sinh), value),
    "clusters": _numeric(KMeans(3, n_init=1, random_state=0), lambda: None),
    "outliers": _numeric(IsolationForest(n_estimators=5, random_state=0), lambda: None),
    "frame_logistic": _framed(make_pipeline(_columns(), _linear()), three),
    "frame_boosted": _framed(
        make_pipeline(_trees(), HistGradientBoostingClassifier(max_iter=4, min_samples_leaf=3)),
        labels,
        ["age", "spend", "plan", "visits", "member"],
    ),
    "frame_numbers": _framed(Ridge(), value, ["age", "visits"]),
    "frame_target": _framed(make_pipeline(TargetEncoder(), Ridge()), value, ["plan", "region"]),
    "tfidf": _text(make_pipeline(TfidfVectorizer(), _linear()), three),
    "hashing": _text(make_pipeline(HashingVectorizer(n_features=64), SGDClassifier(random_state=0)), labels),
    "characters": _text(
        make_pipeline(
            FeatureUnion([("w", CountVectorizer()), ("c", TfidfVectorizer(analyzer="char_wb", ngram_range=(2, 3)))]),
            MultinomialNB(),
        ),
        three,
    ),
    "calibrated_text": _text(CalibratedClassifierCV(make_pipeline(TfidfVectorizer(), LinearSVC()), cv=3), labels),
}


@cache
def trained(name: str) -> Trained:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # a model need not be a good one
        estimator, rows = KINDS[name]()
    return Trained(estimator, skops.io.dumps(estimator), rows)
