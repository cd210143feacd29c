"""The lane with fakes: exactly which records are published, acknowledged and committed, and in which order."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import msgspec
import pytest
from aiokafka.errors import KafkaTimeoutError, TopicAuthorizationFailedError
from faust.exceptions import ConsumerNotStarted

from inferd.streams.kafka import RetentionGaps
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.lane.processor import Work
from inferd.streams.lane.watchers import watch_gaps
from inferd.streams.telemetry import LaneMeasures
from tests.fixtures.lane import DEAD_LETTERS, REQUESTS, RESULTS, Bench, request, tp


def ids(results: list[Any]) -> list[str]:
    return [result["id"] for result in results]


async def test_a_request_is_answered_on_its_own_partition_with_its_key(bench: Bench) -> None:
    await bench.own(2)
    bench.lane.feed(tp(2), [request(0, partition=2)])
    (sent,) = await bench.sent(1)
    assert (sent.topic, sent.partition) == (RESULTS, 2)
    ((key, value, headers),) = sent.records
    assert key == b"k0"
    assert msgspec.msgpack.decode(value) == {
        "id": "r2.0", "model_id": "sum", "version": 1, "digest": f"{1:064x}", "prediction": 1.0,
    }  # fmt: skip
    # Sent at 1.000 s, scored at 2.000 s by the fake clock.
    assert dict(headers)["inferd-queue-us"] == b"1000000"
    assert dict(headers)["inferd-worker"] == b"worker-1"
    assert headers[0] == ("content-type", b"application/msgpack")


async def test_nothing_is_committed_before_it_is_acknowledged(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0), request(1)])
    (sent,) = await bench.sent(1)
    commits = bench.guarantee.commit
    await commits(bench.consumer, list(bench.lane.partitions.values()))  # type: ignore[arg-type]
    assert bench.consumer.commits == []
    sent.acknowledge()
    await bench.until(lambda: bench.consumer.commits)
    assert bench.consumer.commits == [{tp(0): 2}]


async def test_acknowledgements_out_of_order_commit_only_the_contiguous_range(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    await bench.sent(1)
    bench.lane.feed(tp(0), [request(1)])
    first, second = await bench.sent(2)
    second.acknowledge()
    await asyncio.sleep(0)
    assert bench.lane.partitions[tp(0)].acked == 0
    first.acknowledge()
    await bench.until(lambda: bench.consumer.commits)
    assert bench.consumer.commits == [{tp(0): 2}]


async def test_records_beyond_a_full_batch_are_sent_in_the_next(bench: Bench) -> None:
    bench.broker.batch_room = 3
    await bench.own(0)
    bench.lane.feed(tp(0), [request(n) for n in range(8)])
    sent = await bench.sent(3)
    assert [len(s.records) for s in sent] == [3, 3, 2]
    assert ids(bench.results()) == [f"r0.{n}" for n in range(8)]
    for each in sent[1:]:
        each.acknowledge()
    await asyncio.sleep(0)
    assert bench.lane.partitions[tp(0)].acked == 0, "one batch of the range is still out"
    sent[0].acknowledge()
    await bench.until(lambda: bench.consumer.commits)
    assert bench.consumer.commits == [{tp(0): 8}]


async def test_poison_records_are_answered_and_dead_lettered_without_affecting_their_neighbours(bench: Bench) -> None:
    await bench.own(0)
    poison = [request(1, value=b"\xc1"), request(3, value=b""), request(4, input_data=[1.0])]
    bench.lane.feed(tp(0), [request(0), poison[0], request(2), poison[1], poison[2], request(5)])
    await bench.until(lambda: {s.topic for s in bench.broker.sent} == {RESULTS, DEAD_LETTERS})
    results = bench.results()
    assert [r.get("prediction", r.get("error", {}).get("code")) for r in results] == [
        1.0, "malformed", 3.0, "malformed", "schema_mismatch", 6.0,
    ]  # fmt: skip
    assert results[1]["id"] == "0-1", "an unreadable record is named by its position"
    assert results[4]["id"] == "r0.4", "a readable record keeps its id"
    (dead,) = [s for s in bench.broker.sent if s.topic == DEAD_LETTERS]
    assert [value for _, value, _ in dead.records] == [b"\xc1", b""]
    headers = dict(dead.records[0][2])
    assert headers["inferd-error-code"] == b"malformed"
    assert (headers["inferd-error-topic"], headers["inferd-error-offset"]) == (REQUESTS.encode(), b"1")


async def test_a_request_with_a_too_long_key_is_rejected_without_the_key(bench: Bench) -> None:
    await bench.own(0)
    long = request(0)
    long.key = b"k" * 30_000
    long.headers = (("content-type", b"application/json"), ("reply-to", b"ns.default.replies"))
    bench.lane.feed(tp(0), [long, request(1)])
    result, dead = await bench.sent(2)
    assert [key for key, _, _ in result.records] == [None, b"k1"]
    assert json.loads(result.records[0][1])["error"]["code"] == "too_large"
    assert dead.topic == DEAD_LETTERS
    assert dead.records[0][0] == long.key


async def test_dead_letters_keep_the_order_of_their_records(bench: Bench) -> None:
    await bench.own(0)
    bad_header = request(1)
    bad_header.headers = (("deadline", b"soon"),)
    bench.lane.feed(tp(0), [request(0, value=b"\xc1"), bad_header, request(2, value=b"\xc1")])
    await bench.sent(2)
    (dead,) = [s for s in bench.broker.sent if s.topic == DEAD_LETTERS]
    assert [key for key, _, _ in dead.records] == [b"k0", b"k1", b"k2"]


async def test_the_offset_also_waits_for_the_dead_letter(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0, value=b"\xc1")])
    result, dead = await bench.sent(2)
    result.acknowledge()
    await asyncio.sleep(0)
    assert bench.lane.partitions[tp(0)].acked == 0
    dead.acknowledge()
    await bench.until(lambda: bench.consumer.commits)


async def test_all_queued_records_of_all_partitions_are_one_micro_batch(bench: Bench) -> None:
    await bench.own(0, 1, 2)
    for partition in range(3):
        bench.lane.feed(
            tp(partition), [request(n, partition, input_data=[float(n), float(partition)]) for n in range(10)]
        )
    await bench.sent(3)
    assert bench.runtime.calls == [30]


async def test_a_micro_batch_waits_to_fill_only_if_configured(bench: Bench) -> None:
    bench.worker._settings = replace(bench.worker._settings, batch_wait_ms=60_000.0, batch_rows_max=3)
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    await asyncio.sleep(0.02)
    assert bench.runtime.calls == []
    bench.lane.feed(tp(0), [request(1), request(2)])
    await bench.sent(1)
    assert bench.runtime.calls == [3], "it is full"
    bench.worker._settings = replace(bench.worker._settings, batch_wait_ms=20.0)
    bench.lane.feed(tp(0), [request(3)])
    await bench.sent(2)
    assert bench.runtime.calls == [3, 1], "the time is over"


async def test_a_failed_batch_is_done_again_from_the_last_acknowledged_offset(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (first,) = await bench.sent(1)
    first.acknowledge()
    await bench.until(lambda: bench.lane.partitions[tp(0)].acked == 1)
    bench.lane.feed(tp(0), [request(1), request(2)])
    _, second = await bench.sent(2)
    opened = bench.broker.producers_opened
    second.fail(KafkaTimeoutError())
    await bench.until(lambda: bench.group.seeks[-1:] == [{tp(0): 1}])
    await bench.until(lambda: not bench.paused)
    assert bench.broker.producers_opened == opened + 1, "a producer that failed is replaced"
    assert bench.lane.partitions[tp(0)].next_fetch == 1
    bench.lane.feed(tp(0), [request(1), request(2)])
    _, _, again = await bench.sent(3)
    assert again.records[0][:2] == second.records[0][:2], "a repeat has the same bytes"
    assert bench.lane.fault is not None, "until a batch succeeds"
    again.acknowledge()
    await bench.until(lambda: bench.consumer.committed_offsets.get(tp(0)) == 3)
    assert bench.lane.fault is None


async def test_a_rejected_record_is_neither_lost_nor_committed(bench: Bench) -> None:
    await bench.own(0)
    bench.broker.rejection = KafkaTimeoutError()
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.group.seeks[-1:] == [{tp(0): 0}])
    assert bench.consumer.commits == []
    bench.broker.rejection = None
    await bench.until(lambda: not bench.paused)
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: ids(bench.results()) == ["r0.0"])


async def test_a_topic_that_keeps_rejecting_is_retried_with_backoff(bench: Bench) -> None:
    await bench.own(0)
    bench.broker.rejection = TopicAuthorizationFailedError()
    pauses = []
    for _ in range(4):
        pauses.append(bench.lane._context.faults["default"].retry_s)
        seeks = len(bench.group.seeks)
        bench.lane.feed(tp(0), [request(0)])
        await bench.until(lambda: len(bench.group.seeks) > seeks and not bench.paused)  # noqa: B023
    assert pauses == [0.1, 0.2, 0.4, 0.8]
    assert "TopicAuthorizationFailed" in str(bench.lane.fault)
    assert bench.consumer.commits == []


async def test_a_release_commits_acknowledged_records_and_drops_queued_ones(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (first,) = await bench.sent(1)
    bench.lane.feed(tp(0), [request(1)])
    await bench.sent(2)
    first.acknowledge()
    await bench.lane.release({tp(0)})
    assert bench.consumer.committed_offsets == {tp(0): 1}, "the second was not acknowledged within the deadline"
    assert bench.lane.partitions == {}
    bench.broker.sent[1].acknowledge()
    await asyncio.sleep(0.05)
    assert bench.consumer.committed_offsets == {tp(0): 1}, "an acknowledgement after the release commits nothing"


async def test_a_release_waits_for_in_flight_records(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (sent,) = await bench.sent(1)
    releasing = asyncio.create_task(bench.lane.release({tp(0)}))
    await asyncio.sleep(0)
    sent.acknowledge()
    await releasing
    assert bench.consumer.committed_offsets == {tp(0): 1}


async def test_partitions_that_stay_are_not_touched_by_a_release(bench: Bench) -> None:
    await bench.own(0, 1)
    await bench.lane.release({tp(0)})
    bench.lane.feed(tp(1), [request(0, 1)])
    bench.lane.feed(tp(0), [request(0, 0)])
    (sent,) = await bench.sent(1)
    assert sent.partition == 1


async def test_a_commit_that_fails_is_tried_again(bench: Bench) -> None:
    bench.broker.acknowledges = True
    await bench.own(0)
    bench.consumer.rejects_commits = True
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.lane.measures.commit_failures >= 2)
    bench.consumer.rejects_commits = False
    await bench.until(lambda: bench.consumer.commits == [{tp(0): 1}])


async def test_it_resumes_at_the_committed_offset(bench: Bench) -> None:
    bench.consumer.committed_offsets[tp(0)] = 7
    await bench.own(0)
    assert bench.group.seeks == [{tp(0): 7}]
    bench.lane.feed(tp(0), [request(n) for n in range(5, 9)])
    await bench.sent(1)
    assert ids(bench.results()) == ["r0.7", "r0.8"]


async def test_retention_that_overtook_the_group_is_counted(bench: Bench) -> None:
    bench.consumer.committed_offsets[tp(0)] = 7
    bench.consumer.beginning = 10
    await bench.own(0)
    assert bench.group.seeks == [{tp(0): 10}]
    assert bench.lane.measures.records_missing == 3


async def test_a_full_partition_is_not_fetched_until_there_is_room(bench: Bench) -> None:
    await bench.own(0, 1)
    big = b"\xc1" * 600_000
    bench.lane.feed(tp(0), [request(n, value=big) for n in range(60)])
    assert bench.lane.full({tp(0), tp(1)}) == {tp(0), tp(1)}, "the whole buffer is full"
    assert bench.lane.full({tp(0), tp(3)}) == {tp(0), tp(3)}, "full, and not owned"


async def test_backpressure_stops_taking_while_too_much_is_in_flight(bench: Bench) -> None:
    await bench.own(0)
    bench.worker._settings = replace(bench.worker._settings, in_flight_bytes_max=200)
    bench.lane.feed(tp(0), [request(0), request(1)])
    await bench.sent(1)
    bench.lane.feed(tp(0), [request(2)])
    await asyncio.sleep(0.02)
    assert len(bench.broker.sent) == 1
    bench.broker.sent[0].acknowledge()
    await bench.sent(2)


async def test_a_drain_finishes_in_flight_records_and_takes_no_more(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (sent,) = await bench.sent(1)
    draining = asyncio.create_task(bench.lane.drain())
    await asyncio.sleep(0)
    bench.lane.feed(tp(0), [request(1)])
    sent.acknowledge()
    await draining
    assert bench.consumer.committed_offsets == {tp(0): 1}
    assert len(bench.broker.sent) == 1


async def test_a_drain_before_the_consumer_has_started_has_nothing_to_commit(bench: Bench) -> None:
    del bench.group.consumer
    await bench.lane.drain()


async def test_a_reply_to_topic_gets_the_result_instead(bench: Bench) -> None:
    await bench.own(1)
    asked = request(0, 1)
    asked.headers = (("reply-to", b"ns.default.replies"), ("correlation-id", b"c-1"))
    bench.lane.feed(tp(1), [asked])
    (sent,) = await bench.sent(1)
    assert (sent.topic, sent.partition) == ("ns.default.replies", 1)
    assert dict(sent.records[0][2])["correlation-id"] == b"c-1"


async def test_a_reply_to_topic_that_is_not_allowed_is_an_error_on_results(bench: Bench) -> None:
    await bench.own(0)
    asked = request(0)
    asked.headers = (("reply-to", b"other.topic"),)
    bench.lane.feed(tp(0), [asked])
    (sent,) = await bench.sent(1)
    assert (sent.topic, sent.results[0]["error"]["code"]) == (RESULTS, "reply_to_refused")
    assert sent.results[0]["id"] == "r0.0"


async def test_a_deadline_that_passed_is_answered_and_never_scored(bench: Bench) -> None:
    await bench.own(0)
    late, fine = request(0), request(1)
    late.headers = (("deadline", b"1999"),)
    fine.headers = (("deadline", b"2001"),)
    bench.lane.feed(tp(0), [late, fine])
    (sent,) = await bench.sent(1)
    assert [r.get("error", {}).get("code") for r in sent.results] == ["deadline_exceeded", None]
    assert bench.runtime.calls == [1]


async def test_a_record_that_makes_scoring_raise_is_found_and_answered(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = bench.tenant.scorer
    prepare = scorer.prepare

    def poisoned(work: Any, now_ms: int, *cache: Any) -> Any:
        if any(r.offset == 5 for _, records in work for r in records):
            raise RuntimeError("a bug")
        return prepare(work, now_ms)

    monkeypatch.setattr(scorer, "prepare", poisoned)
    await bench.own(0)
    bench.lane.feed(tp(0), [request(n) for n in range(9)])
    await bench.sent(1)
    results = bench.results()
    assert ids(results) == [f"r0.{n}" if n != 5 else "0-5" for n in range(9)]
    assert [n for n, r in enumerate(results) if "error" in r] == [5]
    assert results[5]["error"]["code"] == "internal"


async def test_a_model_that_raises_fails_only_its_own_requests(bench: Bench) -> None:
    bench.runtime.raises = lambda matrix: RuntimeError("bad model") if matrix.max() > 100 else None
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0), request(1, model_id="nothing"), request(2, input_data=[1000.0, 0.0])])
    await bench.sent(1)
    codes = [r.get("error", {}).get("code") for r in bench.results()]
    assert codes[1] == "model_not_found"
    assert codes[2] == "internal"
    assert codes[0] is None, "only the good neighbour is scored again"


async def test_the_accounts_hold_at_every_step(bench: Bench) -> None:
    def balanced() -> None:
        (tenant,) = bench.lane.tenant_snapshots()
        assert tenant.requests_in == tenant.results + sum(tenant.errors.values()) + tenant.pending

    await bench.own(0, 1)
    bench.lane.feed(tp(0), [request(0), request(1, value=b"\xc1"), request(2)])
    balanced()
    bench.lane.feed(tp(1), [request(n, 1) for n in range(5)])
    sent = await bench.sent(3)
    balanced()
    next(s for s in sent if s.partition == 0).acknowledge()
    await asyncio.sleep(0)
    balanced()
    await bench.lane.release({tp(1)})
    balanced()
    for each in sent:
        if not each.future.done():
            each.acknowledge()
    await bench.until(lambda: bench.lane.partitions[tp(0)].pending == 0)
    balanced()
    (tenant,) = bench.lane.tenant_snapshots()
    assert (tenant.results, dict(tenant.errors), tenant.dead_letters) == (2, {"malformed": 1}, 1)


async def test_a_generation_that_ends_during_the_takeover_opens_no_partition(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def seek(offsets: Any) -> None:
        bench.group.generation += 1

    monkeypatch.setattr(bench.group, "seek", seek)
    await bench.own(0)
    assert bench.lane.partitions == {}


async def test_an_exception_of_an_ack_callback_ends_the_worker_and_commits_nothing(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For example a full disk: asyncio would only log it, and the offset would be committed without the table."""
    disk_full = OSError("no space left on device")

    def acked(number: int, output: Any) -> None:
        raise disk_full

    monkeypatch.setattr(bench.tenant, "acked", acked)
    bench.expected_crashes.append(disk_full)
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (sent,) = await bench.sent(1)
    sent.acknowledge()
    await bench.until(lambda: bench.crashes)
    assert bench.lane.partitions[tp(0)].acked == 0
    await bench.guarantee.commit(bench.consumer, list(bench.lane.partitions.values()))  # type: ignore[arg-type]
    assert bench.consumer.commits == []


