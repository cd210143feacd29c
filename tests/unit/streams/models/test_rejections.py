"""Publishing rejected model records as dead letters: by which worker, which records, and failures on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord
from aiokafka.errors import KafkaConnectionError, KafkaTimeoutError, MessageSizeTooLargeError
from structlog.testing import capture_logs

from inferd.schemas.dead_letters import DeadLetter
from inferd.schemas.errors import MalformedError
from inferd.schemas.topics import TenantTopics
from inferd.streams.models import rejections as rejections_module
from inferd.streams.models.rejections import Rejections
from tests.fixtures.lane import FakeBroker
from tests.fixtures.models import follow_settings

ERROR = MalformedError("it is not a manifest")


def refused(offset: int = 0, tenant: str = "default", key: bytes | None = b"m/1", value: bytes | None = b"x") -> Any:
    topic = TenantTopics("ns", tenant).name("models")
    return ConsumerRecord(topic, 0, offset, 1_234, 0, key, value, None, 3, 1, (("trace", b"t"),))


@dataclass
class Desk:
    """Running `Rejections`, whether the worker is the leader, and the fake broker."""

    broker: FakeBroker
    rejections: Rejections
    leading: list[bool]
    opening_fails: list[Exception] = field(default_factory=list)

    def published(self) -> list[tuple[bytes | None, bytes | None]]:
        return [record[:2] for sent in self.broker.sent for record in sent.records]

    async def until(self, condition: Callable[[], Any]) -> None:
        async with asyncio.timeout(5):
            while not condition():  # noqa: ASYNC110
                await asyncio.sleep(0.001)


@pytest.fixture
async def desk(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Desk]:
    broker, leading = FakeBroker(), [True]
    broker.acknowledges = True
    desk = Desk(broker, Rejections(follow_settings(tmp_path), lambda _tenant: leading[0]), leading)

    async def open_producer(*_: Any) -> Any:
        if desk.opening_fails:
            raise desk.opening_fails.pop(0)
        return await broker.open_producer()

    monkeypatch.setattr(rejections_module, "open_producer", open_producer)
    monkeypatch.setattr(rejections_module, "RETRY_S", 0.01)
    desk.rejections.reject(refused(99), ERROR)
    running = asyncio.create_task(desk.rejections.run())
    await asyncio.sleep(0)
    yield desk
    assert not running.done(), running
    running.cancel()


async def test_a_rejected_record_is_copied_byte_for_byte_with_the_reason(desk: Desk) -> None:
    record = refused(7)
    desk.rejections.reject(record, ERROR)
    await desk.until(lambda: desk.broker.producers_closed == 1)
    (sent,) = desk.broker.sent
    assert (sent.topic, sent.partition) == ("ns.default.dead-letters", 0)
    ((key, value, headers),) = sent.records
    letter = DeadLetter.parse(key, value, headers)
    assert (letter.key, letter.value, letter.original_headers) == (b"m/1", b"x", (("trace", b"t"),))
    assert (letter.code, letter.message) == ("malformed", "it is not a manifest")
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp) == ("ns.default.models", 0, 7, 1_234)
    assert letter.worker == "worker-1"


async def test_it_goes_to_the_dead_letters_of_its_own_tenant(desk: Desk) -> None:
    desk.rejections.reject(refused(tenant="other"), ERROR)
    await desk.until(lambda: desk.broker.sent)
    assert desk.broker.sent[0].topic == "ns.other.dead-letters"


async def test_only_the_worker_that_leads_copies(desk: Desk) -> None:
    desk.leading[0] = False
    desk.rejections.reject(refused(1, key=b"m/1"), ERROR)
    desk.leading[0] = True
    desk.rejections.reject(refused(2, key=b"m/2"), ERROR)
    await desk.until(desk.published)
    assert desk.published() == [(b"m/2", b"x")]


async def test_records_rejected_before_the_start_are_not_copied_again(desk: Desk) -> None:
    desk.rejections.reject(refused(1, key=b"new"), ERROR)
    await desk.until(desk.published)
    assert desk.published() == [(b"new", b"x")], "only the record that was rejected after the start"


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"m/1", None), (None, b"x"), (b"m/1", b"x" * 1_100_000)])
async def test_records_of_any_shape_are_copied(desk: Desk, key: bytes | None, value: bytes | None) -> None:
    desk.rejections.reject(refused(1, key=key, value=value), ERROR)
    await desk.until(desk.published)
    assert desk.published() == [(key, value)]


@pytest.mark.parametrize("failure", [KafkaConnectionError("gone"), KafkaTimeoutError(), OSError("reset")])
async def test_a_failed_publication_is_retried_without_loss_or_reordering(desk: Desk, failure: Exception) -> None:
    desk.opening_fails += [failure, failure]
    desk.broker.rejection = failure
    for n in range(3):
        desk.rejections.reject(refused(n, key=b"%d" % n), ERROR)
    await desk.until(lambda: desk.broker.producers_closed >= 2)
    desk.broker.rejection = None
    await desk.until(lambda: len(desk.published()) == 3)
    assert [key for key, _ in desk.published()] == [b"0", b"1", b"2"]
    await desk.until(lambda: desk.broker.producers_closed == desk.broker.producers_opened)


async def test_a_record_that_the_broker_never_takes_does_not_hold_up_the_others(desk: Desk) -> None:
    desk.broker.acknowledges = False
    with capture_logs() as logs:
        desk.rejections.reject(refused(5, key=b"huge"), ERROR)
        desk.rejections.reject(refused(6, key=b"next"), ERROR)
        await desk.until(lambda: len(desk.broker.sent) == 1)
        desk.broker.sent[0].fail(MessageSizeTooLargeError())
        desk.broker.acknowledges = True
        await desk.until(lambda: len(desk.broker.sent) == 2)
    assert desk.published()[1][0] == b"next"
    (told,) = [entry for entry in logs if entry["event"] == "refusal_dropped"]
    assert (told["offset"], told["reason"]) == (5, "MessageSizeTooLargeError")


async def test_only_so_many_wait(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections_module, "WAITING_MAX", 3)
    desk.broker.rejection = KafkaTimeoutError()
    with capture_logs() as logs:
        for n in range(5):
            desk.rejections.reject(refused(n, key=b"%d" % n), ERROR)
    assert [entry["offset"] for entry in logs if entry["event"] == "refusal_dropped"] == [3, 4]
    desk.broker.rejection = None
    await desk.until(lambda: len(desk.published()) == 3)
    assert [key for key, _ in desk.published()] == [b"0", b"1", b"2"]
