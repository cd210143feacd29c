"""Models as records: how a version is put on the topics of a tenant, read back and taken away."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable

from aiokafka import AIOKafkaConsumer

from inferd.cluster import Cluster, encoding_of
from inferd.models.model_list import ModelList
from inferd.schemas.limits import Limits
from inferd.schemas.models import (
    Alias,
    AliasKey,
    ArtifactKey,
    Manifest,
    VersionKey,
    encode_alias,
    encode_manifest,
    parse_model_key,
)
from inferd.schemas.topics import Stream

POLL_MS = 200


async def read_models(cluster: Cluster, timeout_s: float, limits: Limits) -> ModelList:
    """The models of the tenant, from the whole `models` topic as it is now."""
    models = ModelList(limits=limits)
    partitions = await cluster.partitions("models")
    # The time-out is inside, so that it is told as the broker's fault that it is.
    async with cluster.consumer("models", partitions) as consumer, asyncio.timeout(timeout_s):
        await _read_to_end(consumer, models)
    return models


async def _read_to_end(consumer: AIOKafkaConsumer, models: ModelList) -> None:
    partitions = list(consumer.assignment())
    begins = await consumer.beginning_offsets(partitions)
    ends = await consumer.end_offsets(partitions)
    for partition in partitions:
        consumer.seek(partition, begins[partition])
    unread = {partition for partition in partitions if begins[partition] < ends[partition]}
    while unread:
        for records in (await consumer.getmany(timeout_ms=POLL_MS)).values():
            for record in records:
                models.apply(record.key, record.value, encoding_of(record.headers))
        unread = {partition for partition in unread if await consumer.position(partition) < ends[partition]}


async def send_artifact(cluster: Cluster, model: bytes, sha256: str, part_bytes_max: int) -> None:
    """Sends the model's bytes in parts, and waits until the broker has them all."""
    sent = []
    for part, start in enumerate(range(0, max(len(model), 1), part_bytes_max)):
        key = str(ArtifactKey(sha256, part)).encode()
        sent.append(await cluster.send("model-artifacts", key=key, value=model[start : start + part_bytes_max]))
    await cluster.acknowledged("model-artifacts", sent)


async def send_manifest(cluster: Cluster, manifest: Manifest, limits: Limits) -> None:
    """Announces a version whose artifact is there."""
    value = encode_manifest(manifest, limits=limits)
    await _send(cluster, VersionKey(manifest.model_id, manifest.version), value)


async def send_alias(cluster: Cluster, key: AliasKey, alias: Alias, limits: Limits) -> None:
    """Points an alias somewhere."""
    await _send(cluster, key, encode_alias(alias, limits=limits))


async def _send(cluster: Cluster, key: VersionKey | AliasKey, value: bytes) -> None:
    encoded = str(key).encode()
    parse_model_key(encoded)
    await cluster.acknowledged("models", [await cluster.send("models", key=encoded, value=value)])


async def send_tombstones(cluster: Cluster, stream: Stream, keys: Iterable[object]) -> None:
    """Removes the records of these keys."""
    sent = [await cluster.send(stream, key=str(key).encode(), value=None) for key in keys]
    await cluster.acknowledged(stream, sent)