async def test_records_left_by_their_processor_are_retried_and_do_not_delay_other_partitions(bench: Bench) -> None:
    bench.broker.acknowledges = True
    process, ready = bench.tenant.process, False

    async def leaves(work: Work) -> Sequence[Sequence[OutputBatch]]:
        parts = [(tp, records if ready or tp.partition else records[:1]) for tp, records in work]
        done = iter(await process([(tp, records) for tp, records in parts if records]))
        return [next(done) if records else [] for _, records in parts]

    bench.tenant.process = leaves  # type: ignore[method-assign]
    await bench.own(0, 1)
    bench.lane.feed(tp(0), [request(n) for n in range(3)])
    bench.lane.feed(tp(1), [request(n, 1) for n in range(3)])
    await bench.until(lambda: {"r0.0", "r1.0", "r1.1", "r1.2"} <= {*ids(bench.results())})
    bench.lane.feed(tp(1), [request(3, 1)])
    await bench.until(lambda: "r1.3" in ids(bench.results()))
    ready = True
    await bench.until(lambda: bench.lane.partitions[tp(0)].acked == 3)
    assert [each for each in ids(bench.results()) if each.startswith("r0")] == ["r0.0", "r0.1", "r0.2"]
    (snapshot,) = bench.lane.tenant_snapshots()
    assert (snapshot.requests_in, snapshot.results, snapshot.pending) == (7, 7, 0)


