"""Limits of the topics that a lane writes to: partition count, maximum batch size, and whether a key is required.

A broker rejects a whole batch permanently if one of its records is too large or lacks a key, or if the topic is missing
or forbidden. Each record is therefore checked against its topic before it is sent; one that would be rejected becomes a
typed error.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import structlog
from aiokafka import errors
from aiokafka.errors import BrokerResponseError, KafkaError

from inferd.schemas.errors import InferenceError, ReplyToRefusedError, TooLargeError
from inferd.schemas.record_size import record_bytes
from inferd.streams.kafka.outgoing import Outgoing
from inferd.streams.kafka.topic_checks import TopicState

log = structlog.get_logger(__name__)

Describe = Callable[[Collection[str]], Awaitable[Sequence[TopicState]]]
"""Describes the topics of a worker and those of the argument."""
UNBOUNDED = 2**31 - 1
LOOK_AGAIN_S, LOOK_SOON_S = 60.0, 5.0
"""Maximum age of the descriptions: usually, and while a reply topic is unusable."""
SMALL_BYTES = 512 * 1024
"""Below the batch size of a producer."""
AVOIDED_S = 30.0
"""How long a reply topic is avoided that rejected a record for an unknown reason."""
DESCRIBE_TIMEOUT_S = 10.0


class InvalidRecordError(BrokerResponseError):
    """A compacted topic rejects a record without a key; aiokafka does not know the code."""

    errno = 87
    message = "INVALID_RECORD"
    description = "The broker refuses a record of the batch."


errors.kafka_errors[InvalidRecordError.errno] = InvalidRecordError

PERMANENT_ERRORS = (
    InvalidRecordError,
    errors.InvalidTimestampError,
    errors.InvalidTopicError,
    errors.MessageSizeTooLargeError,
    errors.PolicyViolationError,
    errors.RecordListTooLargeError,
    errors.TopicAuthorizationFailedError,
    errors.UnknownTopicOrPartitionError,
    errors.UnsupportedForMessageFormatError,
)
"""Errors by which a broker permanently rejects records or their topic: a retry fails again."""


class TopicRejectedError(KafkaError):
    """A broker permanently rejects writes to `topic`; `__cause__` is the broker's error."""

    def __init__(self, topic: str) -> None:
        super().__init__(f"topic {topic} rejects records")
        self.topic = topic


def as_rejection(topic: str, error: BaseException) -> BaseException:
    """`TopicRejectedError` with the topic for an error that a retry cannot fix; any other error unchanged."""
    if not isinstance(error, PERMANENT_ERRORS):
        return error
    rejected = TopicRejectedError(topic)
    rejected.__cause__ = error
    return rejected


@contextmanager
def raise_rejections(topic: str) -> Iterator[None]:
    """Converts exceptions in the block as `as_rejection` does."""
    try:
        yield
    except PERMANENT_ERRORS as error:
        raise TopicRejectedError(topic) from error


@dataclass(frozen=True, slots=True)
class Destination:
    """Limits of one topic."""

    partitions: int
    """0 if it does not exist or DESCRIBE is denied."""
    bytes_max: int = UNBOUNDED
    """Maximum size of a batch, and so of a record."""
    keyed: bool = False
    """Compacted: every record needs a key."""

    @classmethod
    def of(cls, state: TopicState) -> Destination:
        compacted = "compact" in state.config.get("cleanup.policy", "")
        return cls(state.partitions, int(state.config.get("max.message.bytes", UNBOUNDED)), compacted)


ANYTHING = Destination(UNBOUNDED)
"""Limits of an unknown topic: none."""


