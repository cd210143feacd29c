"""The number of partitions by which the states of jobs and labels were stored, against the one of the settings.

Where a state is, and where it moves when partitions are added, follows from INFERD_TOPIC_PARTITIONS
(`used_partitions.py`): a worker with another value would serve new partitions without filling them. Each transaction
that writes states commits an offset of the same topic, whose metadata has the value. So the offsets of the group tell
it as long as there are states. The topics themselves do not: they may have been grown since.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterable, Mapping

from aiokafka import TopicPartition
from aiokafka.admin import AIOKafkaAdminClient
from aiokafka.errors import GroupCoordinatorNotAvailableError, KafkaError
from aiokafka.structs import OffsetAndMetadata

from inferd.streams.kafka.start_offsets import is_from_deleted_topic, partitions_noted_in
from inferd.streams.kafka.topic_checks import TopicsError
from inferd.streams.kafka.topic_metadata import TopicMetadata, read_topics
from inferd.streams.kafka.topics import LOOK_AGAIN_S, VISIBLE_WITHIN_S, Admin
from inferd.streams.kafka.used_partitions import keyed_topics
from inferd.streams.settings import StreamSettings


async def check_noted_partitions(settings: StreamSettings) -> None:
    """Raises `TopicsError` if states of a tenant were stored by another number of partitions than that of the settings,
    with the right value; `KafkaError` if the broker does not tell the offsets of the group."""
    async with Admin(settings.connection) as admin:
        names = [name for tenant in settings.tenants for name in keyed_topics(settings, tenant)]
        topics = await read_topics(admin._client, names)  # noqa: SLF001  (the admin client does not tell topic ids)
        offsets = await _offsets(admin, settings.group.group_id, topics)
    wanted = settings.topics.partitions
    noted = {tenant: _noted(keyed_topics(settings, tenant), topics, offsets) for tenant in settings.tenants}
    if problems := [_problem(settings, tenant, found) for tenant, found in noted.items() if found not in {0, wanted}]:
        raise TopicsError(problems, lasting=True)


def _problem(settings: StreamSettings, tenant: str, noted: int) -> str:
    return (
        f"INFERD_TOPIC_PARTITIONS is {settings.topics.partitions}, and group {settings.group.group_id} stored the jobs"
        f" and labels of tenant {tenant} by {noted}, by which it finds them also after `inferd topics grow`: set"
        f" INFERD_TOPIC_PARTITIONS={noted}"
    )


def _noted(
    names: Iterable[str],
    topics: Mapping[str, TopicMetadata | None],
    offsets: Mapping[TopicPartition, OffsetAndMetadata],
) -> int:
    """The least number: of two workers that began with different ones, the one with the lesser has all states."""
    ids = {name: found.topic_id for name in names if (found := topics.get(name)) is not None}
    noted = {
        partitions_noted_in(each.metadata)
        for tp, each in offsets.items()
        if tp.topic in ids and not is_from_deleted_topic(each.metadata, ids[tp.topic])
    }
    return min(noted - {0}, default=0)


async def _offsets(
    admin: AIOKafkaAdminClient, group_id: str, topics: Mapping[str, TopicMetadata | None]
) -> Mapping[TopicPartition, OffsetAndMetadata]:
    asked = [TopicPartition(name, n) for name, found in topics.items() if found for n in range(found.partitions)]
    deadline = time.monotonic() + VISIBLE_WITHIN_S
    while asked:
        failed: KafkaError = GroupCoordinatorNotAvailableError(f"the offsets of group {group_id} cannot be read")
        try:
            found = await admin.list_consumer_group_offsets(group_id, partitions=asked)
        except KafkaError as error:
            if not error.retriable:
                raise
            failed = error
        else:
            # aiokafka ignores an error of the whole response, which then has no partitions.
            if len(found) == len(asked):
                return found
        if time.monotonic() > deadline:
            raise failed
        await asyncio.sleep(LOOK_AGAIN_S)
    return {}
