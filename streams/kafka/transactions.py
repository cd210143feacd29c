"""Finds the outcome of the last transaction of a transactional id, and writes its missing markers.

At the end of a transaction the coordinator writes a marker into each of its partitions. It leaves out partitions that
have no leader at that moment, and does not retry (seen with Kafka 4.4: a broker that thaws after a minute, a broker
that stops). The transaction stays open on such a partition until the next transaction of the same producer ends, and
then gets the outcome of that one: aborted records could be committed, or committed ones aborted. A transaction without
records, with the outcome of the last one, closes all of them.

aiokafka has neither DescribeTransactions (KIP-664) nor a way to add partitions to a transaction without sending
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
from inferd.schemas.topics import LABEL_STREAMS, LIFECYCLE_STREAMS
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
"""How the transaction of a transactional id ends, by the state's name in Kafka. Fencing the id aborts an ongoing
one."""
NO_LEADER = -1
NOT_YET = (CoordinatorLoadInProgressError, CoordinatorNotAvailableError, NotCoordinatorError)
ASK_AGAIN_S = 0.01


def unit_of(tp: TopicPartition) -> str:
    """The unit that shares a transactional producer. The job topics of a partition share one, so do those of
    labels, and of the lifecycle of models: opening a producer takes time, and these are rarely urgent."""
    topic, _, stream = tp.topic.rpartition(".")
    if stream in LIFECYCLE_STREAMS:
        stream = "lifecycle"
    elif stream in LABEL_STREAMS:
        stream = "labels"
    elif stream.startswith("job"):
        stream = "jobs"
    return f"{topic}.{stream}-{tp.partition}"


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
    """Asks the coordinator of a transactional id for its state."""

    API_KEY = 65

    def __init__(self, transactional_id: str) -> None:
        self._transactional_id = transactional_id

    def build(self, request_struct_class: type[_DescribeTransactionsRequestV0]) -> _DescribeTransactionsRequestV0:
        return request_struct_class([self._transactional_id], {})


async def last_transaction_results(
    connection: KafkaConnection, transactional_ids: Collection[str], timeout_s: float
) -> dict[str, TransactionResult]:
    """The outcome of the last transaction of each transactional id: how it ended, or will end once the id is fenced.

    Ids without a transaction since they were fenced are left out; the result is empty if the broker does not support
    the request. Raises `TimeoutError` or a `KafkaError` if the broker does not answer.
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
    """Ends a transaction without records on all existing partitions of `outputs`, and on the partition of the group's
    offsets.

    Returns when the markers are written. Raises `LeaderNotAvailableError` if a marker would be left out again,
    `ProducerFenced`, or another `KafkaError`.
    """
    manager: Any = producer._txn_manager  # noqa: SLF001
    logs = await _logs(producer.client, outputs)
    await producer.begin_transaction()
    while not await producer._sender._do_add_offsets_to_txn(group_id):  # noqa: SLF001
        pass  # the call itself has waited
    for tp in logs:
        manager.maybe_add_partition_to_txn(tp)
    await (producer.commit_transaction() if ending == "commit" else producer.abort_transaction())
    # Kafka does not notify the producer: poll until the markers are written.
    while not (await _state(producer.client, manager.transactional_id)).startswith("Complete"):  # noqa: ASYNC110
        await asyncio.sleep(ASK_AGAIN_S)


@contextmanager
def transaction_failures(producer: AIOKafkaProducer) -> Iterator[None]:
    """Raises the cause of a failed transaction; aiokafka only says that there is no transaction.

    `TopicRejectedError` names the topic for which an ACL is missing.
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
    """Those of `tps` that exist; `LeaderNotAvailableError` if one of them has no leader."""
    wanted = list(tps)
    await client.set_topics({tp.topic for tp in wanted})
    leaders = {tp: client.cluster.leader_for_partition(tp) for tp in wanted}
    if missing := sorted(f"{tp.topic}/{tp.partition}" for tp, leader in leaders.items() if leader == NO_LEADER):
        raise LeaderNotAvailableError(f"no leader of {', '.join(missing)}")
    return [tp for tp, leader in leaders.items() if leader is not None]


async def _state(client: AIOKafkaClient, transactional_id: str) -> str:
    """The state of a transactional id, by Kafka's name, as soon as the coordinator has it; empty if the id is
    unknown."""
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
