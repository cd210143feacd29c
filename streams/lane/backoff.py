"""Faults of the broker: logged once, and retried with backoff."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog
from aiokafka.errors import (
    KafkaConnectionError,
    KafkaTimeoutError,
    NoBrokersAvailable,
    NodeNotReadyError,
)

from inferd.streams.kafka import TopicRejectedError, is_denied
from inferd.streams.lane.guarantee import PUBLISH_ERRORS

log = structlog.get_logger(__name__)

NO_CONNECTION = (KafkaConnectionError, NodeNotReadyError, NoBrokersAvailable, ConnectionError, EOFError)
RETRY_S_MIN, RETRY_S_MAX = 0.1, 5.0


class Faults:
    """The current fault, if any."""

    def __init__(self, attempt_timeout_s: float, on_denied: Callable[[], None] = lambda: None) -> None:
        """`on_denied` is called when the broker denies a request."""
        self.current: str | None = None
        """Its description; None if there is none."""
        self.retry_s = RETRY_S_MIN
        """Pause before the next attempt."""
        self._attempt_timeout_s = attempt_timeout_s
        self._denied = on_denied

    def note(self, what: str, error: BaseException) -> None:
        """Sets the current fault; only the first one is logged."""
        fault = f"{what}: {cause(error)}"
        if self.current is None:
            log.warning("lane_fault", fault=fault)
        self.current = fault
        if is_denied(error):
            self._denied()

    def clear(self) -> None:
        """Something succeeded: clears the fault."""
        self.retry_s = RETRY_S_MIN
        if self.current is not None:
            log.info("lane_fault_over", fault=self.current)
            self.current = None

    async def pause(self, least_s: float) -> None:
        """Waits before the next attempt: twice as long each time, until something succeeds."""
        await asyncio.sleep(max(least_s, self.retry_s))
        self.retry_s = min(2 * self.retry_s, RETRY_S_MAX)

    async def until_done(
        self,
        what: str,
        attempt: Callable[[], Coroutine[Any, Any, None]],
        wanted: Callable[[], bool],
        *,
        bounded: bool = True,
    ) -> None:
        """Repeats `attempt` with backoff until it succeeds or is no longer wanted.

        A `bounded` attempt has the request timeout; any other reports its own progress.
        """
        delay_s = RETRY_S_MIN
        while wanted():
            try:
                # Not `wait_for`, which swallows a cancellation that comes as the attempt ends (Python 3.11):
                # partitions that were revoked would be opened.
                async with asyncio.timeout(self._attempt_timeout_s if bounded else None):
                    await attempt()
            except PUBLISH_ERRORS as error:
                self.note(what, error)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_S_MAX)


def cause(error: BaseException) -> str:
    """The cause of an error for an operator: an unreachable broker, or the error's own message."""
    if isinstance(error, TopicRejectedError) and error.__cause__ is not None:
        return f"topic {error.topic}: {cause(error.__cause__)}"
    if isinstance(error, NO_CONNECTION):
        return f"the broker cannot be reached ({type(error).__name__})"
    given = error.__cause__  # The error of a producer that has ended does not give the reason; one of `timeout` does.
    if given is not None and not isinstance(given, asyncio.CancelledError):
        return cause(given)
    if isinstance(error, TimeoutError | KafkaTimeoutError):
        return f"the broker has not answered in time ({type(error).__name__})"
    return describe(error)


def describe(error: BaseException) -> str:
    """An error in one line: its type and message."""
    name, text = type(error).__name__, str(error).strip()[:400]
    if text.startswith(name):  # Errors of aiokafka include their name.
        return text
    return f"{name}: {text}" if text else name
