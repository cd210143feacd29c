"""Decides whether a row of an estimator has the same bits in any batch.

With linear algebra on dense arrays it may not: BLAS sums in another order for another number of rows. Trees, and linear
models on sparse rows (text), sum each row independently. Unknown estimators are scored row by row.
"""

from __future__ import annotations

from typing import Any

_TREES = frozenset(
    {
        "DecisionTreeClassifier", "DecisionTreeRegressor", "ExtraTreeClassifier", "ExtraTreeRegressor",
        "ExtraTreesClassifier", "ExtraTreesRegressor", "GradientBoostingClassifier", "GradientBoostingRegressor",
        "HistGradientBoostingClassifier", "HistGradientBoostingRegressor", "RandomForestClassifier",
        "RandomForestRegressor",
    }
)  # fmt: skip
_LINEAR = frozenset(
    {
        "BernoulliNB", "ComplementNB", "LinearSVC", "LogisticRegression", "MultinomialNB", "Perceptron",
        "PassiveAggressiveClassifier", "RidgeClassifier", "SGDClassifier", "SGDRegressor",
    }
)  # fmt: skip
_TEXT = frozenset({"CountVectorizer", "HashingVectorizer", "TfidfVectorizer"})
_BY_VALUE = frozenset(
    {
        "MaxAbsScaler", "MinMaxScaler", "OneHotEncoder", "OrdinalEncoder", "RobustScaler", "SimpleImputer",
        "StandardScaler", "TargetEncoder",
    }
)  # fmt: skip
"""Transformers that compute each value independently."""


def is_batchable(model: Any, *, sparse: bool = False) -> bool:
    """Whether the results for a row do not depend on the other rows in a batch. `sparse`: whether its input is
    sparse."""
    kind = type(model).__name__
    if kind == "Pipeline":
        *before, last = [step for _, step in model.steps if step is not None and step != "passthrough"]
        return all(map(_transforms_alone, before)) and is_batchable(last, sparse=bool(before) and _is_text(before[-1]))
    if kind == "CalibratedClassifierCV":
        return all(is_batchable(each.estimator, sparse=sparse) for each in model.calibrated_classifiers_)
    return kind in _TREES or (sparse and kind in _LINEAR)


def _transforms_alone(transformer: Any) -> bool:
    kind = type(transformer).__name__
    if kind == "Pipeline":
        return all(_transforms_alone(step) for _, step in transformer.steps)
    if kind == "FeatureUnion":
        return all(_transforms_alone(each) for _, each in transformer.transformer_list)
    if kind == "ColumnTransformer":
        return all(isinstance(each, str) or _transforms_alone(each) for _, each, _ in transformer.transformers_)
    return kind in _TEXT or kind in _BY_VALUE or kind == "TfidfTransformer"


def _is_text(transformer: Any) -> bool:
    """Whether its output is sparse."""
    kind = type(transformer).__name__
    if kind == "FeatureUnion":
        return all(_is_text(each) for _, each in transformer.transformer_list)
    if kind == "Pipeline":
        return _is_text(transformer.steps[-1][1])
    return kind in _TEXT or kind == "TfidfTransformer"
