"""Outputs that their topic permanently rejects, with both guarantees."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
import pytest
from aiokafka.errors import MessageSizeTooLargeError, TopicAuthorizationFailedError

from inferd.schemas.dead_letters import DeadLetter
from inferd.streams.kafka.topic_checks import TopicState
from inferd.streams.lane import watchers
from inferd.streams.lane.at_least_once import AtLeastOnce
from inferd.streams.lane.exactly_once import ExactlyOnce
from tests.fixtures.lane import DEAD_LETTERS, REPLIES, RESULTS, Bench, request, tp

both = pytest.mark.parametrize(
    "bench", [AtLeastOnce, ExactlyOnce], indirect=True, ids=["at_least_once", "exactly_once"]
)
pytestmark = both


async def describe(bench: Bench, *states: TopicState) -> None:
    """Sets the topics that the broker describes, and updates the lane's limits."""

    async def described(_sinks: object) -> Sequence[TopicState]:
        return states

    bench.destinations._describe = described
    await bench.destinations.refresh()


def replies(partitions: int = 3, **config: str) -> TopicState:
    return TopicState(REPLIES, "reply-to", partitions, 1, {name.replace("_", "."): v for name, v in config.items()})


def asking(offset: int, **fields: Any) -> Any:
    asked = request(offset, **fields)
    asked.headers = (("reply-to", REPLIES.encode()),)
    return asked


def acknowledge(bench: Bench, *topics: str) -> None:
    for sent in bench.broker.sent:
        if sent.topic in topics and not sent.future.done():
            sent.acknowledge()


async def acknowledge_until(bench: Bench, offset: int) -> None:
    """Acknowledges all sent batches until all records before `offset` are done."""

    def done() -> bool:
        acknowledge(bench, RESULTS, REPLIES, DEAD_LETTERS)
        return tp(0) in bench.lane.partitions and bench.lane.partitions[tp(0)].acked == offset

    await bench.until(done)


def answers(bench: Bench, topic: str) -> list[tuple[str, str | None]]:
    """Id and error code of each record sent to a topic, in order."""
    results = [result for sent in bench.broker.sent if sent.topic == topic for result in sent.results]
    return [(result["id"], result.get("error", {}).get("code")) for result in results]


@pytest.mark.parametrize(
    ("state", "code"),
    [
        (replies(max_message_bytes="200"), "too_large"),
        (replies(partitions=0), "reply_to_refused"),
        (replies(cleanup_policy="compact"), "reply_to_refused"),
    ],
)
async def test_a_reply_beyond_its_topics_limits_is_an_error_on_results(
    bench: Bench, state: TopicState, code: str
) -> None:
    await describe(bench, state)
    await bench.own(0)
    asked = asking(1)
    asked.key = None
    bench.lane.feed(tp(0), [request(0), asked, request(2)])
    await acknowledge_until(bench, 3)
    assert answers(bench, RESULTS) == [("r0.0", None), ("r0.1", code), ("r0.2", None)]
    assert answers(bench, REPLIES) == []
    assert bench.tenant.counters.errors == {code: 1}
    assert bench.broker.producers_opened == 1, "no record had to be sent again"


async def test_a_reply_rejected_by_the_broker_is_an_error_on_results(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0), asking(1)])
    await bench.until(lambda: [sent for sent in bench.broker.sent if sent.topic == REPLIES])
    (reply,) = [sent for sent in bench.broker.sent if sent.topic == REPLIES]
    acknowledge(bench, RESULTS)
    reply.fail(TopicAuthorizationFailedError(REPLIES))
    await bench.until(lambda: bench.group.seeks[1:])
    bench.lane.feed(tp(0), [request(0), asking(1), asking(2)])
    await acknowledge_until(bench, 3)
    assert answers(bench, RESULTS)[-3:] == [("r0.0", None), ("r0.1", "reply_to_refused"), ("r0.2", "reply_to_refused")]
    assert answers(bench, REPLIES) == [("r0.1", None)], "not retried at once"


