"""Reads captured requests."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from datetime import datetime

from inferd.cluster import Cluster, records_between
from inferd.schemas.capture import CapturedRequest, decode_captured
from inferd.schemas.errors import MalformedError
from inferd.schemas.requests import ModelReference


async def read_captured(
    cluster: Cluster, model: ModelReference, since: datetime | None
) -> AsyncGenerator[CapturedRequest, None]:
    """See `Client.captured`."""
    partitions = await cluster.partitions("capture")
    async with cluster.consumer("capture", partitions) as consumer:
        async for record in records_between(consumer, since):
            captured = _captured(record.value)
            if captured is not None and _is_of(captured, model):
                yield captured


def _is_of(captured: CapturedRequest, model: ModelReference) -> bool:
    return captured.model_id == model.name and model.version in (None, captured.version)


def _captured(value: bytes | None) -> CapturedRequest | None:
    """None for a record that somebody else has written."""
    try:
        return decode_captured(value)
    except MalformedError:
        return None
