"""Adds partitions to the topics of requests while workers run.

The partition of a job or a label is the hash of its id modulo a number that never changes: their topics do not grow.
Topics that `requests` needs grow before it, so that a new partition can be served as soon as it exists.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

from aiokafka.admin import NewPartitions
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from inferd.streams.kafka.topic_checks import PARTITIONS_MAX, TopicsError, TopicSpec, TopicState, topic_specs
from inferd.streams.kafka.topics import LOOK_AGAIN_S, VISIBLE_WITHIN_S, Admin, states_of
from inferd.streams.settings import StreamSettings

GROWING = ("results", "dead-letters", "capture", "shadow-results")
"""Streams that grow with `requests`, besides changelogs of its tables."""


def growth(specs: Sequence[TopicSpec], states: Sequence[TopicState], partitions: int) -> list[str]:
    """Names of the topics that get partitions, in order: those of `requests` are the last.

    Raises `TopicsError` with each reason why it cannot be done; nothing is changed then.
    """
    if partitions > PARTITIONS_MAX:
        raise TopicsError([f"no more than {PARTITIONS_MAX} partitions can be served"], lasting=True)
    of = {state.name: state for state in states}
    grown = [spec for spec in specs if _grows(spec)]
    problems = [
        of[spec.name].problem or f"topic {spec.name} does not exist" for spec in specs if not of[spec.name].partitions
    ]
    for spec in grown:
        have = of[spec.name].partitions
        if have > partitions:
            problems.append(f"topic {spec.name} has {have} partitions already, and Kafka cannot take partitions away")
    if problems:
        raise TopicsError(problems, lasting=True)
    ordered = sorted(grown, key=lambda spec: spec.stream == "requests")
    return [spec.name for spec in ordered if of[spec.name].partitions < partitions]


def _grows(spec: TopicSpec) -> bool:
    return spec.stream in ("requests", *GROWING) or (spec.stream == "changelog" and bool(spec.follows))


async def grow_topics(settings: StreamSettings, partitions: int) -> list[TopicState]:
    """Adds partitions to the topics of requests of all tenants of the settings; returns their states afterwards.

    Running workers take the new partitions up by themselves. Safe to repeat: topics that have them are left. Raises
    `TopicsError` with each reason why it cannot be done, and `KafkaError` if the broker does not answer.
    """
    specs = topic_specs(settings)
    async with Admin(settings.connection) as admin:
        states = await states_of(admin, specs, settings.connection)
        for name in growth(specs, states, partitions):
            try:
                await admin.create_partitions({name: NewPartitions(partitions)})
            except TopicAuthorizationFailedError as error:
                raise TopicsError([f"this user lacks ALTER on topic {name}: grant it"], lasting=True) from error
            except KafkaError as error:
                raise TopicsError([f"topic {name} could not get {partitions} partitions: {error}"]) from error
        grown = [spec for spec in specs if _grows(spec)]
        deadline = time.monotonic() + VISIBLE_WITHIN_S
        while True:
            # Metadata may lag behind.
            states = await states_of(admin, grown, settings.connection)
            if all(state.partitions >= partitions for state in states) or time.monotonic() > deadline:
                return states
            await asyncio.sleep(LOOK_AGAIN_S)