async def test_a_rejected_reply_keeps_the_order_of_results(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [asking(0), request(1)])
    await bench.until(lambda: answers(bench, REPLIES))
    (reply,) = [sent for sent in bench.broker.sent if sent.topic == REPLIES]
    if isinstance(bench.guarantee, AtLeastOnce):
        assert answers(bench, RESULTS) == [], "records sent without a transaction cannot be undone"
    reply.fail(TopicAuthorizationFailedError(REPLIES))
    await bench.until(lambda: bench.group.seeks[1:])
    seen = len(answers(bench, RESULTS))
    bench.lane.feed(tp(0), [asking(0), request(1)])
    await acknowledge_until(bench, 2)
    assert answers(bench, RESULTS)[seen:] == [("r0.0", "reply_to_refused"), ("r0.1", None)]


async def test_a_reply_is_abandoned_once_its_topic_is_deleted(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """A producer retries forever if the topic was deleted."""
    monkeypatch.setattr(watchers, "REPLY_LATE_S", 0.01)
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0), asking(1)])
    await bench.until(lambda: answers(bench, REPLIES))
    await describe(bench, replies(partitions=0))
    await bench.until(lambda: bench.group.seeks[1:])
    bench.lane.feed(tp(0), [request(0), asking(1)])
    await acknowledge_until(bench, 2)
    assert answers(bench, RESULTS)[-2:] == [("r0.0", None), ("r0.1", "reply_to_refused")]
    await describe(bench, replies())


async def test_a_result_beyond_its_topics_limits_is_too_large(bench: Bench) -> None:
    await describe(bench, TopicState(RESULTS, "results", 8, 1, {"max.message.bytes": "700"}))
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0), request(1, input_data=[[1.0, 2.0]] * 200), request(2)])
    await acknowledge_until(bench, 3)
    assert answers(bench, RESULTS) == [("r0.0", None), ("r0.1", "too_large"), ("r0.2", None)]
    assert [len(sent.records) for sent in bench.broker.sent if sent.topic == RESULTS] == [1, 1, 1], "no larger batches"


async def test_offsets_are_held_if_even_the_error_does_not_fit(bench: Bench) -> None:
    await describe(bench, TopicState(RESULTS, "results", 8, 1, {"max.message.bytes": "100"}))
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (sent,) = await bench.sent(1)
    assert answers(bench, RESULTS) == [("r0.0", None)]
    sent.fail(MessageSizeTooLargeError())
    await bench.until(lambda: bench.group.seeks[1:])
    assert bench.lane.partitions[tp(0)].acked == 0
    assert "results cannot be published" in str(bench.lane.fault)
    assert f"topic {RESULTS}: MessageSizeTooLargeError" in str(bench.lane.fault)


async def test_a_dead_letter_that_does_not_fit_omits_parts(bench: Bench) -> None:
    await describe(bench, TopicState(DEAD_LETTERS, "dead-letters", 8, 1, {"max.message.bytes": "2000"}))
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0, value=b"\xc1" * 5_000), request(1)])
    await acknowledge_until(bench, 2)
    ((key, value, headers),) = [
        record for sent in bench.broker.sent if sent.topic == DEAD_LETTERS for record in sent.records
    ]
    letter = DeadLetter.parse(key, value, headers)
    assert (letter.key, letter.value, letter.offset) == (b"k0", None, 0)
    assert [(omitted.part, omitted.bytes) for omitted in letter.omitted] == [("value", 5_000)]
    assert answers(bench, RESULTS) == [("0-0", "malformed"), ("r0.1", None)]


@pytest.mark.parametrize("where", ["key", "value", "header"])
async def test_a_record_whose_dead_letter_omits_parts_is_too_large(bench: Bench, where: str) -> None:
    big = bytes(5_000_000)
    poison = request(0, value=big if where == "value" else msgspec.msgpack.encode("good"))
    poison.key = big if where == "key" else b"k"
    poison.headers = (("h", big),) if where == "header" else ()
    await describe(bench, TopicState(DEAD_LETTERS, "dead-letters", 8, 1, {"max.message.bytes": "2162688"}))
    await bench.own(0)
    bench.lane.feed(tp(0), [poison, request(1)])
    await acknowledge_until(bench, 2)
    assert answers(bench, RESULTS) == [("0-0", "too_large"), ("r0.1", None)]
    ((key, value, headers),) = [
        record for sent in bench.broker.sent if sent.topic == DEAD_LETTERS for record in sent.records
    ]
    letter = DeadLetter.parse(key, value, headers)
    assert (letter.code, letter.omitted[0].bytes) == ("too_large", len(big) + (where == "header"))
