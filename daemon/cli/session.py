"""Runs the work of a command against a broker."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from inferd.schemas.connection import KafkaConnection

T = TypeVar("T")
REACH_TIMEOUT_S = 5.0


def run_with_broker(connection: KafkaConnection, work: Callable[[], Awaitable[T]]) -> T:
    """Runs `work` once a broker has responded, and returns its result. Raises `BrokerUnreachableError`."""
    from inferd.daemon.cluster import reach

    async def reach_and_work() -> T:
        await reach(connection, REACH_TIMEOUT_S)
        return await work()

    return asyncio.run(reach_and_work())
