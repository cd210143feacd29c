"""Request-reply over Kafka: sends requests, awaits results, retries transient failures."""

from __future__ import annotations

import asyncio
import time
from asyncio import Future, Lock, Task
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from aiokafka.partitioner import DefaultPartitioner
from aiokafka.structs import RecordMetadata

from inferd.cluster import Cluster
from inferd.errors import ResultTimeoutError, unreachable_reason
from inferd.models import ModelList, ModelLog
from inferd.predictions.pending import PendingRequests
from inferd.predictions.replies import Replies
from inferd.schemas.codecs import MSGPACK, Codec
from inferd.schemas.errors import (
    InferenceError,
    InvalidValueError,
    ModelNotFoundError,
    ServerError,
    TooLargeError,
    VersionNotFoundError,
)
from inferd.schemas.headers import RawHeaders
from inferd.schemas.limits import Limits
from inferd.schemas.requests import Failure, ModelReference, Output, Result, encode_request

PAUSE_FIRST_S = 0.05
PAUSE_MAX_S = 1.0
FOLLOW_S = 10.0
"""How long a worker may take to read a new record of `models`."""
MODELS_AGE_MAX_S = 1.0
MODELS_READ_TIMEOUT_S = 10.0
_by_key = DefaultPartitioner()
_NOT_FOUND = (ModelNotFoundError.code, VersionNotFoundError.code)


@dataclass(frozen=True, slots=True)
class Call:
    """The content of one request."""

    model_id: str
    input_data: Any
    outputs: Sequence[Output] | None = None
    key: bytes | None = None
    headers: RawHeaders = ()


@dataclass(slots=True)
class SentCall:
    """A request in flight; `deadline` and `sent_at` are seconds of the monotonic clock."""

    call: Call
    id: str
    sent_at: float
    deadline: float
    reply: Future[Result]
    retrying: Task[Result] | None = field(default=None)


