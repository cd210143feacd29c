"""Requests to a coordinator about the last transaction of an id, and the handling of its responses."""

from __future__ import annotations

from io import BytesIO
from types import SimpleNamespace
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.errors import IncompatibleBrokerVersion, LeaderNotAvailableError, NotCoordinatorError

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka import transactions
from inferd.streams.kafka.transactions import DescribeTransactionsRequest, last_transaction_results

DESCRIBE = {DescribeTransactionsRequest.API_KEY: (0, 0)}


class FakeClient:
    """Responds by transactional id, with each response once and the last one from then on."""

    def __init__(self, answers: dict[str, list[Any]]) -> None:
        self.answers = answers
        self.closed = False

    async def bootstrap(self) -> None: ...

    async def coordinator_lookup(self, _: Any, transactional_id: str) -> str:
        return transactional_id

    async def send(self, node: str, request: Any) -> Any:
        answers = self.answers[node]
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Exception):
            raise answer
        code, state = answer
        return SimpleNamespace(transaction_states=[(code, node, state, 1, 2, 3, 4, [], {})])

    async def close(self) -> None:
        self.closed = True


async def endings_of(monkeypatch: pytest.MonkeyPatch, **answers: list[Any]) -> dict[str, str]:
    client = FakeClient(answers)
    monkeypatch.setattr(transactions, "AIOKafkaClient", lambda **_: client)
    try:
        return {**await last_transaction_results(KafkaConnection(), list(answers), 5.0)}
    finally:
        assert client.closed


@pytest.mark.parametrize(
    ("state", "expected"),
    [
        ("Ongoing", "abort"),
        ("PrepareEpochFence", "abort"),
        ("PrepareAbort", "abort"),
        ("CompleteAbort", "abort"),
        ("PrepareCommit", "commit"),
        ("CompleteCommit", "commit"),
    ],
)
async def test_the_state_of_an_id_determines_the_outcome_of_its_last_transaction(
    monkeypatch: pytest.MonkeyPatch, state: str, expected: str
) -> None:
    assert await endings_of(monkeypatch, x=[(0, state)]) == {"x": expected}


async def test_an_id_without_a_transaction_has_no_ending(monkeypatch: pytest.MonkeyPatch) -> None:
    not_found, refused = 105, 53
    states = {"new": [(not_found, "")], "fenced": [(0, "Empty")], "dead": [(0, "Dead")], "other": [(refused, "")]}
    assert await endings_of(monkeypatch, **states, last=[(0, "CompleteCommit")]) == {"last": "commit"}


async def test_a_coordinator_without_an_outcome_yet_is_queried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    loading, moved = (14, ""), NotCoordinatorError()
    assert await endings_of(monkeypatch, x=[loading, moved, (0, "CompleteAbort")]) == {"x": "abort"}


async def test_a_broker_without_the_api_is_accepted(monkeypatch: pytest.MonkeyPatch) -> None:
    assert await endings_of(monkeypatch, x=[IncompatibleBrokerVersion("unknown API")]) == {}


async def test_a_partition_without_a_leader_is_named_and_a_deleted_one_is_skipped() -> None:
    here, gone, leaderless = (TopicPartition(name, 0) for name in ("here", "gone", "leaderless"))
    leaders = {here: 1, gone: None, leaderless: -1}

    async def set_topics(topics: set[str]) -> None:
        assert topics <= {"here", "gone", "leaderless"}

    client: Any = SimpleNamespace(
        set_topics=set_topics, cluster=SimpleNamespace(leader_for_partition=leaders.__getitem__)
    )
    assert await transactions._logs(client, [here, gone]) == [here]
    with pytest.raises(LeaderNotAvailableError, match="no leader of leaderless/0"):
        await transactions._logs(client, [here, leaderless])


def test_the_question_and_the_answer_have_the_bytes_of_kafkas_protocol() -> None:
    """KIP-664, DescribeTransactions v0: compact arrays and strings, tagged fields."""
    request = DescribeTransactionsRequest("inferd-x").prepare(DESCRIBE)
    assert request.encode() == bytes.fromhex("02 09") + b"inferd-x" + b"\0"
    assert request.build_request_header(7, "c").encode() == bytes.fromhex("0041 0000 00000007 0001") + b"c\0"
    answer = bytes.fromhex(
        "00000000 02"  # not throttled; one state
        "0000 09"  # no error; the id
    ) + b"inferd-x" + b"\x0fCompleteCommit" + bytes.fromhex(
        "00003a98 ffffffffffffffff 0000000000000011 0003"  # time-out, start, producer and its epoch
        "02 02 74 02 00000001 00"  # partition 1 of topic t
        "00 00"
    )  # fmt: skip
    response: Any = request.RESPONSE_TYPE.decode(BytesIO(answer))
    assert response.transaction_states == [
        (0, "inferd-x", "CompleteCommit", 15_000, -1, 17, 3, [("t", [1], {})], {}),
    ]
