"""Which outputs CatBoost's loss functions have."""

from __future__ import annotations

MULTILABEL = frozenset({"MultiLogloss", "MultiCrossEntropy"})
"""Each class is there or not: the prediction of a row is 0 or 1 for each."""
BINARY = frozenset({"Logloss", "CrossEntropy", "Focal"})
CLASSIFICATION = frozenset({"MultiClass", "MultiClassOneVsAll"}) | BINARY
"""The prediction is a class label."""
EXPLAINED_ONCE = frozenset({"RMSEWithUncertainty"})
"""The library explains the first of several values alone."""

_PREDICTION_TYPE = {
    "Poisson": "Exponent",
    "Tweedie": "Exponent",
    "RMSEWithUncertainty": "RMSEWithUncertainty",
}
RAW, PROBABILITY, CLASS = "RawFormulaVal", "Probability", "Class"


def prediction_type(loss: str | None) -> str:
    """The default prediction type of `predict` of CatBoost's classifiers, regressors and rankers."""
    if loss in CLASSIFICATION | MULTILABEL:
        return CLASS
    return _PREDICTION_TYPE.get(loss or "", RAW)
