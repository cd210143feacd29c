"""Where offsets are moved to."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.offsets import Destination, PartitionOffsets
from inferd.schemas.errors import InvalidValueError

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def partition(committed: int | None = 15) -> PartitionOffsets:
    return PartitionOffsets("t", 0, committed, 10, 20)


def test_each_destination() -> None:
    assert Destination(earliest=True).of(partition(), None) == 10
    assert Destination(latest=True).of(partition(), None) == 20
    assert Destination(time=NOW).of(partition(), 17) == 17
    assert Destination(time=NOW).of(partition(), None) == 20, "no record since then: the end, as in Kafka"
    assert Destination(offset=12).of(partition(), None) == 12
    assert Destination(shift=-2).of(partition(), None) == 13
    with pytest.raises(InvalidValueError, match="no committed offset"):
        Destination(shift=-2).of(partition(None), None)


@given(st.integers(-50, 50))
def test_offsets_stay_within_the_log(number: int) -> None:
    assert 10 <= Destination(shift=number).of(partition(), None) <= 20
    assert 10 <= Destination(offset=abs(number)).of(partition(), None) <= 20


def test_exactly_one_destination_is_given() -> None:
    for wrong in ({}, {"earliest": True, "latest": True}, {"offset": 0, "shift": 0}):
        with pytest.raises(InvalidValueError, match="exactly one"):
            Destination(**wrong)


@pytest.mark.parametrize(
    ("committed", "lag"), [(None, None), (15, 5), (3, 10), (20, 0), (25, 0)]
)  # fmt: skip
def test_lag(committed: int | None, lag: int | None) -> None:
    assert partition(committed).lag == lag
