"""Pending requests: matches results to requests. No I/O."""

from __future__ import annotations

import asyncio
import logging
import secrets
from asyncio import Future
from collections import OrderedDict
from collections.abc import Callable

from inferd.schemas.codecs import Codec
from inferd.schemas.errors import InferenceError
from inferd.schemas.requests import Failure, Result, default_id

logger = logging.getLogger(__name__)

EARLY_FAILURES_MAX = 1_024
_FAILURE_MARK = b"error"

Decode = Callable[[bytes, Codec], Result]


class PendingRequests:
    """The pending requests of one client, by id.

    Ids are `<client id>-<n>` with a random client id, so that results of other clients are recognised without decoding
    them. If a worker cannot decode a request's id, its error result has the id `<partition>-<offset>` instead. Such a
    failure is matched by the partition and offset in the broker's acknowledgement, whichever of the two arrives first.
    """

    def __init__(self, decode: Decode, client_id: str | None = None) -> None:
        self.client_id = client_id or secrets.token_hex(8)
        self._decode = decode
        self._mark = self.client_id.encode()
        self._count = 0
        self._waiting: dict[str, Future[Result]] = {}
        self._id_at: dict[str, str] = {}
        self._place_of: dict[str, str] = {}
        self._early: OrderedDict[str, Failure] = OrderedDict()

    def __len__(self) -> int:
        return len(self._waiting)

    def next_id(self) -> str:
        """A new request id."""
        self._count += 1
        return f"{self.client_id}-{self._count}"

    def expect(self, request_id: str) -> Future[Result]:
        """The future of the request's result."""
        reply: Future[Result] = asyncio.get_running_loop().create_future()
        self._waiting[request_id] = reply
        return reply

    def note_place(self, request_id: str, partition: int, offset: int) -> None:
        """Record the partition and offset of an acknowledged request."""
        if request_id not in self._waiting:
            return
        place = default_id(partition, offset)
        self._id_at[place] = request_id
        self._place_of[request_id] = place
        if (failure := self._early.pop(place, None)) is not None:
            self._answer(request_id, failure)

    def place_of(self, request_id: str) -> str | None:
        """`<partition>-<offset>` of a request; None if it is not acknowledged yet."""
        return self._place_of.get(request_id)

    def take(self, value: bytes | None, codec: Codec) -> None:
        """Process one record of the results topic; repeats and results of other clients are ignored."""
        if value is None:
            return
        if self._mark in value:
            self._take_own(value, codec)
        elif _FAILURE_MARK in value and self._waiting:
            self._take_failure_by_place(value, codec)

    def settle(self, result: Result) -> None:
        """Complete the request that the result names."""
        self._answer(result.id, result)

    def fail(self, request_id: str, error: BaseException) -> None:
        """Fail a request."""
        reply = self._forget(request_id)
        if reply is not None and not reply.done():
            reply.set_exception(error)

    def fail_all(self, error: BaseException) -> None:
        """Fail all pending requests."""
        for request_id in list(self._waiting):
            self.fail(request_id, error)

    def forget(self, request_id: str) -> None:
        """Remove a request; its result will be ignored."""
        self._forget(request_id)

    def _take_own(self, value: bytes, codec: Codec) -> None:
        result = self._decoded(value, codec)
        if result is not None:
            self.settle(result)

    def _take_failure_by_place(self, value: bytes, codec: Codec) -> None:
        result = self._decoded(value, codec)
        if not isinstance(result, Failure):
            return
        request_id = self._id_at.get(result.id)
        if request_id is not None:
            self._answer(request_id, result)
        elif len(self._place_of) < len(self._waiting):
            self._early[result.id] = result
            if len(self._early) > EARLY_FAILURES_MAX:
                self._early.popitem(last=False)

    def _decoded(self, value: bytes, codec: Codec) -> Result | None:
        try:
            return self._decode(value, codec)
        except InferenceError as error:
            logger.warning("cannot decode a record of the results topic: %s", error)
            return None

    def _answer(self, request_id: str, result: Result) -> None:
        reply = self._forget(request_id)
        if reply is not None and not reply.done():
            reply.set_result(result)

    def _forget(self, request_id: str) -> Future[Result] | None:
        place = self._place_of.pop(request_id, None)
        if place is not None:
            self._id_at.pop(place, None)
        return self._waiting.pop(request_id, None)
