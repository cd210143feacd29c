"""Faults of tables: changelogs are compacted or have lost records while workers start and stop.

They have an effect only if the model of most requests has a prediction cache (`--cache`): its entries must be restored
exactly or not at all, and no answer may change.
"""

from __future__ import annotations

import random
import time

from confluent_kafka import TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # public, but re-exported without saying so
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ResourceType,
)

from inferd.streams.kafka.changelogs import changelog_name
from tests.chaos.faults import fault
from tests.chaos.ledger import PARTITIONS
from tests.chaos.system import TENANTS, System

COMPACTS_WITHIN_S = 4.0
COMPACTING = {"segment.ms": "1000", "min.cleanable.dirty.ratio": "0.001", "delete.retention.ms": "1"}
TO_THE_END = -1


@fault("state lost")
def changelog_compacted(system: System, rng: random.Random) -> None:
    """Compacts changelogs from now on, including tombstones, and kills a worker: its state is restored from the
    remaining records."""
    _compact(system)
    time.sleep(COMPACTS_WITHIN_S)
    _kill_one(system, rng)


@fault("state lost")
def changelog_emptied(system: System, rng: random.Random) -> None:
    """All records of the changelogs are deleted, and a worker is killed: its tables begin anew."""
    asked = [TopicPartition(topic, number, TO_THE_END) for topic in _changelogs(system) for number in range(PARTITIONS)]
    admin = system.admin
    for answer in admin.delete_records(asked, request_timeout=20).values():
        answer.result(20)
    _kill_one(system, rng)


def _kill_one(system: System, rng: random.Random) -> None:
    slot = rng.randrange(len(system.fleet.slots))
    worker = system.fleet.slots[slot]
    places = system.fleet.places(worker)
    system.fleet.kill(worker)
    system.mark(places)
    system.fleet.restart(slot)


def _changelogs(system: System) -> list[str]:
    return [changelog_name(system.namespace, tenant, "predictions") for tenant in TENANTS]


def _compact(system: System) -> None:
    """Rolls and compacts segments every few seconds."""
    entries = [
        ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET) for name, value in COMPACTING.items()
    ]
    resources = [ConfigResource(ResourceType.TOPIC, name, incremental_configs=entries) for name in _changelogs(system)]
    admin = system.admin
    for altered in admin.incremental_alter_configs(resources).values():
        altered.result(20)