async def test_an_unreadable_log_is_a_named_fault_and_does_not_affect_others(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.own(0, 1)
    bench.lane.unreadable(tp(0), "topic ns.default.requests, partition 0: the checksum is wrong")
    assert bench.lane.full({tp(0), tp(1)}) == {tp(0)}
    assert "partition 0: the checksum is wrong" in str(bench.lane.fault)
    bench.lane.feed(tp(1), [request(0, 1)])
    (sent,) = await bench.sent(1)
    sent.acknowledge()
    await bench.until(lambda: bench.consumer.commits)
    assert bench.lane.fault is not None, "successes of other tenants do not end it"
    monkeypatch.setattr("inferd.streams.lane.lane.UNREADABLE_S", 0.0)
    bench.lane.unreadable(tp(0), "still")
    assert bench.lane.full({tp(0), tp(1)}) == set(), "it is retried"
    bench.lane.feed(tp(0), [request(0)])
    assert bench.lane.fault is None


class UnstartedGroup:
    """A group whose consumer has not been started yet."""

    started: Any = None
    generation = 1

    @property
    def consumer(self) -> Any:
        if self.started is None:
            raise ConsumerNotStarted("Consumer thread not yet started")
        return self.started

    async def seek(self, offsets: Any) -> None: ...


async def test_gaps_are_not_checked_before_the_consumer_is_started(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("inferd.streams.lane.watchers.INTERVAL_S", 0.0)
    group, gaps, measures = UnstartedGroup(), RetentionGaps(), LaneMeasures()
    checking = asyncio.create_task(watch_gaps(gaps, group, measures))
    for _ in range(5):
        await asyncio.sleep(0)
    assert not checking.done(), "the worker keeps running"
    bench.consumer.beginning = 30
    gaps.note(tp(0), 10, 50)
    group.started = bench.consumer
    await bench.until(lambda: measures.records_missing == 20)
    checking.cancel()
