"""Adds partitions to all topics of a tenant and to their changelogs, while workers run.

The number is that of the settings doubled once or more (`used_partitions.py`). Topics that others write are the last,
so that what a new partition needs is there when it is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace

from aiokafka.admin import NewPartitions
from aiokafka.errors import KafkaError, TopicAuthorizationFailedError

from inferd.schemas.topics import Stream
from inferd.streams.kafka.noted_partitions import check_noted_partitions
from inferd.streams.kafka.topic_checks import (
    FOREIGN,
    PARTITIONS_MAX,
    SINGLE,
    TopicsError,
    TopicSpec,
    TopicState,
    topic_specs,
)
from inferd.streams.kafka.topics import LOOK_AGAIN_S, VISIBLE_WITHIN_S, Admin, states_of
from inferd.streams.kafka.used_partitions import used_partitions
from inferd.streams.settings import StreamSettings

LAST: tuple[Stream, ...] = ("to-label", "labels", "jobs", "requests")
"""The streams that grow last, in this order."""


def growth(specs: Sequence[TopicSpec], states: Sequence[TopicState], partitions: int) -> list[str]:
    """Names of the topics that get partitions, in order.

    Raises `TopicsError` with each reason why it cannot be done; nothing is changed then.
    """
    if partitions > PARTITIONS_MAX:
        raise TopicsError([f"no more than {PARTITIONS_MAX} partitions can be served"], lasting=True)
    of = {state.name: state for state in states}
    grown = [spec for spec in specs if _grows(spec)]
    base = grown[0].partitions
    problems = [
        of[spec.name].problem or f"topic {spec.name} does not exist" for spec in specs if not of[spec.name].partitions
    ]
    for spec in grown:
        have = of[spec.name].partitions
        if have > partitions:
            problems.append(f"topic {spec.name} has {have} partitions already, and Kafka cannot take partitions away")
    if used_partitions(base, [partitions]) != partitions:
        problems.append(
            f"INFERD_TOPIC_PARTITIONS is {base}, and the state of jobs and labels is found by the hash of their id:"
            f" the number can be {base * 2}, {base * 4}, {base * 8} and so on"
        )
    if problems:
        raise TopicsError(problems, lasting=True)
    ordered = sorted(grown, key=lambda spec: LAST.index(spec.stream) if spec.stream in LAST else -1)
    return [spec.name for spec in ordered if of[spec.name].partitions < partitions]


def _grows(spec: TopicSpec) -> bool:
    return spec.stream not in SINGLE | FOREIGN and not spec.first_only


async def grow_topics(settings: StreamSettings, partitions: int) -> list[TopicState]:
    """Adds partitions to the topics of all tenants of the settings; returns their states afterwards.

    Running workers take the new partitions up by themselves. Safe to repeat: topics that have them are left. Raises
    `TopicsError` with each reason why it cannot be done, and `KafkaError` if the broker does not answer. Topics that
    only workers with other settings use (`capture`, those of labels) grow if they exist.
    """
    await check_noted_partitions(settings)
    needed = {spec.name for spec in topic_specs(settings)}
    specs = topic_specs(replace(settings, capture_share=1.0, labels_window_s=1.0))
    async with Admin(settings.connection) as admin:
        found = zip(specs, await states_of(admin, specs, settings.connection), strict=True)
        there = [(spec, state) for spec, state in found if state.partitions or spec.name in needed]
        specs, states = [spec for spec, _ in there], [state for _, state in there]
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
