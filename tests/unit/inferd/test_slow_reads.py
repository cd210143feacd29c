"""A broker that does not answer in time is named by the typed error of every read of a topic as a whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from inferd.cluster import Cluster
from inferd.errors import BrokerUnreachableError
from inferd.rollouts.rollouts import Rollouts
from inferd.routes.log import RouteLog
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.topics import TenantTopics


class SilentCluster(Cluster):
    """A consumer is never connected."""

    async def partitions(self, _stream: str) -> tuple[int, ...]:
        return (0,)

    @asynccontextmanager
    async def consumer(self, *_args: Any, **_options: Any) -> AsyncIterator[Any]:
        await asyncio.Event().wait()
        yield


@pytest.mark.parametrize("what", ["rollouts", "routes"])
async def test_a_read_that_takes_too_long_is_a_typed_error(what: str) -> None:
    cluster = SilentCluster(KafkaConnection("broker:9092"), TenantTopics("n", "t"), "client", DEFAULT_LIMITS, 1)
    other: Any = None
    read = (
        Rollouts(cluster, other, other).list(timeout_s=0.01)
        if what == "rollouts"
        else RouteLog(cluster, other, other).read(0.01)
    )
    with pytest.raises(BrokerUnreachableError, match=f"reading the {what}"):
        await read
