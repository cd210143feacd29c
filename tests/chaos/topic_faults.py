"""Faults of topics: partitions are added while workers run, by hand and by the command."""

from __future__ import annotations

import asyncio
import random

from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka.topic_growth import grow_topics
from inferd.streams.settings import GroupSettings, StreamSettings, TopicSettings
from tests.chaos.faults import fault
from tests.chaos.ledger import PARTITIONS
from tests.chaos.system import TENANTS, System

GROWN_MAX = PARTITIONS + 8
NOTICED_S = (0.5, 4.0)


@fault("partitions added")
def grow(system: System, rng: random.Random) -> None:
    """Adds a partition to the topics of requests; half of the time first to `requests` alone, by hand."""
    admin = system.admin  # its requests end with it
    name = system.clusters[0].topics.name("requests")
    present = len(admin.list_topics(name, 20).topics[name].partitions)
    wanted = min(present + 1, GROWN_MAX)
    if rng.random() < 0.5:
        asked = [NewPartitions(cluster.topics.name("requests"), wanted) for cluster in system.clusters]
        if wanted > present:
            for done in admin.create_partitions(asked).values():
                done.result(20)
        system.run_on(rng.uniform(*NOTICED_S))
    system.mark()
    settings = StreamSettings(
        KafkaConnection(system.kafka.bootstrap_servers), "grow", system.directory, namespace=system.namespace,
        tenants=tuple(TENANTS), topics=TopicSettings(partitions=PARTITIONS), group=GroupSettings(system.namespace),
    )  # fmt: skip
    asyncio.run(grow_topics(settings, wanted))
