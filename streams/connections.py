"""Connections to brokers, whose loss aiokafka must take for what it is, on whichever event loop.

A connection that was reset has a closed transport some moments before its reader notices. asyncio's transport drops
what is written to it then, and uvloop's raises RuntimeError, where aiokafka expects OSError alone: the fetcher's task
ends of it, and the consumer never fetches again, without a word to whoever polls it.

Private names used, each covered by `tests/unit/streams/test_connections.py`: `AIOKafkaConnection.send` (replaced), of
which every request of every client makes use, and `AIOKafkaConnection._writer`.
"""

from __future__ import annotations

from typing import Any

from aiokafka.conn import AIOKafkaConnection, CloseReason
from aiokafka.errors import KafkaConnectionError

_stock_send: Any = AIOKafkaConnection.send


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


def install() -> None:
    """For every connection of this process; twice is the same as once."""
    AIOKafkaConnection.send = _send  # type: ignore[method-assign]
