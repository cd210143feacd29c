"""One conversation of a command with the brokers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

from inferd.schemas.connection import KafkaConnection

T = TypeVar("T")
REACH_TIMEOUT_S = 5.0


def run_with_broker(connection: KafkaConnection, work: Callable[[], Awaitable[T]]) -> T:
    """What `work` gives, once a broker has answered; `BrokerUnreachableError`, with the reasons, where none does."""
    from inferd.daemon.cluster import reach

    async def reach_and_work() -> T:
        await reach(connection, REACH_TIMEOUT_S)
        return await work()

    return asyncio.run(reach_and_work())
