"""The join of labels with predictions, against a plain model of it."""

from __future__ import annotations

from collections import Counter
from itertools import pairwise
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from inferd.schemas.labels import Label, ToLabel
from inferd.streams.labels.join import LABEL_WAIT_MS, Entry, Step, add_label, add_prediction, expired

WINDOW_MS = 1_000_000
IDS = st.sampled_from(["a", "b", "c"])


class Joins(RuleBasedStateMachine):
    """Every label of an id counts at most once within the time of its prediction, in whatever order they come."""

    def __init__(self) -> None:
        super().__init__()
        self.now_ms = 0
        self.entries: dict[str, Entry] = {}
        self.outcomes: Counter[str] = Counter()
        self.labels = self.joined_rows = 0
        self.joins: dict[str, list[int]] = {}

    def take(self, key: str, step: Step) -> None:
        if step.entry is not None:
            self.entries[key] = step.entry
        self.outcomes.update(step.outcomes)
        assert (step.window is not None) == ("joined" in step.outcomes)
        assert (step.error is not None) == ("invalid" in step.outcomes)
        if step.window is not None:
            self.joined_rows += step.window.quality.rows
            self.joins.setdefault(key, []).append(self.now_ms)

    @rule(key=IDS)
    def predict(self, key: str) -> None:
        prediction = ToLabel(key, "m", 1, 0, None, None, "binary", None, [0.5])
        self.take(key, add_prediction(self.entries.get(key), prediction, self.now_ms, WINDOW_MS))

    @rule(key=IDS, label=st.sampled_from([0, 1, 1, 2]))
    def label(self, key: str, label: Any) -> None:
        self.labels += 1
        self.take(key, add_label(self.entries.get(key), Label(key, label), self.now_ms))

    @rule(ms=st.sampled_from([1, LABEL_WAIT_MS, WINDOW_MS]))
    def pass_time(self, ms: int) -> None:
        self.now_ms += ms

    @rule()
    def sweep(self) -> None:
        for key, entry in list(self.entries.items()):
            if entry.expires_ms <= self.now_ms:
                self.outcomes.update(expired(entry))
                del self.entries[key]

    @invariant()
    def every_label_has_one_outcome(self) -> None:
        waiting = sum(entry.label is not None for entry in self.entries.values())
        assert sum(self.outcomes.values()) + waiting == self.labels

    @invariant()
    def a_label_counts_once(self) -> None:
        assert self.joined_rows == self.outcomes["joined"]
        for times in self.joins.values():
            assert all(later - earlier >= LABEL_WAIT_MS for earlier, later in pairwise(times))


TestJoins = Joins.TestCase
TestJoins.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)


def test_a_label_before_its_prediction_waits_for_it() -> None:
    waiting = add_label(None, Label("r", 1), 10)
    assert (waiting.outcomes, waiting.window) == ((), None)
    joined = add_prediction(waiting.entry, ToLabel("r", "m", 1, 0, None, None, "number", None, [3.0]), 20, WINDOW_MS)
    assert joined.outcomes == ("joined",)
    assert joined.window is not None
    assert joined.window.quality.absolutes == 2.0
    assert joined.entry == Entry(20 + WINDOW_MS, labelled=True)


def test_an_invalid_label_leaves_the_prediction_waiting() -> None:
    predicted = add_prediction(None, ToLabel("r", "m", 1, 0, None, None, "binary", None, [0.5]), 0, WINDOW_MS)
    wrong = add_label(predicted.entry, Label("r", "text"), 1)
    assert (wrong.outcomes, wrong.entry) == (("invalid",), predicted.entry)
    assert add_label(wrong.entry, Label("r", 1), 2).outcomes == ("joined",)
    assert add_label(add_label(wrong.entry, Label("r", 1), 2).entry, Label("r", 1), 3).outcomes == ("repeated",)