class Exchange:
    """The requests and results of one client."""

    def __init__(
        self,
        cluster: Cluster,
        model_log: ModelLog,
        pending: PendingRequests,
        codec: Codec,
        limits: Limits,
        partitions: Sequence[int] | None,
    ) -> None:
        self._cluster = cluster
        self._model_log = model_log
        self._pending = pending
        self._codec = codec
        self._headers: RawHeaders = () if codec is MSGPACK else (codec.header,)
        self._limits = limits
        self._chosen = None if partitions is None else sorted(set(partitions))
        self._replies = Replies(cluster, pending)
        self._starting = Lock()
        self._reading_models = Lock()
        self._models = float("-inf"), ModelList()

    async def stop(self) -> None:
        """Stop reading results; pending requests fail with `ClientClosedError`."""
        await self._replies.stop()

    async def send(self, call: Call, timeout_s: float) -> SentCall:
        """Send a request; an error in the request itself is returned as its result."""
        if not self._replies.running:
            await self._start_replies()
        now = time.monotonic()
        request_id = self._pending.next_id()
        sent = SentCall(call, request_id, now, now + timeout_s, self._pending.expect(request_id))
        try:
            await self._produce(sent)
        except InferenceError as error:
            self._pending.settle(Failure.of(error, sent.id, call.model_id))
        except BaseException:
            self._pending.forget(sent.id)
            raise
        return sent

    async def result(self, sent: SentCall) -> Result:
        """Await the result of a request; transient failures are retried until its deadline.

        `ResultTimeoutError` if no result arrives in time.
        """
        try:
            result = await self._reply(sent)
            retrying = self._retry(sent, result)
            return result if retrying is None else await retrying
        finally:
            self.abandon(sent)

    def watch(self, sent: SentCall) -> None:
        """Retry a transient failure as soon as it arrives, even if the result is not awaited yet."""
        sent.reply.add_done_callback(partial(self._watched, sent))

    def abandon(self, sent: SentCall) -> None:
        """Discard the request: its result is not needed any more."""
        self._pending.forget(sent.id)
        if sent.retrying is not None:
            sent.retrying.cancel()

    async def _start_replies(self) -> None:
        async with self._starting:
            if not self._replies.running:
                await self._cluster.partitions("requests")
                await self._replies.start(self._read_from(await self._cluster.partitions("results")))

    def _read_from(self, partitions: Sequence[int]) -> Sequence[int]:
        """The partitions of results to read: those of the requests, because a result has its request's partition."""
        if self._chosen is None:
            return partitions
        if unknown := set(self._chosen) - set(partitions):
            topic = self._cluster.topics.name("requests")
            raise InvalidValueError(f"partitions {sorted(unknown)}: {topic} has {list(partitions)}")
        return self._chosen

    async def _produce(self, sent: SentCall) -> None:
        call = sent.call
        value = encode_request(call.input_data, call.model_id, outputs=call.outputs, id=sent.id, codec=self._codec)
        if len(value) > self._limits.message_bytes_max:
            raise TooLargeError(
                f"the request has {len(value)} bytes; at most {self._limits.message_bytes_max} are allowed"
            )
        taken = await self._cluster.send(
            "requests", key=call.key, value=value, headers=self._headers + call.headers, partition=self._partition(call)
        )
        taken.add_done_callback(partial(self._note_place, sent))

    def _partition(self, call: Call) -> int | None:
        if self._chosen is None:
            return None
        partition: int = _by_key(call.key, self._chosen, self._chosen)
        return partition

    def _note_place(self, sent: SentCall, taken: Future[RecordMetadata]) -> None:
        if taken.cancelled():
            return
        if (error := taken.exception()) is None:
            place = taken.result()
            self._pending.note_place(sent.id, place.partition, place.offset)
            return
        typed = self._cluster.send_error("requests", error)
        if isinstance(typed, InferenceError):
            self._pending.settle(Failure.of(typed, sent.id, sent.call.model_id))
        else:
            self._pending.fail(sent.id, typed)

    async def _reply(self, sent: SentCall) -> Result:
        if not sent.reply.done():
            await asyncio.wait([sent.reply], timeout=sent.deadline - time.monotonic())
        if not sent.reply.done():
            raise self._late(sent)
        return sent.reply.result()

    def _late(self, sent: SentCall) -> ResultTimeoutError:
        place = self._pending.place_of(sent.id)
        where = "was not yet acknowledged by the broker" if place is None else f"is at {place} (partition-offset)"
        why = (
            unreachable_reason(self._cluster.connection)
            or "Does a worker serve this tenant? Check with `inferd doctor`"
        )
        return ResultTimeoutError(
            f"no result within {sent.deadline - sent.sent_at:g} s: request {sent.id} to {sent.call.model_id} {where} in"
            f" {self._cluster.topics.name('requests')}. {why}"
        )

    def _watched(self, sent: SentCall, reply: Future[Result]) -> None:
        if not reply.cancelled() and reply.exception() is None:
            self._retry(sent, reply.result())

    def _retry(self, sent: SentCall, result: Result) -> Task[Result] | None:
        """Start the retries of a call, once per call, if its failure may be transient."""
        if sent.retrying is None and isinstance(result, Failure) and (result.retryable or result.code in _NOT_FOUND):
            sent.retrying = asyncio.create_task(self._send_again(sent, result))
        return sent.retrying

    async def _send_again(self, first: SentCall, failure: Failure) -> Result:
        """Retry a call until its deadline; returns its result, or the last failure."""
        for pause_s in _pauses():
            left_s = first.deadline - time.monotonic() - pause_s
            if left_s <= 0 or not await self._may_pass(failure, first):
                break
            await asyncio.sleep(pause_s)
            again = await self.send(first.call, left_s)
            try:
                result = await self._reply(again)
            except ResultTimeoutError:
                break
            finally:
                self.abandon(again)
            if not isinstance(result, Failure):
                return result
            failure = result
        return failure

    async def _may_pass(self, failure: Failure, first: SentCall) -> bool:
        """Whether the failure may be transient.

        `model_not_found` is transient if the model is on the `models` topic: the worker may not have read it yet.
        """
        if failure.code not in _NOT_FOUND:
            return failure.retryable
        if time.monotonic() - first.sent_at > FOLLOW_S:
            return False
        try:
            models = await self._recent_models()
        except (ServerError, TimeoutError):  # the client may lack the right to read `models`
            return False
        return models.has(ModelReference.parse(first.call.model_id))

    async def _recent_models(self) -> ModelList:
        """The tenant's models, read at most once per second."""
        async with self._reading_models:
            read_at, models = self._models
            if time.monotonic() - read_at > MODELS_AGE_MAX_S:
                models = await self._model_log.read(MODELS_READ_TIMEOUT_S)
                self._models = time.monotonic(), models
            return models


def _pauses() -> Iterator[float]:
    pause_s = PAUSE_FIRST_S
    while True:
        yield pause_s
        pause_s = min(2 * pause_s, PAUSE_MAX_S)
