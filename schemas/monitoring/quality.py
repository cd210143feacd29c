"""How good predictions were, by the labels that came later: sums that add up, and the measures made from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Literal

import msgspec

Task = Literal["binary", "classes", "number"]
"""What a version predicts: the probability of the second of two classes, one of several classes, or a number."""

SCORE_BINS = 1_000
"""Equal bins of a binary probability from 0 to 1. AUC takes probabilities of one bin as equal."""
CALIBRATION_BINS = 10
ERROR_MAX = 1e100
"""Larger errors of numbers are counted as this one, so that sums stay finite."""
LEAST_PROBABILITY = 1e-15
"""Smaller probabilities are raised to it for the log loss, as scikit-learn does for float64."""

_Sum = Annotated[float, msgspec.Meta(ge=0)]
_Bin = Annotated[int, msgspec.Meta(ge=0, lt=SCORE_BINS)]


class Quality(msgspec.Struct, frozen=True, omit_defaults=True):
    """Sums over labelled rows, each times the weight of its label."""

    rows: Annotated[int, msgspec.Meta(ge=0, le=2**53)] = 0
    weight: _Sum = 0.0
    correct: _Sum = 0.0
    """Rows whose most probable class was right. A binary prediction is the second class from the version's threshold
    on."""
    log_losses: _Sum = 0.0
    briers: _Sum = 0.0
    """Squared differences of the probability and 0 or 1; over all classes, if there are more than two."""
    scored: _Sum = 0.0
    """Rows with probabilities: those in `log_losses` and `briers`."""
    squares: _Sum = 0.0
    """Squared errors of numbers."""
    absolutes: _Sum = 0.0
    numbers: _Sum = 0.0
    """Rows in `squares` and `absolutes`."""
    positives: dict[_Bin, _Sum] = {}
    """Binary rows of the second class, by the bin of their probability."""
    negatives: dict[_Bin, _Sum] = {}

    def plus(self, other: Quality) -> Quality:
        """The sum."""
        return Quality(
            self.rows + other.rows,
            self.weight + other.weight,
            self.correct + other.correct,
            self.log_losses + other.log_losses,
            self.briers + other.briers,
            self.scored + other.scored,
            self.squares + other.squares,
            self.absolutes + other.absolutes,
            self.numbers + other.numbers,
            _added(self.positives, other.positives),
            _added(self.negatives, other.negatives),
        )

    @property
    def accuracy(self) -> float | None:
        """Share of right classes; None for numbers, and without labels."""
        classed = self.weight - self.numbers
        return self.correct / classed if classed > 0 else None

    @property
    def log_loss(self) -> float | None:
        """Mean log loss; None without probabilities."""
        return self.log_losses / self.scored if self.scored > 0 else None

    @property
    def brier(self) -> float | None:
        """Mean Brier score; None without probabilities."""
        return self.briers / self.scored if self.scored > 0 else None

    @property
    def rmse(self) -> float | None:
        """Root of the mean squared error; None for classes."""
        return math.sqrt(self.squares / self.numbers) if self.numbers > 0 else None

    @property
    def mae(self) -> float | None:
        """Mean absolute error; None for classes."""
        return self.absolutes / self.numbers if self.numbers > 0 else None

    @property
    def auc(self) -> float | None:
        """Area under the ROC curve, by bins of probabilities; None unless there are binary rows of both classes."""
        positive, negative = sum(self.positives.values()), sum(self.negatives.values())
        if not positive or not negative:
            return None
        below = area = 0.0
        for number in sorted({*self.positives, *self.negatives}):
            of_bin = self.negatives.get(number, 0.0)
            area += self.positives.get(number, 0.0) * (below + of_bin / 2)
            below += of_bin
        return area / (positive * negative)

    def calibration(self) -> list[tuple[float, float, float]]:
        """Of each tenth of the probabilities that has rows: mean probability, share of the second class, and weight."""
        tenths: dict[int, list[float]] = {}
        for counts, is_positive in ((self.negatives, 0.0), (self.positives, 1.0)):
            for number, weight in counts.items():
                sums = tenths.setdefault(number * CALIBRATION_BINS // SCORE_BINS, [0.0, 0.0, 0.0])
                sums[0] += weight * (number + 0.5) / SCORE_BINS
                sums[1] += weight * is_positive
                sums[2] += weight
        return [(sums[0] / sums[2], sums[1] / sums[2], sums[2]) for _, sums in sorted(tenths.items()) if sums[2]]


def of_probability(probability: float, *, positive: bool, weight: float, threshold: float = 0.5) -> Quality:
    """A binary row: the predicted probability of the second class, and whether it was the right one. `threshold`: from
    which probability on it is predicted."""
    bin_of = min(SCORE_BINS - 1, int(probability * SCORE_BINS))
    right = probability if positive else 1 - probability
    return Quality(
        rows=1,
        weight=weight,
        correct=weight if (probability >= threshold) == positive else 0.0,
        log_losses=-weight * math.log(min(max(right, LEAST_PROBABILITY), 1.0)),
        briers=weight * (1 - right) ** 2,
        scored=weight,
        positives={bin_of: weight} if positive else {},
        negatives={} if positive else {bin_of: weight},
    )


def of_class(predicted: int | Sequence[float], label: int, weight: float) -> Quality:
    """A row of one of several classes: the predicted class or the probabilities of all of them, and the right class."""
    if isinstance(predicted, int):
        return Quality(rows=1, weight=weight, correct=weight if predicted == label else 0.0)
    most_likely = max(range(len(predicted)), key=predicted.__getitem__)
    return Quality(
        rows=1,
        weight=weight,
        correct=weight if most_likely == label else 0.0,
        log_losses=-weight * math.log(min(max(predicted[label], LEAST_PROBABILITY), 1.0)),
        briers=weight * sum((each - (place == label)) ** 2 for place, each in enumerate(predicted)),
        scored=weight,
    )


def of_number(predicted: float, label: float, weight: float) -> Quality:
    """A row of a number."""
    error = min(max(predicted - label, -ERROR_MAX), ERROR_MAX)
    return Quality(rows=1, weight=weight, squares=weight * error * error, absolutes=weight * abs(error), numbers=weight)


def _added(first: Mapping[int, float], second: Mapping[int, float]) -> dict[int, float]:
    return {number: first.get(number, 0.0) + second.get(number, 0.0) for number in sorted({*first, *second})}
