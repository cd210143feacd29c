"""The result of the last transaction of a transactional id, and writing its missing markers.

A coordinator writes a marker of the end into each partition of a transaction, but leaves out those that have no leader
just then, and does not come back to them (seen with Kafka 4.4: a broker that thaws after a minute, a broker that
stops). Such a partition stays open, and ends as the next transaction of the same producer does: what was given up would
come true, or the other way round. A transaction without records that ends as the last one did closes all of them.

Kafka's DescribeTransactions (KIP-664) is not in aiokafka; nor is adding partitions to a transaction without sending
records, hence the private names of its producer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterable, Iterator
from contextlib import contextmanager
from typing import Any, Literal

from aiokafka import AIOKafkaProducer, TopicPartition
from aiokafka.client import AIOKafkaClient, CoordinationType
from aiokafka.errors import (
    CoordinatorLoadInProgressError,
    CoordinatorNotAvailableError,
    IllegalOperation,
    IncompatibleBrokerVersion,
    KafkaError,
    LeaderNotAvailableError,
    NotCoordinatorError,
    TopicAuthorizationFailedError,
    for_code,
)
from aiokafka.protocol.api import Request, RequestStruct, Response
from aiokafka.protocol.types import (
    CompactArray,
    CompactString,
    Int16,
    Int32,
    Int64,
    Schema,
    TaggedFields,
)

from inferd.schemas.connection import KafkaConnection
from inferd.streams.connection import client_options
from inferd.streams.kafka.destinations import TopicRejectedError

TransactionResult = Literal["commit", "abort"]

ENDINGS: dict[str, TransactionResult] = {
    "PrepareCommit": "commit",
    "CompleteCommit": "commit",
    "PrepareAbort": "abort",
    "CompleteAbort": "abort",
    "PrepareEpochFence": "abort",
    "Ongoing": "abort",
}
"""By state of a transactional id, as Kafka names it, how its transaction ends; the fence ends one that goes on."""
NO_LEADER = -1
NOT_YET = (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)
ASK_AGAIN_S = 0.01


def unit_of(tp: TopicPartition) -> str:
    """What shares a transactional producer: each takes as long to open as the next, and jobs are seldom in a hurry."""
    topic, _, stream = tp.topic.rpartition(".")
    return f"{topic}.{'jobs' if stream.startswith('job') else stream}-{tp.partition}"


class _DescribeTransactionsResponse(Response):
    API_KEY = 65
    API_VERSION = 0
    SCHEMA = Schema(
        ("throttle_time_ms", Int32),
        (
            "transaction_states",
            CompactArray(
                ("error_code", Int16),
                ("transactional_id", CompactString("utf-8")),
                ("transaction_state", CompactString("utf-8")),
                ("transaction_timeout_ms", Int32),
                ("transaction_start_time_ms", Int64),
                ("producer_id", Int64),
                ("producer_epoch", Int16),
                (
                    "topics",
                    CompactArray(
                        ("topic", CompactString("utf-8")), ("partitions", CompactArray(Int32)), ("tags", TaggedFields)
                    ),
                ),
                ("tags", TaggedFields),
            ),
        ),
        ("tags", TaggedFields),
    )


class _DescribeTransactionsRequestV0(RequestStruct):
    FLEXIBLE_VERSION = True
    API_KEY = 65
    API_VERSION = 0
    RESPONSE_TYPE = _DescribeTransactionsResponse
    SCHEMA = Schema(("transactional_ids", CompactArray(CompactString("utf-8"))), ("tags", TaggedFields))


class DescribeTransactionsRequest(Request[_DescribeTransactionsRequestV0]):
    """Asks the coordinator of one transactional id for its state."""

    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self._transactional_id = transactional_id

    def build(self, request_struct_class: type[_DescribeTransactionsRequestV0]) -> _DescribeTransactionsRequestV0:
        return request_struct_class([self._transactional_id], {})


async def last_transaction_results(
    connection: KafkaConnection, transactional_ids: Collection[str], timeout_s: float
) -> dict[str, TransactionResult]:
    """By transactional id, how its last transaction ended, or will once the id is fenced.

    Nothing of ids that have had none since they were fenced, or where the broker does not know the question.
    `TimeoutError` or a `KafkaError` where it does not answer.
    """
    client = AIOKafkaClient(**client_options(connection))
    try:
        async with asyncio.timeout(timeout_s):
            await client.bootstrap()
            states = await asyncio.gather(*(_state(client, each) for each in transactional_ids))
    except (IncompatibleBrokerVersion, NotImplementedError):
        return {}
    finally:
        await client.close()
    found = zip(transactional_ids, states, strict=True)
    return {transactional_id: ENDINGS[state] for transactional_id, state in found if state in ENDINGS}


async def repeat_transaction_result(
    producer: AIOKafkaProducer, ending: TransactionResult, group_id: str, outputs: Iterable[TopicPartition]
) -> None:
    """Ends a transaction without records in every log of `outputs` that is there, and in that of the group's offsets.

    Returns when the markers are written. `KafkaError` where that cannot be done: `LeaderNotAvailableError` where a
    marker would be left out again, `ProducerFenced`, …
    """
    manager: Any = producer._txn_manager  # noqa: SLF001
    logs = await _logs(producer.client, outputs)
    await producer.begin_transaction()
    while not await producer._sender._do_add_offsets_to_txn(group_id):  # noqa: SLF001
        pass  # it has waited
    for tp in logs:
        manager.maybe_add_partition_to_txn(tp)
    await (producer.commit_transaction() if ending == "commit" else producer.abort_transaction())
    # Kafka tells of it when asked, and not otherwise.
    while not (await _state(producer.client, manager.transactional_id)).startswith("Complete"):  # noqa: ASYNC110
        await asyncio.sleep(ASK_AGAIN_S)


@contextmanager
def transaction_failures(producer: AIOKafkaProducer) -> Iterator[None]:
    """Raises in the block why a transaction has failed, where aiokafka only says that there is none.

    `TopicRejectedError` names the topic for which a right is missing.
    """
    try:
        yield
    except (IllegalOperation, TopicAuthorizationFailedError) as error:
        failure = _failure(producer) or error
        if isinstance(failure, TopicAuthorizationFailedError) and isinstance(topics := failure.args[0], set):
            raise TopicRejectedError(min(topics)) from failure
        raise KafkaError(str(failure)) from failure


def _failure(producer: AIOKafkaProducer) -> BaseException | None:
    manager: Any = producer._txn_manager  # noqa: SLF001
    end: asyncio.Future[None] = manager.wait_for_transaction_end()
    return end.exception() if end.done() and not end.cancelled() else None


async def _logs(client: AIOKafkaClient, tps: Iterable[TopicPartition]) -> list[TopicPartition]:
    """Those of `tps` that the brokers know of; `LeaderNotAvailableError` where one of them has no leader."""
    wanted = list(tps)
    await client.set_topics({tp.topic for tp in wanted})
    leaders = {tp: client.cluster.leader_for_partition(tp) for tp in wanted}
    if missing := sorted(f"{tp.topic}/{tp.partition}" for tp, leader in leaders.items() if leader == NO_LEADER):
        raise LeaderNotAvailableError(f"no leader of {', '.join(missing)}")
    return [tp for tp, leader in leaders.items() if leader is not None]


async def _state(client: AIOKafkaClient, transactional_id: str) -> str:
    """What the coordinator calls the state of an id, once it knows; empty where it has never heard of it."""
    while True:
        try:
            node = await client.coordinator_lookup(CoordinationType.TRANSACTION, transactional_id)
            response: Any = await client.send(node, DescribeTransactionsRequest(transactional_id))
            code, _, state, *_ = response.transaction_states[0]
            if for_code(code) not in NOT_YET:
                return str(state) if code == 0 else ""
        except NOT_YET:
            pass
        await asyncio.sleep(ASK_AGAIN_S)
