"""Fetch sessions against a model of the broker's side, and the requests that they write."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import pytest
from aiokafka.protocol.fetch import FetchRequest, FetchResponse_v11
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from inferd.streams.connection.fetch_sessions import (
    EPOCH_MAX,
    FINAL_EPOCH,
    INITIAL_EPOCH,
    NO_SESSION,
    Fetch,
    FetchSession,
    Part,
    Position,
    SessionRequest,
)

UNKNOWN_SESSION, WRONG_EPOCH = 70, 71
A0, A1, B0 = ("a", 0), ("a", 1), ("b", 0)
AT = (5, 1_000)

positions = st.dictionaries(
    st.tuples(st.sampled_from("ab"), st.integers(0, 2)), st.tuples(st.integers(0, 3), st.just(1_000)), max_size=6
)


@dataclass
class SessionBroker:
    """The broker's side, as KIP-227 describes it."""

    slots: bool = True
    """Whether it has room for another session."""
    sessions: dict[int, tuple[int, dict[Part, Position]]] = field(default_factory=dict)
    opened: int = 0

    def handle(self, fetch: Fetch) -> tuple[int, int, Mapping[Part, Position] | None]:
        """Error code, session id, and the partitions that are fetched."""
        if fetch.epoch == FINAL_EPOCH:
            self.sessions.pop(fetch.session_id, None)
            return 0, NO_SESSION, dict(fetch.changed)
        if fetch.epoch == INITIAL_EPOCH:
            self.sessions.pop(fetch.session_id, None)
            if not self.slots:
                return 0, NO_SESSION, dict(fetch.changed)
            self.opened += 1
            self.sessions[self.opened] = (1, dict(fetch.changed))
            return 0, self.opened, dict(fetch.changed)
        if fetch.session_id not in self.sessions:
            return UNKNOWN_SESSION, NO_SESSION, None
        epoch, parts = self.sessions[fetch.session_id]
        if epoch != fetch.epoch:
            return WRONG_EPOCH, NO_SESSION, None
        parts.update(fetch.changed)
        for part in fetch.forgotten:
            del parts[part]
        self.sessions[fetch.session_id] = (epoch + 1, parts)
        return 0, fetch.session_id, dict(parts)


class SessionMachine(RuleBasedStateMachine):
    """Responses are read or lost, and the broker forgets: what it fetches is what was wanted."""

    @initialize(slots=st.booleans())
    def begin(self, slots: bool) -> None:
        self.broker = SessionBroker(slots)
        self.session = FetchSession()
        self.refused_in_a_row = 0

    @rule(wanted=positions)
    def fetch(self, wanted: dict[Part, Position]) -> None:
        error, session_id, fetched = self.broker.handle(self.session.request(wanted))
        self.session.answered(error, session_id)
        if fetched is None:
            self.refused_in_a_row += 1
        else:
            self.refused_in_a_row = 0
            assert fetched == wanted

    @rule(wanted=positions, arrived=st.booleans())
    def lose(self, wanted: dict[Part, Position], arrived: bool) -> None:
        request = self.session.request(wanted)
        if arrived:
            self.broker.handle(request)

    @rule()
    def forget(self) -> None:
        self.broker.sessions.clear()

    @rule(slots=st.booleans())
    def change_slots(self, slots: bool) -> None:
        self.broker.slots = slots

    @rule()
    def restart(self) -> None:
        self.session.restart()

    @rule()
    def reassign(self) -> None:
        self.session = FetchSession(self.session.id)

    @invariant()
    def a_new_session_is_never_refused(self) -> None:
        assert getattr(self, "refused_in_a_row", 0) <= 1


TestSessions = SessionMachine.TestCase
TestSessions.settings = settings(max_examples=200, stateful_step_count=30, deadline=None)


def opened() -> FetchSession:
    """A session of a request for `A0` and `A1`."""
    session = FetchSession()
    session.request({A0: AT, A1: AT})
    session.answered(0, 9)
    return session


def test_a_request_names_what_changed() -> None:
    assert opened().request({A0: (6, 1_000), A1: AT, B0: AT}) == (9, 1, {A0: (6, 1_000), B0: AT}, [])


def test_a_request_names_what_is_no_longer_wanted() -> None:
    assert opened().request({A1: AT}) == (9, 1, {}, [A0])


def test_the_epoch_wraps_to_one() -> None:
    session = opened()
    session._epoch = EPOCH_MAX
    session.request({})
    session.answered(0, 9)
    assert session.request({}).epoch == 1


def test_a_new_session_closes_the_old_one() -> None:
    session = opened()
    session.restart()
    assert session.request({A0: AT}) == (9, INITIAL_EPOCH, {A0: AT}, ())


def test_a_broker_that_refuses_sessions_is_asked_without() -> None:
    session = FetchSession()
    session.request({A0: AT})
    session.answered(UNKNOWN_SESSION, NO_SESSION)
    for _ in range(2):
        assert session.request({A0: AT}) == (NO_SESSION, FINAL_EPOCH, {A0: AT}, ())
        session.answered(0, NO_SESSION)


def test_the_response_of_another_session_starts_a_new_one() -> None:
    session = opened()
    session.request({A0: AT})
    session.answered(0, 8)
    assert session.request({A0: AT}) == (NO_SESSION, INITIAL_EPOCH, {A0: AT}, ())


# ---------------------------------------------------------------------- on the wire


def make_request(session: FetchSession, wanted: Mapping[Part, Position]) -> SessionRequest:
    return SessionRequest(session, wanted, max_wait_time=1, min_bytes=1, max_bytes=1_000, isolation_level=1)


def versions() -> list[Any]:
    classes: list[Any] = list(FetchRequest._CLASSES)
    return [each for each in classes if each.API_VERSION >= 4]


@pytest.mark.parametrize("version", versions(), ids=lambda each: f"v{each.API_VERSION}")
def test_a_request_is_written_in_each_version(version: Any) -> None:
    session = opened()
    struct = make_request(session, {A1: AT, B0: AT}).build(version)
    read = type(struct).decode(struct.encode())
    parts = [(topic, [part[0] for part in parts]) for topic, parts in read.topics]
    if version.API_VERSION < 7:
        assert parts == [("a", [1]), ("b", [0])]
        assert version.RESPONSE_TYPE is struct.RESPONSE_TYPE
    else:
        assert parts == [("b", [0])]
        assert (read.session_id, read.session_epoch, read.forgotten_topics_data) == (9, 1, [("a", [0])])


def test_a_response_reaches_the_session_and_narrows_the_topics() -> None:
    session = opened()
    request = make_request(session, {A0: AT, A1: AT})
    struct = request.build(versions()[-1])
    assert struct.topics == []
    assert request.topics == [("a", [(0, *AT), (1, *AT)])]
    response = FetchResponse_v11(0, 0, 9, [("a", [(1, 0, 7, 7, 0, [], -1, b"")])])
    decoded = struct.RESPONSE_TYPE.decode(BytesIO(response.encode()))
    assert decoded == response
    assert request.topics == [("a", [(1, *AT)])]
    assert session.request({A0: AT, A1: AT}).epoch == 2


def test_an_unread_response_starts_a_new_session() -> None:
    session = opened()
    make_request(session, {A0: AT}).build(versions()[-1])
    struct = make_request(session, {A0: AT}).build(versions()[-1])
    assert (struct.session_id, struct.session_epoch) == (9, INITIAL_EPOCH)
    assert [topic for topic, _ in struct.topics] == ["a"]
