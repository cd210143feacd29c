"""Predictions that wait for the labels of their requests."""

from __future__ import annotations

from collections.abc import Sequence
from functools import reduce

import msgspec

from inferd.schemas.codecs import DECODE_ERRORS, check_size, printable
from inferd.schemas.errors import InvalidValueError, MalformedError
from inferd.schemas.labels.label import Label, LabelValue
from inferd.schemas.monitoring import Quality, Task, Variant, WindowStats, of_class, of_number, of_probability

Scores = list[int | float | list[float]]
"""Of each row: a number or the probability of the second class, the place of the predicted class, or the probabilities
of all classes."""


class ToLabel(msgspec.Struct, frozen=True, array_like=True):
    """The prediction for one request."""

    id: str
    model_id: str
    version: int
    minute: int
    """Unix time of the scoring in minutes."""
    variant: Variant | None
    alias_revision: int | None
    task: Task
    classes: list[str | int | float | bool] | None
    """The class labels in order; None if they are 0, 1, 2, …"""
    scores: Scores
    threshold: float = 0.5
    """The second class is predicted from this probability on."""
    alias: str | None = None

    def quality(self, label: Label) -> WindowStats:
        """What the label adds to the window of the version. `InvalidValueError` if it does not fit the prediction."""
        values = label.label if isinstance(label.label, list) else [label.label]
        if len(values) != len(self.scores):
            raise InvalidValueError(f"label: {len(values)} values for the {len(self.scores)} rows of the request")
        rows = [self._row(score, value, label.weight) for score, value in zip(self.scores, values, strict=True)]
        return WindowStats(
            model_id=self.model_id,
            version=self.version,
            minute=self.minute,
            alias=self.alias,
            variant=self.variant,
            alias_revision=self.alias_revision,
            quality=reduce(Quality.plus, rows, Quality()),
        )

    def _row(self, score: float | Sequence[float], value: LabelValue, weight: float) -> Quality:
        if self.task == "number":
            assert isinstance(score, int | float)
            return of_number(score, _number(value), weight)
        if self.task == "binary":
            assert isinstance(score, int | float)
            return of_probability(score, positive=self._place(value, 2) == 1, weight=weight, threshold=self.threshold)
        if isinstance(score, int | float):
            return of_class(int(score), self._place(value, None), weight)
        return of_class(score, self._place(value, len(score)), weight)

    def _place(self, value: LabelValue, count: int | None) -> int:
        """The place of a class label."""
        if self.classes is not None:
            if value in self.classes:
                return self.classes.index(value)
            raise self._unknown(f"{len(self.classes)} classes")
        place = _number(value)
        if place != int(place) or place < 0 or (count is not None and place >= count):
            classes = "0, 1, …" if count is None else f"0 to {count - 1}"
            raise self._unknown(f"classes {classes}")
        return int(place)

    def _unknown(self, classes: str) -> InvalidValueError:
        return InvalidValueError(f"label: not one of the {classes} of {self.model_id}:{self.version}")


def _number(value: LabelValue) -> float:
    if isinstance(value, str):
        raise InvalidValueError("label: a text where a number is expected")
    try:
        return float(value)
    except OverflowError:
        raise InvalidValueError("label: beyond float64") from None


TO_LABEL_BYTES_MAX = 262_144
"""Predictions that are larger do not wait for labels."""
_encode, _decode = msgspec.msgpack.Encoder().encode, msgspec.msgpack.Decoder(ToLabel).decode


def encode_to_label(prediction: ToLabel) -> bytes:
    """The value of a record of `to-label`."""
    return _encode(prediction)


def decode_to_label(value: bytes | None) -> ToLabel:
    """The prediction in a record's value; `MalformedError` or `TooLargeError`."""
    try:
        return _decode(check_size(value, TO_LABEL_BYTES_MAX, "prediction"))
    except DECODE_ERRORS as error:
        raise MalformedError(f"prediction: {printable(str(error))}") from None
