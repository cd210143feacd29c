"""Sends labels: what was true of requests."""

from __future__ import annotations

from asyncio import Future
from collections.abc import AsyncIterable, Iterable

from aiokafka.structs import RecordMetadata

from inferd.cluster import Cluster
from inferd.schemas.codecs import MSGPACK
from inferd.schemas.labels import Label, decode_label, encode_label
from inferd.schemas.limits import Limits

WINDOW = 10_000
"""Labels on their way at once."""


async def send_labels(cluster: Cluster, labels: Iterable[Label] | AsyncIterable[Label], limits: Limits) -> int:
    """See `Client.send_labels`."""
    count = 0
    waiting: list[Future[RecordMetadata]] = []
    async for label in _each(labels):
        value = encode_label(label, MSGPACK)
        decode_label(value, MSGPACK, limits)
        waiting.append(await cluster.send("labels", key=label.id.encode(), value=value, headers=(MSGPACK.header,)))
        count += 1
        if len(waiting) == WINDOW:
            await cluster.acknowledged("labels", waiting)
            waiting.clear()
    await cluster.acknowledged("labels", waiting)
    return count


async def _each(labels: Iterable[Label] | AsyncIterable[Label]) -> AsyncIterable[Label]:
    if isinstance(labels, AsyncIterable):
        async for label in labels:
            yield label
    else:
        for label in labels:
            yield label
