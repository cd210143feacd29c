"""Labels and the predictions that wait for them."""

from __future__ import annotations

import math
from typing import Any

import msgpack
import pytest

from inferd.schemas.codecs import JSON, MSGPACK
from inferd.schemas.errors import InferenceError, InvalidValueError, MalformedError, TooLargeError
from inferd.schemas.labels import Label, ToLabel, decode_label, decode_to_label, encode_label, encode_to_label
from inferd.schemas.limits import Limits


def prediction(task: Any, scores: Any, classes: Any = None) -> ToLabel:
    return ToLabel("r", "m", 2, 7, "canary", 3, task, classes, scores)


@pytest.mark.parametrize("codec", [JSON, MSGPACK], ids=str)
@pytest.mark.parametrize("value", [1, 0.5, True, "yes", [1, 0], ["a", "b"]])
def test_a_label_survives_its_encoding(codec: Any, value: Any) -> None:
    label = Label("r-1", value, 2.5)
    assert decode_label(encode_label(label, codec), codec, Limits()) == label


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (None, MalformedError), (b"", MalformedError), (b"{", MalformedError), (b"[]", MalformedError),
        (b'{"id": "r"}', MalformedError), (b'{"id": "", "label": 1}', MalformedError),
        (b'{"id": "r", "label": {}}', MalformedError), (b'{"id": "r", "label": null}', MalformedError),
        (b'{"id": "r", "label": 1, "weight": 0}', InvalidValueError),
        (b'{"id": "r", "label": 1, "weight": -1}', InvalidValueError),
        (b'{"id": "r", "label": 1, "weight": 1e7}', InvalidValueError),
        (b'{"id": "%s", "label": 1}' % (b"x" * 1_000), InvalidValueError),
        (b'{"id": "r", "label": "%s"}' % (b"x" * 70_000), TooLargeError),
    ],
)  # fmt: skip
def test_what_is_no_label_is_refused(value: bytes | None, error: type[InferenceError]) -> None:
    with pytest.raises(error, match=r"^label: "):
        decode_label(value, JSON, Limits())


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_a_label_is_a_finite_number(number: float) -> None:
    for body in (
        {"id": "r", "label": number},
        {"id": "r", "label": [number]},
        {"id": "r", "label": 1, "weight": number},
    ):
        with pytest.raises(InvalidValueError):
            decode_label(msgpack.packb(body), MSGPACK, Limits())


def test_the_threshold_of_the_version_decides_what_is_correct() -> None:
    low = ToLabel("r", "m", 2, 7, None, None, "binary", None, [0.4], 0.3)
    assert low.quality(Label("r", 1)).quality.correct == 1.0
    assert prediction("binary", [0.4]).quality(Label("r", 1)).quality.correct == 0.0


def test_huge_errors_leave_sums_finite() -> None:
    quality = prediction("number", [1e308, -1e308]).quality(Label("r", [-1e308, 1e308], 1e6)).quality
    assert math.isfinite(quality.squares)
    assert quality.rmse == 1e100


def test_a_label_adds_to_the_window_of_the_scoring() -> None:
    window = prediction("binary", [0.75]).quality(Label("r", 1, 2.0))
    assert (window.model_id, window.version, window.minute) == ("m", 2, 7)
    assert (window.variant, window.alias_revision, window.requests) == ("canary", 3, 0)
    assert (window.quality.rows, window.quality.weight, window.quality.correct) == (1, 2.0, 2.0)


@pytest.mark.parametrize(
    ("given", "label", "correct"),
    [
        (prediction("binary", [0.75]), True, 1.0),
        (prediction("binary", [0.75]), 0, 0.0),
        (prediction("binary", [0.75], ["no", "yes"]), "yes", 1.0),
        (prediction("binary", [0.75, 0.25]), [1, 1.0], 1.0),
        (prediction("classes", [1], ["a", "b"]), "b", 1.0),
        (prediction("classes", [[0.1, 0.2, 0.7]]), 2, 1.0),
        (prediction("classes", [[0.1, 0.2, 0.7], [1, 0, 0]], [5, 6, 7]), [6, 5], 1.0),
    ],
)
def test_class_labels_are_found_by_value(given: ToLabel, label: Any, correct: float) -> None:
    assert given.quality(Label("r", label)).quality.correct == correct
    assert decode_to_label(encode_to_label(given)) == given


@pytest.mark.parametrize(
    ("given", "label", "why"),
    [
        (prediction("binary", [0.5]), 2, "classes 0 to 1 of m:2"),
        (prediction("binary", [0.5]), 0.5, "classes 0 to 1"),
        (prediction("binary", [0.5]), "yes", "a text where a number"),
        (prediction("binary", [0.5], ["no", "yes"]), 1, "not one of the 2 classes"),
        (prediction("classes", [[0.1, 0.2, 0.7]]), 3, "classes 0 to 2"),
        (prediction("number", [0.5]), "x", "a text"),
        (prediction("number", [0.5]), 10**400, "beyond float64"),
        (prediction("number", [0.5, 1.0]), 1, "1 values for the 2 rows"),
        (prediction("number", [0.5]), [1, 2], "2 values for the 1 rows"),
    ],
)
def test_labels_that_do_not_fit_say_why(given: ToLabel, label: Any, why: str) -> None:
    with pytest.raises(InvalidValueError, match=why):
        given.quality(Label("r", label))


@pytest.mark.parametrize("value", [None, b"", b"\x90", msgpack.packb(["r", "m", 2]), b"garbage"])
def test_what_is_no_prediction_is_refused(value: bytes | None) -> None:
    with pytest.raises(MalformedError, match=r"^prediction: "):
        decode_to_label(value)
