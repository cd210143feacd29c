"""Sending the messages of a job to its owner: how many are in flight, and how rejections are handled."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import pytest
from aiokafka.errors import KafkaTimeoutError, MessageSizeTooLargeError

from inferd.schemas.codecs import JSON
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.errors import ChunkConflictError, JobConflictError, JobExpiredError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.jobs import upload
from inferd.streams.jobs.errors import NotOwnerError, RetryLaterError
from inferd.streams.jobs.job_store import MessageOutcomes
from inferd.streams.jobs.reader import RecordReader
from inferd.streams.jobs.service import JobService
from inferd.streams.jobs.state.state import JobState
from inferd.streams.jobs.upload import WINDOW, JobMessageSender
from inferd.streams.settings import StreamSettings


class Log:
    """A partition of `jobs` that acknowledges immediately, unless it is set to fail."""

    def __init__(self) -> None:
        self.values: list[bytes] = []
        self.handled = MessageOutcomes()
        self.error: Exception | None = None
        self.late_error: Exception | None = None
        self.out = JobMessageSender(self.handled, self.produce)

    async def produce(self, value: bytes, _encoding: Any) -> asyncio.Future[Any]:
        if self.error is not None:
            raise self.error
        sent: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        if self.late_error is not None:
            sent.set_exception(self.late_error)
        else:
            sent.set_result(_At(len(self.values)))
        self.values.append(value)
        return sent


class _At:
    def __init__(self, offset: int) -> None:
        self.offset = offset


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(5):
        while not condition():  # noqa: ASYNC110  # nothing tells of it
            await asyncio.sleep(0)


async def send_all(log: Log, count: int) -> None:
    for number in range(count):
        await log.out.send(b"%d" % number, JSON)
    await log.out.all_taken()


async def test_so_many_messages_are_on_their_way_and_no_more() -> None:
    log = Log()
    sending = asyncio.create_task(send_all(log, WINDOW + 10))
    await until(lambda: len(log.values) == WINDOW)
    for _ in range(100):
        await asyncio.sleep(0)
    assert len(log.values) == WINDOW
    log.handled.up_to(4)
    await until(lambda: len(log.values) == WINDOW + 4)
    log.handled.up_to(WINDOW + 10)
    await asyncio.wait_for(sending, 5)
    assert log.values == [b"%d" % number for number in range(WINDOW + 10)]


async def test_a_rejection_is_raised_before_more_is_sent() -> None:
    log = Log()
    await log.out.send(b"0", JSON)
    log.handled.reject(0, ChunkConflictError("other bytes"))
    log.handled.up_to(1)
    await until(log.out._on_their_way[0].done)
    with pytest.raises(ChunkConflictError):
        await log.out.send(b"1", JSON)
    assert log.values == [b"0"]
    await log.out.forget()


async def test_an_unknown_outcome_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(upload, "HANDLED_WITHIN_S", 0.01)
    log = Log()
    with pytest.raises(RetryLaterError, match="no worker has processed the message"):
        await send_all(log, 1)
    await log.out.forget()
    moved = Log()
    sending = asyncio.create_task(send_all(moved, 1))
    await until(lambda: bool(moved.handled._waiting))
    moved.handled.give_up()
    with pytest.raises(RetryLaterError, match="another worker"):
        await sending


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [KafkaTimeoutError(), MessageSizeTooLargeError(), OSError("gone")])
async def test_a_rejection_by_the_broker_is_not_an_error_of_the_caller(error: Exception, late: bool) -> None:
    log = Log()
    log.late_error, log.error = (error, None) if late else (None, error)
    with pytest.raises(RetryLaterError, match="cannot be sent"):
        await send_all(log, 1)


class Owned:
    """The jobs of one tenant, of some partitions."""

    def __init__(self, states: dict[str, JobState], partitions: set[int]) -> None:
        self.partitions = dict.fromkeys(partitions)
        self._states = states

    def find(self, job_id: str) -> tuple[int, JobState] | None:
        return (0, self._states[job_id]) if job_id in self._states else None


def service(states: dict[str, JobState], partitions: set[int], url: str | None = None) -> JobService:
    settings = StreamSettings(KafkaConnection(), "w1", None, url="http://here", limits=DEFAULT_LIMITS)  # type: ignore[arg-type]
    owned: Any = {"default": Owned(states, partitions)}
    return JobService(settings, lambda: owned, RecordReader(settings), lambda _tp: url)


@pytest.mark.parametrize(
    ("phase", "error"), [("expired", JobExpiredError), ("running", JobConflictError), ("queued", JobConflictError)]
)
async def test_missing_results_are_explained(phase: Any, error: type[Exception]) -> None:
    jobs = service({"j": JobState("j", 0, 0, phase)}, {0})
    with pytest.raises(error):
        await anext(jobs.results("default", "j"))


@pytest.mark.parametrize(("url", "expected"), [("http://there", "http://there"), ("http://here", None), (None, None)])
async def test_errors_for_other_workers_jobs_name_the_owner(url: str | None, expected: str | None) -> None:
    for question in (
        service({}, set(), url).status,
        service({}, set(), url).outputs,
        service({}, set(), url).retry,
    ):
        with pytest.raises(NotOwnerError) as raised:
            await question("default", "j")
        assert raised.value.url == expected


def test_an_id_that_is_chosen_here_belongs_here() -> None:
    for number in range(4):
        jobs = service({}, {number})
        ids = {jobs._new_id("default") for _ in range(20)}
        assert {jobs.partition_of("default", job_id) for job_id in ids} == {number}
        assert len(ids) == 20
