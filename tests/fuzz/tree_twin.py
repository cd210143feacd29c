"""The reference of the tree kernel in plain Python: one row, one tree, one split at a time, as in LightGBM's tree.h."""

from __future__ import annotations

import math
from collections.abc import Iterator

from inferd.streams.inference.kernels import Ending, Trees

ZERO = 1.0000000180025095e-35
"""The float32 nearest to 1e-35."""
CATEGORICAL, DEFAULT_LEFT = 1, 2
MISSING_ZERO, MISSING_NAN = 1, 2


class Twin:
    """The trees of one model."""

    def __init__(self, trees: Trees, outputs: int) -> None:
        self.outputs = outputs
        self.leaves, self.value = trees.leaves.tolist(), trees.value.tolist()
        self.left, self.right = trees.left.tolist(), trees.right.tolist()
        self.feature, self.kind, self.threshold = trees.feature.tolist(), trees.kind.tolist(), trees.threshold.tolist()
        by_category = [split for split, kind in enumerate(self.kind) if kind & CATEGORICAL]
        self.sets = {split: members.tolist() for split, members in zip(by_category, trees.sets, strict=True)}

    def sums(self, row: list[float]) -> list[float]:
        """The sums of one row."""
        row = [0.0 if abs(x) <= ZERO else x for x in row]
        totals = [0.0] * self.outputs
        for number, value in enumerate(self._leaf_values(row)):
            totals[number % self.outputs] += value
        return totals

    def _leaf_values(self, row: list[float]) -> Iterator[float]:
        first_split = first_leaf = 0
        for leaves in self.leaves:
            node = 0 if leaves > 1 else -1
            while node >= 0:
                split = first_split + node
                node = (self.left if self._goes_left(split, row[self.feature[split]]) else self.right)[split]
            yield self.value[first_leaf + ~node]
            first_split += leaves - 1
            first_leaf += leaves

    def _goes_left(self, split: int, x: float) -> bool:
        kind = self.kind[split]
        if kind & CATEGORICAL:
            members = self.sets[split]
            if math.isnan(x) or not -1 < x < 2**31 or int(x) >= 32 * len(members):
                return False
            return bool(members[int(x) // 32] >> int(x) % 32 & 1)
        missing = kind >> 2 & 3
        if math.isnan(x) and missing != MISSING_NAN:
            x = 0.0
        if (missing == MISSING_ZERO and x == 0) or math.isnan(x):
            return bool(kind & DEFAULT_LEFT)
        return bool(x <= self.threshold[split])


def finished(totals: list[float], ending: Ending) -> list[float]:
    """The predictions for the sums of one row."""
    x = [total / ending.rounds for total in totals] if ending.rounds else totals
    if ending.transform == "softmax":
        powers = [_exp(each - max(x)) for each in x]
        total = sum(powers, 0.0)
        return [power / total for power in powers]
    return [_transformed(ending, each) for each in x]


def _transformed(ending: Ending, x: float) -> float:
    match ending.transform:
        case "sigmoid":
            return 1.0 / (1.0 + _exp(-ending.scale * x))
        case "exp":
            return _exp(x)
        case "log1p_exp":
            return math.log1p(_exp(x))
        case "signed_square":
            return ((x > 0) - (x < 0)) * x * x
    return x


def _exp(x: float) -> float:
    try:
        return math.exp(x)
    except OverflowError:
        return math.inf
