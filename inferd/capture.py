"""Reads captured requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

from aiokafka import AIOKafkaConsumer, TopicPartition

from inferd.cluster import Cluster, offsets_since
from inferd.schemas.capture import CapturedRequest, decode_captured
from inferd.schemas.errors import MalformedError
from inferd.schemas.requests import ModelReference

POLL_MS = 200


async def read_captured(
    cluster: Cluster, model: ModelReference, since: datetime | None
) -> AsyncGenerator[CapturedRequest, None]:
    """See `Client.captured`."""
    partitions = await cluster.partitions("capture")
    async with cluster.consumer("capture", partitions) as consumer:
        tps = list(consumer.assignment())
        ends = await consumer.end_offsets(tps)
        for tp, first in (await _first(consumer, tps, since)).items():
            consumer.seek(tp, first)
        while behind := [tp for tp, end in ends.items() if await consumer.position(tp) < end]:
            for tp, records in (await consumer.getmany(*behind, timeout_ms=POLL_MS)).items():
                for record in records:
                    captured = _captured(record.value) if record.offset < ends[tp] else None
                    if captured is not None and _is_of(captured, model):
                        yield captured


async def _first(
    consumer: AIOKafkaConsumer, tps: list[TopicPartition], since: datetime | None
) -> dict[TopicPartition, int]:
    if since is None:
        return dict(await consumer.beginning_offsets(tps))
    return await offsets_since(consumer, tps, since)


def _is_of(captured: CapturedRequest, model: ModelReference) -> bool:
    return captured.model_id == model.name and model.version in (None, captured.version)


def _captured(value: bytes | None) -> CapturedRequest | None:
    """None for a record that somebody else has written."""
    try:
        return decode_captured(value)
    except MalformedError:
        return None
