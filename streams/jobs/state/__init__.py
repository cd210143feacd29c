"""The state of batch jobs: pure functions from a state and a message to the next state and what to publish."""

from inferd.streams.jobs.state.codec import decode_state, encode_state, state_bytes_max
from inferd.streams.jobs.state.messages import opening_hash
from inferd.streams.jobs.state.places import moved, place_of
from inferd.streams.jobs.state.report import status_of
from inferd.streams.jobs.state.state import NOTHING_USED, JobState, Usage, usage_of
from inferd.streams.jobs.state.step import Pin, PinnedModel, Step, Terms, expire
from inferd.streams.jobs.state.transitions import advance, count, tick, wakes_at

__all__ = [
    "NOTHING_USED",
    "JobState",
    "Pin",
    "PinnedModel",
    "Step",
    "Terms",
    "Usage",
    "advance",
    "count",
    "decode_state",
    "encode_state",
    "expire",
    "moved",
    "opening_hash",
    "place_of",
    "state_bytes_max",
    "status_of",
    "tick",
    "usage_of",
    "wakes_at",
]
