"""Jobs with repeated, reordered and lost messages, cancels, retries and crashes: some histories of `make
jobs-histories`, and histories that Hypothesis searches for and shrinks."""

from __future__ import annotations

from random import Random
from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from inferd.streams.jobs.state.codec import decode_state, encode_state, state_bytes_max
from tests.unit.streams.jobs.job_histories import ACTIONS, check, messages_of, run, settle
from tests.unit.streams.jobs.job_world import PARTITIONS, World


@pytest.mark.parametrize("first", range(0, 1_200, 200))
def test_histories(first: int) -> None:
    for seed in range(first, first + 200):
        run(seed, codecs=seed % 20 == 0)


def test_histories_reach_every_terminal_status() -> None:
    ends = {status.status for seed in range(200) for status in run(seed).statuses if status is not None}
    assert ends == {
        *("queued", "running", "completed", "completed_with_errors", "failed", "cancelled", "incomplete", "expired")
    }


class Histories(RuleBasedStateMachine):
    """The same world; Hypothesis chooses the order of events."""

    @initialize(seed=st.integers(0, 2**32))
    def begin(self, seed: int) -> None:
        self.world = World(Random(seed), codecs=True)
        self.left: list[Any] = messages_of(self.world.random)[::-1]

    @rule(action=st.sampled_from(sorted(ACTIONS)), partition=st.integers(0, PARTITIONS - 1))
    def act(self, action: str, partition: int) -> None:
        ACTIONS[action][1](self.world, self.left, partition)

    @rule()
    def settle(self) -> None:
        settle(self.world)

    @invariant()
    def bytes_come_back(self) -> None:
        state = self.world.state
        if state is not None:
            value = encode_state(state)
            assert len(value) <= state_bytes_max(self.world.limits)
            assert encode_state(decode_state(value)) == value

    def teardown(self) -> None:
        if hasattr(self, "world"):
            self.world.jobs += self.left[::-1]
            settle(self.world)
            check(self.world)


Histories.TestCase.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
TestFoundHistories = Histories.TestCase
