"""A transaction for which the broker wrote only some of the markers has the same outcome on all partitions, whichever
worker writes next."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from aiokafka import AIOKafkaProducer, TopicPartition

from inferd.daemon.broker import EmbeddedKafka
from inferd.streams.kafka.transactions import TransactionResult
from tests.fixtures.broker import FAST_GROUPS, broker_settings
from tests.fixtures.workers import PARTITIONS, Cluster, Load, StartWorker, TrainedModel

EARLIER = b"of an earlier owner"


@pytest.fixture
def trusting_cluster(tmp_path: Path, namespace: str) -> Iterator[Cluster]:
    """On a broker that does not verify with the coordinator that a record belongs to an ongoing transaction."""
    extra = {**FAST_GROUPS, "transaction.partition.verification.enable": "false"}
    with EmbeddedKafka(broker_settings(tmp_path / "kafka", extra=extra)) as broker:
        cluster = Cluster(broker.bootstrap_servers, namespace)
        cluster.create_topics()
        yield cluster


async def end_without_markers(cluster: Cluster, number: int, ending: TransactionResult) -> None:
    """An earlier owner answers the first request of a partition; the coordinator knows the outcome of its transaction,
    but the log has no marker."""
    group = cluster.namespace
    requests, results, dead_letters = (
        TopicPartition(cluster.topics.name(stream), number) for stream in ("requests", "results", "dead-letters")
    )
    producer = AIOKafkaProducer(
        bootstrap_servers=cluster.bootstrap, transactional_id=f"{group}-{requests.topic}-{requests.partition}"
    )
    await producer.start()
    await producer.begin_transaction()
    producer._txn_manager.maybe_add_partition_to_txn(dead_letters)
    # To the producer both have been added to the transaction; the coordinator has not heard of them.
    producer._txn_manager.txn_partitions.add(results)
    producer._txn_manager.consumer_group_added(group)
    await producer.send_and_wait(results.topic, EARLIER, partition=results.partition)
    await producer.send_offsets_to_transaction({requests: 1}, group)
    await (producer.commit_transaction() if ending == "commit" else producer.abort_transaction())
    await producer.stop()


@pytest.mark.parametrize("ending", ["commit", "abort"])
async def test_results_and_offset_have_the_same_outcome_if_markers_are_missing(
    trusting_cluster: Cluster, model: TrainedModel, start_worker: StartWorker, ending: TransactionResult
) -> None:
    cluster = trusting_cluster
    cluster.deploy(model)
    load = Load(cluster, model)
    load.send(PARTITIONS)
    for number in range(PARTITIONS):
        await end_without_markers(cluster, number, ending)
    worker = start_worker(cluster, processing_guarantee="exactly_once")
    worker.wait_ready()
    load.send(200)
    load.stop()
    results = cluster.read("results", lambda records: len(records) >= load.n, 60)
    assert len(results) == load.n, "one result each, whichever worker published it"
    assert [record.value() for record in results].count(EARLIER) == (PARTITIONS if ending == "commit" else 0)
    assert worker.stop() == 0
