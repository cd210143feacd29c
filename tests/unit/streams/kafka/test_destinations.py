"""What topics accept: records that are rejected before they are sent, and limits learned from a rejection."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from aiokafka.errors import (
    KafkaConnectionError,
    MessageSizeTooLargeError,
    TopicAuthorizationFailedError,
    for_code,
)

from inferd.schemas.record_size import record_bytes
from inferd.streams.kafka.destinations import (
    AVOIDED_S,
    Destinations,
    InvalidRecordError,
    TopicRejectedError,
    as_rejection,
    raise_rejections,
)
from inferd.streams.kafka.outgoing import Outgoing
from inferd.streams.kafka.producer import _fitting
from inferd.streams.kafka.topic_checks import TopicState

RESULTS, REPLIES = "ns.t.results", "replies"


def topic(name: str = REPLIES, partitions: int = 3, **config: str) -> TopicState:
    return TopicState(name, "reply-to", partitions, 1, {key.replace("_", "."): value for key, value in config.items()})


class Case:
    """Destinations with topics that a test changes, and a clock that it turns."""

    def __init__(self, *states: TopicState) -> None:
        self.states: Sequence[TopicState] = states
        self.error: Exception | None = None
        self.now = self.asked = 0
        self.destinations = Destinations(states, [REPLIES], self.describe, lambda: self.now)

    async def describe(self, _sinks: object) -> Sequence[TopicState]:
        self.asked += 1
        if self.error is not None:
            raise self.error
        return self.states


def refused(error: Exception) -> TopicRejectedError:
    made = as_rejection(REPLIES, error)
    assert isinstance(made, TopicRejectedError)
    return made


@pytest.mark.parametrize("extra", [0, 1])
def test_a_record_is_rejected_from_the_first_byte_over_the_limit(extra: int) -> None:
    outgoing: Outgoing = (b"key", b"x" * 1_000, [("h", b"1")])
    most = str(record_bytes(*outgoing) - extra)
    destinations = Case(topic(max_message_bytes=most), topic(RESULTS, max_message_bytes=most)).destinations
    for name in (REPLIES, RESULTS):
        rejection = destinations.rejection(name, outgoing)
        assert (rejection.code if rejection else None) == ("too_large" if extra else None)


def test_a_compacted_reply_topic_takes_no_record_without_a_key() -> None:
    destinations = Case(topic(cleanup_policy="delete,compact")).destinations
    assert destinations.rejection(REPLIES, (b"", b"v", [])) is None
    rejection = destinations.rejection(REPLIES, (None, b"v", []))
    assert rejection is not None
    assert (rejection.code, "without a key" in rejection.message) == ("reply_to_refused", True)


def test_unknown_topics_accept_anything() -> None:
    assert Destinations().rejection("any", (None, b"v" * 10_000_000, [])) is None


async def test_a_deleted_reply_topic_is_rejected_until_it_is_recreated() -> None:
    case = Case(topic())
    case.states = [topic(partitions=0)]
    await case.destinations.learn(KafkaConnectionError("reset"), {REPLIES})
    rejection = case.destinations.rejection(REPLIES, (None, b"v", []))
    assert rejection is not None
    assert (rejection.code, case.destinations.unusable([REPLIES])) == ("reply_to_refused", REPLIES)
    case.now = 6
    assert case.destinations.outdated
    case.states = [topic(partitions=1)]
    await case.destinations.refresh()
    assert case.destinations.rejection(REPLIES, (None, b"v", [])) is None
    assert case.destinations[REPLIES].partitions == 1
    assert not case.destinations.outdated


async def test_an_unexplained_rejection_avoids_the_reply_topic_for_some_time() -> None:
    case = Case(topic())
    await case.destinations.learn(refused(TopicAuthorizationFailedError(REPLIES)), {REPLIES})
    rejection = case.destinations.rejection(REPLIES, (b"k", b"v", []))
    assert rejection is not None
    assert (rejection.code, "TopicAuthorizationFailed" in rejection.message) == ("reply_to_refused", True)
    case.now = int(AVOIDED_S) + 1
    assert case.destinations.rejection(REPLIES, (b"k", b"v", [])) is None


async def test_a_rejection_explained_by_the_settings_avoids_only_records_that_do_not_fit() -> None:
    case = Case(topic())
    case.states = [topic(max_message_bytes="200")]
    await case.destinations.learn(refused(MessageSizeTooLargeError()), {REPLIES})
    assert case.destinations.rejection(REPLIES, (b"k", b"v", [])) is None
    assert case.destinations.rejection(REPLIES, (b"k", b"v" * 200, [])) is not None


async def test_inferds_own_topics_are_never_avoided() -> None:
    case = Case(topic(RESULTS))
    await case.destinations.learn(TopicRejectedError(RESULTS), set())
    assert case.destinations.rejection(RESULTS, (b"k", b"v", [])) is None
    assert case.asked == 1


async def test_descriptions_are_kept_if_the_broker_does_not_respond() -> None:
    case = Case(topic(max_message_bytes="200"))
    case.error = KafkaConnectionError("away")
    await case.destinations.refresh()
    assert case.destinations.bytes_max(REPLIES) == 200


async def test_a_failure_without_replies_sends_no_request() -> None:
    case = Case(topic())
    await case.destinations.learn(KafkaConnectionError("reset"), set())
    assert case.asked == 0


def test_final_errors_name_their_topic() -> None:
    error = KafkaConnectionError("reset")
    assert as_rejection("t", error) is error
    with pytest.raises(TopicRejectedError) as caught, raise_rejections("t"):
        raise MessageSizeTooLargeError
    assert (caught.value.topic, type(caught.value.__cause__)) == ("t", MessageSizeTooLargeError)
    assert for_code(87) is InvalidRecordError, "aiokafka does not know the code"


def test_batches_fit_the_limit_of_their_topic() -> None:
    records: list[Any] = [(b"k", b"v" * size, []) for size in (10, 10, 5_000, 10)]
    two = record_bytes(*records[0]) * 2
    ends, start = [], 0
    while start < len(records):
        start = _fitting(records, start, two)
        ends.append(start)
    assert ends == [2, 3, 4], "one beyond the limit is sent alone"


async def test_a_description_that_takes_too_long_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def never(_sinks: object) -> Sequence[TopicState]:
        await asyncio.Event().wait()
        return []

    monkeypatch.setattr("inferd.streams.kafka.destinations.DESCRIBE_TIMEOUT_S", 0.01)
    await Destinations([topic()], [REPLIES], never).refresh()
