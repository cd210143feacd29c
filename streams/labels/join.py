"""The join of labels with predictions, by request id. Pure: no I/O, no clock."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import msgspec

from inferd.schemas.errors import InvalidValueError
from inferd.schemas.labels import Label, ToLabel
from inferd.schemas.monitoring import WindowStats

LABEL_WAIT_MS = 300_000
"""How long a label waits for a prediction that this worker has not read yet."""
Outcome = Literal["joined", "unmatched", "repeated", "invalid"]
"""What became of a label: `unmatched`: no prediction had its id within the time; `repeated`: the request has a label
already; `invalid`: it does not fit the prediction."""


OUTCOMES: tuple[Outcome, ...] = get_args(Outcome)


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """What the table has for a request id until `expires_ms`."""

    expires_ms: int
    prediction: ToLabel | None = None
    label: Label | None = None
    """It waits for its prediction."""
    labelled: bool = False


@dataclass(frozen=True, slots=True)
class Step:
    """The entry after a record; None if it is unchanged."""

    entry: Entry | None = None
    window: WindowStats | None = None
    """What a label adds to the window of its version."""
    outcomes: tuple[Outcome, ...] = ()
    """Of the label of the record, unless it waits, and of one that has waited in vain."""
    error: InvalidValueError | None = None
    """Why a label is invalid."""


def add_prediction(entry: Entry | None, prediction: ToLabel, now_ms: int, window_ms: int) -> Step:
    """A prediction; the first one for an id counts until it has expired."""
    gone = _gone(entry, now_ms)
    if entry is None or entry.expires_ms <= now_ms:
        return Step(Entry(now_ms + window_ms, prediction), outcomes=gone)
    if entry.label is None:
        return Step()
    return _joined(Entry(now_ms + window_ms, prediction), entry.label)


def add_label(entry: Entry | None, label: Label, now_ms: int) -> Step:
    """A label; the first one that fits its prediction counts."""
    gone = _gone(entry, now_ms)
    if entry is None or entry.expires_ms <= now_ms:
        return Step(Entry(now_ms + LABEL_WAIT_MS, label=label), outcomes=gone)
    if entry.labelled or entry.label is not None:
        return Step(outcomes=("repeated",))
    return _joined(entry, label)


def _gone(entry: Entry | None, now_ms: int) -> tuple[Outcome, ...]:
    return expired(entry) if entry is not None and entry.expires_ms <= now_ms else ()


def expired(entry: Entry) -> tuple[Outcome, ...]:
    """What became of the label of an entry that has expired."""
    return ("unmatched",) if entry.label is not None else ()


def _joined(entry: Entry, label: Label) -> Step:
    assert entry.prediction is not None
    try:
        window = entry.prediction.quality(label)
    except InvalidValueError as error:
        return Step(entry, outcomes=("invalid",), error=error)
    # The prediction is dropped: only that there was a label is still of interest.
    return Step(Entry(entry.expires_ms, labelled=True), window, ("joined",))
