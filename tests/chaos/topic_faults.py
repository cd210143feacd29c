"""Faults of topics: partitions are added while workers run, by hand and by the command."""

from __future__ import annotations

import asyncio
import random

from confluent_kafka.admin import NewPartitions  # type: ignore[attr-defined]

from inferd.schemas.connection import KafkaConnection
from inferd.streams.kafka.topic_growth import grow_topics
from inferd.streams.kafka.used_partitions import FAMILIES, topics_of, used_partitions
from inferd.streams.settings import GroupSettings, StreamSettings, TopicSettings
from tests.chaos.faults import fault
from tests.chaos.ledger import PARTITIONS
from tests.chaos.system import TENANTS, System

GROWN_MAX = 2 * PARTITIONS
NOTICED_S = (0.5, 4.0)
JOBS_END_WITHIN_S, JOBS_OF_A_BUG_END_WITHIN_S = 60.0, 15.0


@fault("partitions added", recovers_within_s=90.0, bears_kills=True)
def grow(system: System, rng: random.Random) -> None:
    """Doubles the partitions of all topics, up to `GROWN_MAX`; half of the time some of them by hand first.

    Jobs are open meanwhile, and have ended afterwards. Later it only repeats the command.
    """
    jobs = system.jobs.open()
    admin = system.admin  # its requests end with it
    name = system.clusters[0].topics.name("requests")
    present = len(admin.list_topics(name, 20).topics[name].partitions)
    wanted = min(used_partitions(PARTITIONS, [present]) * 2, GROWN_MAX)
    settings = StreamSettings(
        KafkaConnection(system.kafka.bootstrap_servers), "grow", system.directory, namespace=system.namespace,
        tenants=tuple(TENANTS), topics=TopicSettings(partitions=PARTITIONS), group=GroupSettings(system.namespace),
    )  # fmt: skip
    if rng.random() < 0.5:
        by_hand = [
            name for tenant in TENANTS for family in FAMILIES[:1] for name in topics_of(settings, tenant, family)
        ]
        by_hand += [cluster.topics.name("requests") for cluster in system.clusters]
        for name in rng.sample(by_hand, rng.randint(1, len(by_hand))):
            if len(admin.list_topics(name, 20).topics[name].partitions) < wanted:
                admin.create_partitions([NewPartitions(name, wanted)])[name].result(20)
        system.run_on(rng.uniform(*NOTICED_S))
    system.mark()
    asyncio.run(grow_topics(settings, wanted))
    system.run_on(rng.uniform(0, NOTICED_S[1]))
    system.jobs.end(jobs, JOBS_END_WITHIN_S if system.experiment.bug is None else JOBS_OF_A_BUG_END_WITHIN_S)
    system.count("jobs open while partitions were added", len(jobs))
