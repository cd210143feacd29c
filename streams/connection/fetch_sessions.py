"""Incremental fetch sessions: a fetch request names only the partitions that changed since the previous request.

aiokafka names every partition in each fetch request, and the broker answers for each of them. With many partitions that
costs more than a single record does. In a session both sides remember the partitions: a request carries those
whose position has moved, a response those with records, a new end or an error. Follows KIP-227 and Kafka's
`FetchSessionHandler` (clients/src/main/java/org/apache/kafka/clients/FetchSessionHandler.java).
"""

from __future__ import annotations

import random
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeVar

from aiokafka.protocol.fetch import FetchRequest

T = TypeVar("T")

FIRST_VERSION = 7
"""Version of the Fetch API that introduced sessions."""
NO_SESSION, INITIAL_EPOCH, FINAL_EPOCH = 0, 0, -1
EPOCH_MAX = 2**31 - 1

Part = tuple[str, int]
"""Topic and partition."""
Position = tuple[int, int]
"""Offset to fetch from, and maximum bytes."""


class Fetch(NamedTuple):
    """The fields of a request that depend on the session."""

    session_id: int
    epoch: int
    changed: Mapping[Part, Position]
    """Partitions to add to the session or to move; all of them in a request that is not incremental."""
    forgotten: Iterable[Part]
    """Partitions to remove from the session."""


@dataclass(slots=True)
class FetchSession:
    """The client's side of a session with one broker.

    If a response was not read, the next request starts a new session: the broker may or may not have advanced the
    epoch.
    """

    id: int = NO_SESSION
    """Session id at the broker. The first request of a new session carries the old id, which closes that session."""
    _epoch: int = INITIAL_EPOCH
    _known: Mapping[Part, Position] = field(default_factory=dict)
    _awaiting: bool = False
    _refused: bool = False

    def request(self, wanted: Mapping[Part, Position]) -> Fetch:
        """The next request, which fetches `wanted` and nothing else."""
        if self._awaiting:
            self.restart()
        self._awaiting = True
        known, self._known = self._known, wanted
        if self._refused:
            return Fetch(NO_SESSION, FINAL_EPOCH, wanted, ())
        if self._epoch == INITIAL_EPOCH:
            return Fetch(self.id, INITIAL_EPOCH, wanted, ())
        changed = {part: position for part, position in wanted.items() if known.get(part) != position}
        return Fetch(self.id, self._epoch, changed, [part for part in known if part not in wanted])

    def answered(self, error_code: int, session_id: int) -> None:
        """Updates the session after a response. A broker without room for another session answers with id 0."""
        if not error_code and session_id != NO_SESSION and (self._epoch == INITIAL_EPOCH or session_id == self.id):
            self.id, self._epoch, self._awaiting = session_id, self._epoch % EPOCH_MAX + 1, False
            return
        # A broker loses its sessions, for example on restart. One that refuses a new session is not asked again.
        self._refused |= error_code != 0 and self._epoch == INITIAL_EPOCH
        self.id = NO_SESSION
        self.restart()

    def restart(self) -> None:
        """The next request replaces the session by a new one, and names all partitions."""
        self._epoch, self._awaiting = INITIAL_EPOCH, False


class SessionRequest(FetchRequest):
    """A fetch request that is part of a session."""

    def __init__(self, session: FetchSession, wanted: Mapping[Part, Position], **options: Any) -> None:
        """`options`: those of aiokafka's `FetchRequest`, without `topics`."""
        super().__init__(**options, topics=[])
        self.session = session
        self.wanted = wanted
        self.response: Any = None
        """The decoded response, if there is one."""

    @property
    def topics(self) -> Any:
        """Requested positions: of the partitions in the response once there is one, otherwise of all."""
        if self.response is None:
            return _positions(self.wanted)
        named = ((topic, part) for topic, parts in self.response.topics for part, *_ in parts)
        return _positions({each: self.wanted[each] for each in named if each in self.wanted})

    def build(self, request_struct_class: Any) -> Any:
        """The request in the version that the broker supports."""
        if request_struct_class.API_VERSION < FIRST_VERSION:
            self._topics = _positions(self.wanted)
            return super().build(request_struct_class)
        fetch = self.session.request(self.wanted)
        self._topics = _positions(fetch.changed)
        if fetch.epoch in {INITIAL_EPOCH, FINAL_EPOCH}:
            # A response may not have room for all partitions; within a session the broker rotates them.
            random.shuffle(self._topics)
        struct: Any = super().build(request_struct_class)
        struct.session_id, struct.session_epoch = fetch.session_id, fetch.epoch
        struct.forgotten_topics_data = _by_topic(fetch.forgotten)
        # The connection decodes a response by this attribute of its request.
        struct.RESPONSE_TYPE = _Decoder(self, struct.RESPONSE_TYPE)
        return struct


@dataclass(frozen=True, slots=True)
class _Decoder:
    """Decodes the response to a request, and passes it to the session."""

    request: SessionRequest
    response_type: Any

    def decode(self, data: Any) -> Any:
        response = self.response_type.decode(data)
        self.request.session.answered(response.error_code, response.session_id)
        self.request.response = response
        return response


def _by_topic(entries: Iterable[tuple[str, T]]) -> list[tuple[str, list[T]]]:
    """The second part of entries, by the first."""
    topics: dict[str, list[T]] = {}
    for topic, entry in entries:
        topics.setdefault(topic, []).append(entry)
    return list(topics.items())


def _positions(parts: Mapping[Part, Position]) -> list[tuple[str, list[tuple[int, int, int]]]]:
    return _by_topic((topic, (part, *position)) for (topic, part), position in parts.items())
