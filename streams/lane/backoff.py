"""What a lane waits for when the broker refuses or cannot be reached: said once, tried again ever slower."""

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
from inferd.streams.lane.guarantees import PUBLISH_ERRORS

log = structlog.get_logger(__name__)

NO_CONNECTION = (KafkaConnectionError, NodeNotReadyError, NoBrokersAvailable, ConnectionError, EOFError)
RETRY_S_MIN, RETRY_S_MAX = 0.1, 5.0


class Faults:
    """The fault that work waits on now, if any."""

    def __init__(self, attempt_timeout_s: float, denied: Callable[[], None] = lambda: None) -> None:
        """`denied` is called where the broker refuses something for want of a right."""
        self.current: str | None = None
        """In words; None while all is well."""
        self.retry_s = RETRY_S_MIN
        """How long the next failure of something that seemed to be over has to wait."""
        self._attempt_timeout_s = attempt_timeout_s
        self._denied = denied

    def note(self, what: str, error: BaseException) -> None:
        """Says once that work has to wait; what exactly it waits for may change meanwhile."""
        fault = f"{what}: {cause(error)}"
        if self.current is None:
            log.warning("lane_fault", fault=fault)
        self.current = fault
        if is_denied(error):
            self._denied()

    def clear(self) -> None:
        """Something came through: nothing has to wait any more."""
        self.retry_s = RETRY_S_MIN
        if self.current is not None:
            log.info("lane_fault_over", fault=self.current)
            self.current = None

    async def pause(self, least_s: float) -> None:
        """Waits before what failed is tried once more; the next time twice as long, unless something came through."""
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
        """Tries with bounded backoff until `attempt` works or is not wanted any more.

        An attempt that is `bounded` has the time of a request; another one tells of its progress by itself.
        """
        delay_s = RETRY_S_MIN
        while wanted():
            try:
                # Not `wait_for`, which swallows a cancellation that comes as the attempt ends (Python 3.11): who has
                # lost the partitions would go on to open them.
                async with asyncio.timeout(self._attempt_timeout_s if bounded else None):
                    await attempt()
            except PUBLISH_ERRORS as error:
                self.note(what, error)
            else:
                return
            await asyncio.sleep(delay_s)
            delay_s = min(2 * delay_s, RETRY_S_MAX)


def cause(error: BaseException) -> str:
    """What an operator has to look at: the broker, where it is away; else what the error says."""
    if isinstance(error, TopicRejectedError) and error.__cause__ is not None:
        return f"topic {error.topic}: {cause(error.__cause__)}"
    if error.__cause__ is not None:  # a producer that ends says that it did, and not why
        return cause(error.__cause__)
    if isinstance(error, NO_CONNECTION):
        return f"the broker cannot be reached ({type(error).__name__})"
    if isinstance(error, TimeoutError | KafkaTimeoutError):
        return f"the broker has not answered in time ({type(error).__name__})"
    return describe(error)


def describe(error: BaseException) -> str:
    """An error in one line: its type, and what it says."""
    name, text = type(error).__name__, str(error).strip()[:400]
    if text.startswith(name):  # aiokafka's errors name themselves
        return text
    return f"{name}: {text}" if text else name
