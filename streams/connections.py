"""Connections to brokers, whose loss aiokafka must take for what it is, on whichever event loop.

A connection that was reset has a closed transport some moments before its reader notices. asyncio's transport drops
what is written to it then, and uvloop's raises RuntimeError, where aiokafka expects OSError alone: the fetcher's task
ends of it, and the consumer never fetches again, without a word to whoever polls it.

A broker that has just been started may answer that the cluster has no broker yet. aiokafka's client takes that answer,
and asserts otherwise when it looks for a coordinator.

Private names used, each covered by `tests/unit/streams/test_connections.py`: `AIOKafkaConnection.send` and
`AIOKafkaClient.coordinator_lookup` (replaced), of which all clients make use, and `AIOKafkaConnection._writer`.
"""

from __future__ import annotations

from typing import Any

from aiokafka.client import AIOKafkaClient
from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError, NodeNotReadyError

_stock_send: Any = AIOKafkaConnection.send
_stock_lookup: Any = AIOKafkaClient.coordinator_lookup


def _send(connection: Any, request: Any, expect_response: bool = True) -> Any:
    """As aiokafka's own; raises `KafkaConnectionError` for every connection that is closed."""
    writer = connection._writer  # noqa: SLF001
    try:
        return _stock_send(connection, request, expect_response)
    except RuntimeError as error:
        if writer is None or not writer.is_closing():
            raise
        connection.close(reason=CloseReason.CONNECTION_BROKEN)
        raise KafkaConnectionError(f"Connection at {connection.host}:{connection.port} broken: {error}") from error


async def _coordinator_lookup(client: Any, coordinator_type: Any, coordinator_key: Any) -> Any:
    """As aiokafka's own; raises `NodeNotReadyError`, after which everybody asks again, where no broker is known yet."""
    if client.get_random_node() is None:
        raise NodeNotReadyError("the cluster has told of no broker yet")
    return await _stock_lookup(client, coordinator_type, coordinator_key)


def install() -> None:
    """For every client and connection of this process; twice is the same as once."""
    AIOKafkaConnection.send = _send  # type: ignore[method-assign]
    AIOKafkaClient.coordinator_lookup = _coordinator_lookup  # type: ignore[method-assign]
