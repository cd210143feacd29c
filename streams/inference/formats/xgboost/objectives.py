"""Which outputs XGBoost's objectives have."""

from __future__ import annotations

SOFTMAX, SOFTPROB = "multi:softmax", "multi:softprob"
MULTICLASS = frozenset({SOFTMAX, SOFTPROB})
BINARY = frozenset({"binary:logistic"})
OTHER = frozenset(
    {
        "binary:hinge",
        "binary:logitraw",
        "count:poisson",
        "rank:map",
        "rank:ndcg",
        "rank:pairwise",
        "reg:absoluteerror",
        "reg:expectileerror",
        "reg:gamma",
        "reg:linear",
        "reg:logistic",
        "reg:pseudohubererror",
        "reg:quantileerror",
        "reg:squarederror",
        "reg:squaredlogerror",
        "reg:tweedie",
        "survival:aft",
        "survival:cox",
    }
)
KNOWN = BINARY | MULTICLASS | OTHER


def class_count(objective: str | None, outputs_per_row: int) -> int:
    """The number of classes; 0 if the outputs are not one probability per class."""
    if objective in BINARY:
        return 2 if outputs_per_row == 1 else 0
    return outputs_per_row if objective in MULTICLASS else 0
