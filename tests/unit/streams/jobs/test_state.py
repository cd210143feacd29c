"""States as bytes: small, bounded, and unchanged by a round trip."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import MalformedError
from inferd.schemas.jobs.job import JobError, Missing
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.streams.jobs.state.chunks import chunks_of
from inferd.streams.jobs.state.codec import decode_state, encode_state, state_bytes_max
from inferd.streams.jobs.state.state import MESSAGE, JobState

I64, U64 = st.integers(-1, 2**63 - 1), st.integers(0, 2**64 - 1)


def state_of(offsets: list[int], rows: list[int], digests: list[int], seed: int = 0, chunk_rows: int = 3) -> JobState:
    messages = np.zeros(len(offsets), MESSAGE)
    messages["offset"], messages["rows"], messages["digest"] = offsets, rows, digests
    chunks = chunks_of(messages, chunk_rows)
    random = np.random.default_rng(seed)
    chunks["result"] = random.integers(-1, 2**62, len(chunks))
    chunks["failed"] = random.integers(0, 2**31 - 1, len(chunks))
    chunks["attempt"] = random.integers(0, 255, len(chunks))
    chunks["done"] = random.integers(0, 2, len(chunks))
    return JobState(
        "j", 1, 2, "running", 2**64 - 1, "json", "m", 3, "d" * 64, ("prediction", "raw"), chunk_rows,
        messages=messages, next_seq=len(messages), chunks=chunks, barriers_left=2**70 + 1, labels={"a": "b"},
        error=JobError("internal", "x"), missing=Missing(messages=[(1, 2)], truncated=True),
    )  # fmt: skip


@given(st.lists(st.tuples(I64, st.integers(0, 20), U64), max_size=30), st.integers(0, 99))
def test_a_state_round_trips(messages: list[tuple[int, int, int]], seed: int) -> None:
    state = state_of([m[0] for m in messages], [m[1] for m in messages], [m[2] for m in messages], seed)
    value = encode_state(state)
    again = decode_state(value)
    for name in JobState.__slots__:
        if name not in ("messages", "chunks"):
            assert getattr(again, name) == getattr(state, name)
    assert again.messages.tolist() == state.messages.tolist()
    assert again.chunks.tolist() == state.chunks.tolist()
    assert encode_state(again) == value


def test_a_state_without_alias_has_the_bytes_of_earlier_workers_and_one_with_it_round_trips() -> None:
    state = JobState("j", 1, 2, model_id="m", version=3)
    fields = len(msgspec.msgpack.decode(encode_state(state)[1:])[0])
    by_alias = replace(state, alias_revision=7, variant="canary")
    assert len(msgspec.msgpack.decode(encode_state(by_alias)[1:])[0]) == fields + 2
    for each in (state, by_alias):
        again = decode_state(encode_state(each))
        assert (again.alias_revision, again.variant, again.applied_results) == (each.alias_revision, each.variant, -1)


def test_the_largest_state_is_within_its_bound_and_a_record() -> None:
    limits = DEFAULT_LIMITS
    random = np.random.default_rng(1)
    n, chunks = limits.job_messages_max, limits.job_chunks_max
    rows = [chunks // n * 3] * n
    offsets = random.integers(-1, 2**63 - 1, n).tolist()
    state = state_of(offsets, rows, random.integers(0, 2**64 - 1, n, dtype=np.uint64).tolist())
    assert len(state.chunks) == chunks
    size = len(encode_state(state))
    assert 0.9 * 827_392 < size + 40_960 <= state_bytes_max(limits) + 40_960
    assert state_bytes_max(limits) < 900_000


def test_a_million_rows_are_some_kilobytes() -> None:
    state = state_of([3 * seq + 17 for seq in range(1_000)], [1_000] * 1_000, list(range(1_000)), chunk_rows=1_024)
    chunks = state.chunks.copy()
    chunks["result"], chunks["failed"], chunks["attempt"], chunks["done"] = np.arange(1_000) * 2, 0, 0, True
    random = np.random.default_rng(0)
    messages = state.messages.copy()
    messages["digest"] = random.integers(0, 2**64 - 1, 1_000, dtype=np.uint64)
    usual = JobState("j", 1, 2, chunk_rows=1_024, messages=messages, next_seq=1_000, chunks=chunks)
    assert len(encode_state(usual)) < 13_000


def test_states_cannot_be_changed_in_place() -> None:
    state = decode_state(encode_state(state_of([1], [5], [7])))
    with pytest.raises(ValueError, match="read-only"):
        state.chunks["done"][0] = True


@pytest.mark.parametrize(
    "value", [b"", b"\x02", b"\x01", b"\x01\xc1", b"\x01\x90", b"\x01\x96\x90\xc4\x00\x00\x90\x00\x90"]
)
def test_bytes_that_are_not_a_state_are_rejected(value: bytes) -> None:
    with pytest.raises(MalformedError):
        decode_state(value)


def test_a_truncated_state_is_rejected_at_every_length() -> None:
    value = encode_state(state_of([1, 2], [5, 6], [7, 8]))
    for end in range(len(value)):
        with pytest.raises(MalformedError):
            decode_state(value[:end])


def test_smaller_limits_give_a_smaller_bound() -> None:
    assert state_bytes_max(Limits(job_messages_max=10, job_chunks_max=10)) < 50_000
