"""Matching results to pending requests."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.predictions.pending import EARLY_FAILURES_MAX, PendingRequests
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.requests.request import check_id
from inferd.schemas.requests.result import Failure, Prediction, Result
from inferd.schemas.requests.result_codec import decode_result, encode_result


def prediction(request_id: str, value: object = 1.0) -> Prediction:
    return Prediction(request_id, "m", 1, "0" * 64, {"prediction": value})


def failure(request_id: str) -> Failure:
    return Failure(request_id, None, "malformed", "not a map", False)


def take(pending: PendingRequests, result: Result) -> None:
    pending.take(encode_result(result, MSGPACK), MSGPACK)


async def test_a_result_completes_its_request() -> None:
    pending = PendingRequests(decode_result)
    one, two = pending.next_id(), pending.next_id()
    first, second = pending.expect(one), pending.expect(two)
    take(pending, prediction(two, 2.0))
    take(pending, failure(one))
    assert (await first, await second) == (failure(one), prediction(two, 2.0))
    assert len(pending) == 0


async def test_repeats_and_results_of_other_clients_are_ignored() -> None:
    pending, other = PendingRequests(decode_result), PendingRequests(decode_result)
    mine, theirs = pending.next_id(), other.next_id()
    reply = pending.expect(mine)
    take(pending, prediction(theirs))
    take(pending, failure(theirs))
    assert not reply.done()
    for value in (1.0, 1.0, 2.0):
        take(pending, prediction(mine, value))
    assert (await reply) == prediction(mine, 1.0)


def test_ids_are_valid_and_unique_per_client() -> None:
    clients = [PendingRequests(decode_result) for _ in range(100)]
    ids = [client.next_id() for client in clients for _ in range(10)]
    assert len(set(ids)) == 1_000
    assert [check_id(request_id) for request_id in ids] == ids


@pytest.mark.parametrize("value", [None, b"", b"\xc1", b"no message at all"])
async def test_invalid_results_are_ignored(value: bytes | None) -> None:
    pending = PendingRequests(decode_result)
    reply = pending.expect(request_id := pending.next_id())
    pending.take(value, MSGPACK)
    pending.take(request_id.encode() + b" error", MSGPACK)
    assert not reply.done()


@pytest.mark.parametrize("acknowledged_first", [True, False])
async def test_a_failure_is_matched_by_partition_and_offset(*, acknowledged_first: bool) -> None:
    pending = PendingRequests(decode_result)
    request_id = pending.next_id()
    reply = pending.expect(request_id)
    if acknowledged_first:
        pending.note_place(request_id, 2, 17)
        take(pending, failure("2-17"))
    else:
        take(pending, failure("2-17"))
        pending.note_place(request_id, 2, 17)
    assert (await reply) == failure("2-17")
    assert pending.place_of(request_id) is None


async def test_a_prediction_is_never_matched_by_partition_and_offset() -> None:
    pending = PendingRequests(decode_result)
    reply = pending.expect(request_id := pending.next_id())
    pending.note_place(request_id, 2, 17)
    take(pending, prediction("2-17", "error"))
    assert not reply.done()


async def test_failures_of_other_clients_are_bounded() -> None:
    pending = PendingRequests(decode_result)
    reply = pending.expect(request_id := pending.next_id())
    for offset in range(EARLY_FAILURES_MAX + 10):
        take(pending, failure(f"0-{offset}"))
    assert len(pending._early) == EARLY_FAILURES_MAX
    pending.note_place(request_id, 0, 5)
    assert not reply.done()


async def test_the_result_of_an_abandoned_request_is_ignored() -> None:
    pending = PendingRequests(decode_result)
    reply = pending.expect(request_id := pending.next_id())
    pending.note_place(request_id, 0, 1)
    pending.forget(request_id)
    take(pending, prediction(request_id))
    take(pending, failure("0-1"))
    pending.note_place(request_id, 0, 1)
    assert not reply.done()
    assert len(pending) == 0


async def test_all_pending_requests_fail_together() -> None:
    pending = PendingRequests(decode_result)
    replies = [pending.expect(pending.next_id()) for _ in range(3)]
    pending.fail_all(RuntimeError("closed"))
    assert [str(reply.exception()) for reply in replies] == ["closed"] * 3


@given(st.lists(st.tuples(st.sampled_from(["answer", "refuse by place", "acknowledge", "forget"]), st.integers(0, 9))))
def test_any_order_of_events_completes_each_request_at_most_once(events: list[tuple[str, int]]) -> None:
    """A request is completed by its first own result, or by its partition and offset once both are known."""

    async def run() -> None:
        pending = PendingRequests(decode_result)
        ids = [pending.next_id() for _ in range(10)]
        replies = [pending.expect(request_id) for request_id in ids]
        settled: dict[int, Result | None] = {}
        acknowledged: set[int] = set()
        refused: set[int] = set()
        for event, n in events:
            if event == "answer":
                take(pending, prediction(ids[n]))
                settled.setdefault(n, prediction(ids[n]))
            elif event == "forget":
                pending.forget(ids[n])
                settled.setdefault(n, None)
            elif event == "refuse by place":
                take(pending, failure(f"0-{n}"))
                refused.add(n)
            else:
                pending.note_place(ids[n], 0, n)
                acknowledged.add(n)
            if n in acknowledged & refused:
                settled.setdefault(n, failure(f"0-{n}"))
        for n, reply in enumerate(replies):
            assert (reply.result() if reply.done() else None) == settled.get(n)

    asyncio.run(run())
