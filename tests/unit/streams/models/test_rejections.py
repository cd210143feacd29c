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


def rejected(offset: int = 0, tenant: str = "default", key: bytes | None = b"m/1", value: bytes | None = b"x") -> Any:
    topic = TenantTopics("ns", tenant).name("models")
    return ConsumerRecord(topic, 0, offset, 1_234, 0, key, value, None, 3, 1, (("trace", b"t"),))


@dataclass
class Case:
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
async def case(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> AsyncIterator[Case]:
    broker, leading = FakeBroker(), [True]
    broker.acknowledges = True
    case = Case(broker, Rejections(follow_settings(tmp_path), lambda _tenant: leading[0]), leading)

    async def open_producer(*_: Any) -> Any:
        if case.opening_fails:
            raise case.opening_fails.pop(0)
        return await broker.open_producer()

    monkeypatch.setattr(rejections_module, "open_producer", open_producer)
    monkeypatch.setattr(rejections_module, "RETRY_S", 0.01)
    case.rejections.reject(rejected(99), ERROR)
    running = asyncio.create_task(case.rejections.run())
    await asyncio.sleep(0)
    yield case
    assert not running.done(), running
    running.cancel()


async def test_a_rejected_record_is_copied_byte_for_byte_with_the_reason(case: Case) -> None:
    record = rejected(7)
    case.rejections.reject(record, ERROR)
    await case.until(lambda: case.broker.producers_closed == 1)
    (sent,) = case.broker.sent
    assert (sent.topic, sent.partition) == ("ns.default.dead-letters", 0)
    ((key, value, headers),) = sent.records
    letter = DeadLetter.parse(key, value, headers)
    assert (letter.key, letter.value, letter.original_headers) == (b"m/1", b"x", (("trace", b"t"),))
    assert (letter.code, letter.message) == ("malformed", "it is not a manifest")
    assert (letter.topic, letter.partition, letter.offset, letter.timestamp) == ("ns.default.models", 0, 7, 1_234)
    assert letter.worker == "worker-1"


async def test_it_is_written_to_the_dead_letters_of_its_own_tenant(case: Case) -> None:
    case.rejections.reject(rejected(tenant="other"), ERROR)
    await case.until(lambda: case.broker.sent)
    assert case.broker.sent[0].topic == "ns.other.dead-letters"


async def test_only_the_leader_publishes_rejections(case: Case) -> None:
    case.leading[0] = False
    case.rejections.reject(rejected(1, key=b"m/1"), ERROR)
    case.leading[0] = True
    case.rejections.reject(rejected(2, key=b"m/2"), ERROR)
    await case.until(case.published)
    assert case.published() == [(b"m/2", b"x")]


async def test_records_rejected_before_the_start_are_not_copied_again(case: Case) -> None:
    case.rejections.reject(rejected(1, key=b"new"), ERROR)
    await case.until(case.published)
    assert case.published() == [(b"new", b"x")], "only the record that was rejected after the start"


@pytest.mark.parametrize(("key", "value"), [(None, None), (b"m/1", None), (None, b"x"), (b"m/1", b"x" * 1_100_000)])
async def test_records_of_any_shape_are_copied(case: Case, key: bytes | None, value: bytes | None) -> None:
    case.rejections.reject(rejected(1, key=key, value=value), ERROR)
    await case.until(case.published)
    assert case.published() == [(key, value)]


@pytest.mark.parametrize("failure", [KafkaConnectionError("gone"), KafkaTimeoutError(), OSError("reset")])
async def test_a_failed_publication_is_retried_without_loss_or_reordering(case: Case, failure: Exception) -> None:
    case.opening_fails += [failure, failure]
    case.broker.rejection = failure
    for n in range(3):
        case.rejections.reject(rejected(n, key=b"%d" % n), ERROR)
    await case.until(lambda: case.broker.producers_closed >= 2)
    case.broker.rejection = None
    await case.until(lambda: len(case.published()) == 3)
    assert [key for key, _ in case.published()] == [b"0", b"1", b"2"]
    await case.until(lambda: case.broker.producers_closed == case.broker.producers_opened)


async def test_a_record_that_the_broker_rejects_does_not_delay_others(case: Case) -> None:
    case.broker.acknowledges = False
    with capture_logs() as logs:
        case.rejections.reject(rejected(5, key=b"huge"), ERROR)
        case.rejections.reject(rejected(6, key=b"next"), ERROR)
        await case.until(lambda: len(case.broker.sent) == 1)
        case.broker.sent[0].fail(MessageSizeTooLargeError())
        case.broker.acknowledges = True
        await case.until(lambda: len(case.broker.sent) == 2)
    assert case.published()[1][0] == b"next"
    (entry,) = [entry for entry in logs if entry["event"] == "rejection_dropped"]
    assert (entry["offset"], entry["reason"]) == (5, "MessageSizeTooLargeError")


async def test_the_number_of_waiting_records_is_limited(case: Case, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rejections_module, "WAITING_MAX", 3)
    case.broker.rejection = KafkaTimeoutError()
    with capture_logs() as logs:
        for n in range(5):
            case.rejections.reject(rejected(n, key=b"%d" % n), ERROR)
    assert [entry["offset"] for entry in logs if entry["event"] == "rejection_dropped"] == [3, 4]
    case.broker.rejection = None
    await case.until(lambda: len(case.published()) == 3)
    assert [key for key, _ in case.published()] == [b"0", b"1", b"2"]
