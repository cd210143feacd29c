"""Which outputs LightGBM's objectives have."""

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
_ALIASES = {
    "regression": ("regression_l2", "mean_squared_error", "mse", "l2", "l2_root", "root_mean_squared_error", "rmse"),
    "regression_l1": ("mean_absolute_error", "l1", "mae"),
    "multiclass": ("softmax",),
    "multiclassova": ("multiclass_ova", "ova", "ovr"),
    "cross_entropy": ("xentropy",),
    "cross_entropy_lambda": ("xentlambda",),
    "mape": ("mean_absolute_percentage_error",),
    "rank_xendcg": ("xendcg", "xe_ndcg", "xe_ndcg_mart", "xendcg_mart"),
    "custom": ("none", "null", "na"),
}
"""`ParseObjectiveAlias` in LightGBM's `config.h`."""
_CANONICAL = {alias: name for name, aliases in _ALIASES.items() for alias in aliases}


def canonical(objective: str) -> str:
    """The canonical name of `objective`, which may be one of LightGBM's aliases."""
    return _CANONICAL.get(objective, objective)


def class_count(objective: str | None, outputs_per_row: int) -> int:
    """The number of classes; 0 if the outputs are not probabilities."""
    if objective in BINARY:
        return 2
    return outputs_per_row if objective in MULTICLASS else 0
