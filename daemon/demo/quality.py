"""Quality and latency of predictions."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray


def auc(scores: ArrayLike, labels: ArrayLike) -> float:
    """Area under the ROC curve: the probability that a positive scores above a negative; ties count half.

    Computed from ranks (Mann and Whitney 1947). scores: float (n,); labels: bool (n,), with at least one of each class.
    """
    values, positive = np.asarray(scores, dtype=np.float64), np.asarray(labels, dtype=bool)
    positives, negatives = int(positive.sum()), int((~positive).sum())
    if not positives or not negatives:
        raise ValueError("AUC needs positives and negatives")
    rank_sum = _ranks(values)[positive].sum()
    return float((rank_sum - positives * (positives + 1) / 2) / (positives * negatives))


def _ranks(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Ranks from 1; equal values share their mean rank."""
    _, group, counts = np.unique(values, return_inverse=True, return_counts=True)
    last = np.cumsum(counts)
    return (last - (counts - 1) / 2)[group].astype(np.float64)


def accuracy(scores: ArrayLike, labels: ArrayLike) -> float:
    """The share of labels that the scores predict correctly, with the threshold 0.5."""
    return float(np.mean((np.asarray(scores) >= 0.5) == np.asarray(labels, dtype=bool)))


@dataclass(frozen=True, slots=True)
class Latency:
    """Quantiles in milliseconds."""

    p50_ms: float
    p99_ms: float
    max_ms: float

    @classmethod
    def of(cls, seconds: ArrayLike) -> Latency:
        """The quantiles of observations in seconds (n,)."""
        p50, p99, most = np.quantile(np.asarray(seconds) * 1_000, [0.5, 0.99, 1.0])
        return cls(float(p50), float(p99), float(most))
