"""Requests over HTTP: each caller gets a response, also from a stopping worker."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import MalformedError, ModelNotReadyError, QuotaExceededError
from inferd.streams.app import Streams
from inferd.streams.http_requests import HttpAnswer, HttpRequest, HttpRequests
from inferd.streams.requests import Quota
from inferd.streams.settings import StreamSettings
from tests.fixtures.lane import REQUESTS, Bench, request

VALUE = cast(bytes, request(0).value)


def ask(bench: Bench) -> HttpRequest:
    direct = bench.tenant.direct.ask(VALUE, (), 1_000)
    bench.lane.wake(REQUESTS)
    return direct


async def test_too_many_waiting_requests_are_rejected() -> None:
    direct = HttpRequests(1)
    direct.ask(VALUE, (), 1_000)
    with pytest.raises(QuotaExceededError, match="1 requests are waiting"):
        direct.ask(VALUE, (), 1_000)


async def test_a_request_is_unanswered_until_it_is_answered_or_cancelled() -> None:
    direct = HttpRequests(9)
    first, second, third = (direct.ask(VALUE, (), 1_000) for _ in range(3))
    assert direct.unanswered == 3
    third.answer.cancel()
    assert direct.take(9) == [first, second]
    assert direct.unanswered == 2
    first.answer.set_result(HttpAnswer(b""))
    second.answer.cancel()
    assert direct.unanswered == 0


async def test_a_drain_answers_waiting_requests(bench: Bench) -> None:
    asked = ask(bench)
    await bench.lane.drain()
    assert msgspec.msgpack.decode(asked.answer.result().value)["prediction"] == 1.0


async def test_a_drain_answers_requests_that_are_being_scored(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    score, scoring, going_on = bench.tenant._scoring.score, asyncio.Event(), asyncio.Event()

    async def slow_score(*args: Any) -> Any:
        scoring.set()
        await going_on.wait()
        return await score(*args)

    monkeypatch.setattr(bench.tenant._scoring, "score", slow_score)
    asked = ask(bench)
    await scoring.wait()
    draining = asyncio.create_task(bench.lane.drain())
    for _ in range(20):
        await asyncio.sleep(0)
    assert not draining.done()
    going_on.set()
    await draining
    assert msgspec.msgpack.decode(asked.answer.result().value)["prediction"] == 1.0


async def test_each_request_that_cannot_be_scored_raises_an_error_of_its_own(bench: Bench) -> None:
    asked = [bench.tenant.direct.ask(b"\xc1", (), 1_000) for _ in range(2)]
    bench.lane.wake(REQUESTS)
    errors = await asyncio.gather(*(each.answer for each in asked), return_exceptions=True)
    assert [type(error) for error in errors] == [MalformedError] * 2
    assert errors[0] is not errors[1]


class StuckLane:
    """A lane that never drains, so that its waiting requests are never answered."""

    async def drain(self) -> None:
        await asyncio.Event().wait()

    async def close(self) -> None: ...

    def wake(self, topic: str) -> None: ...


async def test_requests_left_at_the_end_of_a_stop_are_rejected(tmp_path: Path) -> None:
    direct = HttpRequests(9)
    streams = Streams(StreamSettings(KafkaConnection(), "w1", tmp_path), lambda *_: None)
    streams.lane, streams._lifecycle = cast(Any, StuckLane()), "running"
    streams.admission._admitted.add("default")
    requests = SimpleNamespace(direct=direct, topic=REQUESTS, quota=Quota())
    streams.tenants = {"default": cast(Any, SimpleNamespace(requests=requests, tables=()))}
    scored, waiting = (asyncio.create_task(streams.predict("default", VALUE)) for _ in range(2))
    await asyncio.sleep(0)
    assert len(direct.take(1)) == 1
    assert not await streams.stop(0.01)
    for asked in (scored, waiting):
        with pytest.raises(ModelNotReadyError, match="this worker stopped"):
            await asked
    with pytest.raises(ModelNotReadyError, match="this worker is stopped"):
        await streams.predict("default", VALUE)
