"""Exactly once: the order of steps in a transaction, and the handling of a failed one."""

from __future__ import annotations

import asyncio

import pytest
from aiokafka.errors import LeaderNotAvailableError, ProducerFenced

from inferd.streams.kafka.transactions import TransactionResult
from inferd.streams.lane.exactly_once import ExactlyOnce
from tests.fixtures.lane import DEAD_LETTERS, REQUESTS, RESULTS, Bench, request, tp

pytestmark = pytest.mark.parametrize("bench", [ExactlyOnce], indirect=True, ids=["exactly_once"])


async def test_partitions_are_fenced_before_their_positions_are_read(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_at_reading = []
    committed = bench.consumer.committed

    async def reading(partition: object) -> int | None:
        told_at_reading.append(list(bench.broker.calls))
        return await committed(tp(0))

    monkeypatch.setattr(bench.consumer, "committed", reading)
    await bench.own(0, 1)
    assert [sorted(calls) for calls in told_at_reading] == [["0: open", "1: open"]] * 2


@pytest.mark.parametrize("ending", ["commit", "abort"])
async def test_the_last_transaction_has_one_outcome_on_all_partitions(bench: Bench, ending: TransactionResult) -> None:
    bench.broker.endings[f"inferd-{REQUESTS}-1"] = ending
    await bench.own(0, 1)
    logs = f"{DEAD_LETTERS}/1, ns.default.replies/1, {RESULTS}/1"
    assert [calls for calls in bench.broker.calls if calls.startswith("1")] == [
        "1: open",
        f"1: repeat {ending} of inferd in {logs}",
    ]
    assert [calls for calls in bench.broker.calls if calls.startswith("0")] == ["0: open"]


async def test_an_outcome_that_could_not_be_repeated_is_retried(bench: Bench) -> None:
    """The broker removes it when it fences the producer."""
    bench.broker.endings[f"inferd-{REQUESTS}-1"] = "commit"
    bench.broker.repeat_error = LeaderNotAvailableError("no leader of x/1")
    owning = asyncio.create_task(bench.own(1))
    await bench.until(lambda: bench.broker.calls.count("1: open") == 2)
    assert "no leader of x/1" in str(bench.lane.fault)
    bench.broker.repeat_error = None
    await owning
    assert [calls.split(" of ")[0] for calls in bench.broker.calls] == [
        *["1: open", "1: repeat commit", "1: close"] * 2,
        *["1: open", "1: repeat commit"],
    ]
    await bench.lane.acquire(set())
    await bench.own(1)
    assert bench.broker.calls[-1] == "1: open", "it was repeated: that is enough"


async def test_a_transaction_commits_after_every_output_is_acknowledged(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0), request(1, value=b"\xc1")])
    result, dead = await bench.sent(2)
    await bench.until(lambda: "0: offsets [2] of inferd" in bench.broker.calls)
    result.acknowledge()
    await asyncio.sleep(0.01)
    assert "0: commit" not in bench.broker.calls, "the dead letter is not acknowledged yet"
    dead.acknowledge()
    await bench.until(lambda: bench.lane.partitions[tp(0)].acked == 2)
    assert bench.broker.calls == [
        "0: open",
        "0: begin",
        "0: send 2",
        "0: send 1",
        "0: offsets [2] of inferd",
        "0: commit",
    ]
    assert bench.consumer.commits == [], "offsets are committed only in the transaction"


async def test_partitions_have_separate_transactions_and_do_not_wait_for_each_other(bench: Bench) -> None:
    await bench.own(0, 1)
    bench.lane.feed(tp(0), [request(0, 0)])
    bench.lane.feed(tp(1), [request(0, 1)])
    sent = await bench.sent(2)
    next(s for s in sent if s.partition == 1).acknowledge()
    await bench.until(lambda: "1: commit" in bench.broker.calls)
    bench.lane.feed(tp(1), [request(1, 1)])
    await bench.sent(3)
    assert "0: commit" not in bench.broker.calls


async def test_the_next_transaction_waits_for_the_one_before(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (first,) = await bench.sent(1)
    bench.lane.feed(tp(0), [request(1), request(2)])
    await asyncio.sleep(0.01)
    assert len(bench.broker.sent) == 1
    first.acknowledge()
    _, second = await bench.sent(2)
    assert len(second.records) == 2, "records that had to wait are sent together"


async def test_a_fenced_producer_rewinds_and_fences_the_other_while_still_a_member(bench: Bench) -> None:
    bench.broker.acknowledges = True
    await bench.own(0)
    bench.broker.commit_error = ProducerFenced()
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.broker.calls.count("0: open") == 2)
    assert bench.broker.calls.index("0: close") < len(bench.broker.calls) - 1
    assert "ProducerFenced" in str(bench.lane.fault)
    bench.broker.commit_error = None
    bench.consumer.committed_offsets[tp(0)] = 0
    await bench.until(lambda: not bench.paused)
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: "0: commit" in bench.broker.calls)
    assert bench.lane.fault is None


async def test_a_fenced_producer_of_an_old_generation_stays_closed(bench: Bench) -> None:
    bench.broker.acknowledges = True
    await bench.own(0)
    bench.broker.commit_error = ProducerFenced()
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.lane.fault is not None)
    bench.group.generation += 1
    await bench.until(lambda: not bench.paused)
    assert bench.broker.calls.count("0: open") == 1


async def test_a_commit_whose_response_was_lost_is_not_repeated(bench: Bench) -> None:
    """Fencing ends the transaction with a commit or an abort; the position that is read afterwards tells which."""
    bench.broker.acknowledges = True
    await bench.own(0)
    bench.broker.commit_error = TimeoutError()
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.lane.fault is not None)
    bench.broker.commit_error = None
    bench.consumer.committed_offsets[tp(0)] = 1
    bench.consumer.end = 1
    await bench.until(lambda: bench.group.seeks[-1:] == [{tp(0): 1}])
    await bench.until(lambda: bench.lane.fault is None)
    bench.lane.feed(tp(0), [request(0)])
    await asyncio.sleep(0.01)
    assert len(bench.broker.sent) == 1


async def test_a_release_cuts_off_a_transaction_that_does_not_end_in_time(bench: Bench) -> None:
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    (sent,) = await bench.sent(1)
    await bench.lane.release({tp(0)})
    await bench.until(lambda: "0: close" in bench.broker.calls)
    assert sent.future.cancelled()
    assert "0: commit" not in bench.broker.calls


async def test_after_a_failure_it_resumes_at_the_brokers_committed_offset(bench: Bench) -> None:
    """A stopping broker may report a commit without writing all its markers; the transaction is then undone."""
    bench.broker.acknowledges = True
    await bench.own(0)
    bench.lane.feed(tp(0), [request(0)])
    await bench.until(lambda: bench.lane.partitions[tp(0)].acked == 1)
    bench.consumer.committed_offsets[tp(0)] = 0
    bench.broker.commit_error = ProducerFenced()
    bench.lane.feed(tp(0), [request(1)])
    await bench.until(lambda: bench.broker.calls.count("0: open") == 2)
    bench.broker.commit_error = None
    await bench.until(lambda: not bench.paused)
    assert bench.lane.partitions[tp(0)].next_fetch == 0, (
        "the first request is answered again: its result was never visible"
    )
