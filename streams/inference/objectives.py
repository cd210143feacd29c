"""What LightGBM's objectives mean for outputs."""

from __future__ import annotations

BINARY = frozenset({"binary", "cross_entropy"})
"""One probability a row: that of the positive class."""
MULTICLASS = frozenset({"multiclass", "multiclassova"})
"""One probability a class."""
OTHER = frozenset(
    {
        "regression",
        "regression_l1",
        "huber",
        "fair",
        "poisson",
        "quantile",
        "mape",
        "gamma",
        "tweedie",
        "lambdarank",
        "rank_xendcg",
        "cross_entropy_lambda",
    }
)


def class_count(objective: str | None, outputs_per_row: int) -> int:
    """Number of classes that a model tells apart; 0 where its outputs are no probabilities."""
    if objective in BINARY:
        return 2
    return outputs_per_row if objective in MULTICLASS else 0