class Destinations:
    """The topics of one worker: those of its tenants, and `reply_to`, user topics for replies."""

    def __init__(
        self,
        states: Sequence[TopicState] = (),
        reply_to: Collection[str] = (),
        describe: Describe | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`states`: the topics as they are now; `describe` reads them again; `clock`: seconds."""
        self.reply_to = frozenset(reply_to)
        self.sinks: frozenset[str] = frozenset()
        """Sinks of routes."""
        self._describe = describe
        self._clock = clock
        self._destinations: Mapping[str, Destination] = {state.name: Destination.of(state) for state in states}
        self._looked_at = clock()
        self._avoided: dict[str, tuple[str, float]] = {}
        """Reply topic -> why it is avoided, and until when."""

    def __getitem__(self, topic: str) -> Destination:
        return self._destinations.get(topic, ANYTHING)

    def bytes_max(self, topic: str) -> int:
        """Maximum batch size of a topic."""
        return self[topic].bytes_max

    def rejection(self, topic: str, outgoing: Outgoing) -> InferenceError | None:
        """Why the topic would reject a record; None if it would not."""
        if topic in self.reply_to and (why := self._unusable(topic) or self._lacks_key(topic, outgoing)):
            return ReplyToRefusedError(f"header reply-to: {why}; the answer is on the results topic")
        size, allowed = record_bytes(*outgoing), self.bytes_max(topic)
        if size <= allowed:
            return None
        remedy = "raise that setting" if topic in self.sinks else "ask for fewer rows or outputs, or raise that setting"
        return TooLargeError(
            f"the result has {size} bytes with its key and headers, and {topic} accepts {allowed} (max.message.bytes): "
            + remedy
        )

    def unusable(self, topics: Collection[str]) -> str | None:
        """The first unusable topic among these reply topics; None if all are usable."""
        return next((topic for topic in sorted(topics) if self._unusable(topic)), None)

    def _unusable(self, topic: str) -> str | None:
        if self[topic].partitions == 0:
            return f"topic {topic} does not exist"
        why, until = self._avoided.get(topic, ("", 0.0))
        return why if self._clock() < until else None

    def _lacks_key(self, topic: str, outgoing: Outgoing) -> str | None:
        if outgoing[0] is None and self[topic].keyed:
            return f"topic {topic} is compacted and rejects records without a key"
        return None

    # ------------------------------------------------------------------ asked again

    @property
    def outdated(self) -> bool:
        """Whether to describe the topics again: soon if a reply topic is unusable, or if batches are small."""
        small = any(
            each.bytes_max < SMALL_BYTES and name not in self.reply_to | self.sinks
            for name, each in self._destinations.items()
        )
        missing = any(self[name].partitions == 0 for name in self.sinks)
        most = LOOK_SOON_S if small or missing or self.unusable(self.reply_to) else LOOK_AGAIN_S
        return (small or bool(self.reply_to or self.sinks)) and self._clock() - self._looked_at > most

    async def refresh(self) -> None:
        """Describes the topics again; keeps the previous descriptions if no broker answers in time."""
        if self._describe is None:
            return
        self._looked_at = self._clock()
        with suppress(KafkaError, OSError, TimeoutError):
            async with asyncio.timeout(DESCRIBE_TIMEOUT_S):
                states = await self._describe(self.sinks)
            self._destinations = {**self._destinations, **{state.name: Destination.of(state) for state in states}}

    async def learn(self, error: BaseException, replied_to: Collection[str]) -> None:
        """Updates the descriptions after a failed publication; `replied_to`: reply topics that were written to."""
        if not replied_to and not isinstance(error, TopicRejectedError):
            return
        before = self._destinations
        await self.refresh()
        if not isinstance(error, TopicRejectedError) or error.topic not in replied_to:
            return
        if self._destinations.get(error.topic) == before.get(error.topic) and not self._unusable(error.topic):
            reason = str(error.__cause__ or error).strip()[:200]
            log.warning("reply_to_avoided", topic=error.topic, reason=reason, seconds=AVOIDED_S)
            why = f"topic {error.topic} rejects records: {reason}"
            self._avoided[error.topic] = why, self._clock() + AVOIDED_S


UNCHECKED = Destinations()
"""No limits are known: every record is accepted."""
