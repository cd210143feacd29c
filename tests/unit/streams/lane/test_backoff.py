"""Descriptions of errors in one line, for operators."""

from __future__ import annotations

import asyncio
from asyncio import IncompleteReadError

import pytest
from aiokafka.errors import KafkaConnectionError, KafkaError, KafkaTimeoutError, TopicAuthorizationFailedError

from inferd.streams.lane.backoff import cause, describe


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (KafkaTimeoutError(), "KafkaTimeoutError"),
        (KafkaTimeoutError("too late"), "KafkaTimeoutError: too late"),
        (OSError("no route"), "OSError: no route"),
        (TimeoutError(), "TimeoutError"),
    ],
)
def test_an_error_is_described_by_its_type_and_message(error: BaseException, line: str) -> None:
    assert describe(error) == line


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (
            KafkaConnectionError("[('::1', 1, <AddressFamily: 2>)]"),
            "the broker cannot be reached (KafkaConnectionError)",
        ),
        (ConnectionResetError(104, "reset"), "the broker cannot be reached (ConnectionResetError)"),
        (IncompleteReadError(b"", 4), "the broker cannot be reached (IncompleteReadError)"),
        (TimeoutError(), "the broker has not answered in time (TimeoutError)"),
        (KafkaTimeoutError("x"), "the broker has not answered in time (KafkaTimeoutError)"),
        (TopicAuthorizationFailedError("results"), describe(TopicAuthorizationFailedError("results"))),
    ],
)
def test_an_unreachable_broker_is_described(error: BaseException, line: str) -> None:
    assert cause(error) == line


def test_the_cause_of_an_error_counts() -> None:
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = KafkaConnectionError("[('::1', 1)]")
    assert cause(error) == "the broker cannot be reached (KafkaConnectionError)"


async def test_an_attempt_that_takes_too_long_is_named_by_its_timeout() -> None:
    with pytest.raises(TimeoutError) as late:
        async with asyncio.timeout(0):
            await asyncio.Event().wait()
    assert cause(late.value) == "the broker has not answered in time (TimeoutError)"


def test_a_lost_connection_is_named_whatever_its_cause() -> None:
    error = KafkaError("Unexpected error during batch delivery")
    error.__cause__ = KafkaConnectionError("broken")
    error.__cause__.__cause__ = RuntimeError("unable to perform operation on <TCPTransport>; the handler is closed")
    assert cause(error) == "the broker cannot be reached (KafkaConnectionError)"
