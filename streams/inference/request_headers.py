"""Reads the keys and headers of the requests of a micro-batch, and opens requests in other protocols."""

from __future__ import annotations

from collections.abc import Collection, Sequence

import msgspec
import numpy as np
from numpy.typing import NDArray

from inferd.schemas.codec import request_identity
from inferd.schemas.codecs import MSGPACK, Codec
from inferd.schemas.dead_letters import check_dead_letter_size
from inferd.schemas.errors import DeadlineExceededError, InferenceError, ReplyToRefusedError, TooLargeError
from inferd.schemas.headers import NO_HEADERS, RequestHeaders, parse_request_headers, salvage_headers
from inferd.schemas.limits import Limits
from inferd.schemas.protocols import Exchanges
from inferd.streams.inference.encoded_headers import EncodedHeaders, Headers
from inferd.streams.inference.micro_batch import MicroBatch
from inferd.streams.inference.record_block import RecordBlock, group_headers
from inferd.streams.inference.work import Record


class HeaderReader:
    """Decides by key and headers which requests are decoded, and in which codec."""

    def __init__(self, limits: Limits, exchanges: Exchanges, reply_to_allowed: Collection[str]) -> None:
        self.limits = limits
        self._exchanges = exchanges
        self._reply_to_allowed = frozenset(reply_to_allowed)

    def by_codec(self, batch: MicroBatch, now_ms: int, others: list[int]) -> dict[Codec, list[int]]:
        """The records that may be decoded together, in their order; rejects those with an invalid key or headers."""
        if isinstance(batch.records, RecordBlock):
            return self._of_block(batch, batch.records, now_ms, others)
        by_codec: dict[Codec, list[int]] = {}
        for index in range(len(batch.records)):
            self._add_codec(batch, index, now_ms, by_codec, others)
        return by_codec

    def _of_block(
        self, batch: MicroBatch, block: RecordBlock, now_ms: int, others: list[int]
    ) -> dict[Codec, list[int]]:
        """Like `by_codec`, with one look at all records that have the same headers."""
        by_codec: dict[Codec, list[int]] = {}
        usual = block.columns["key_length"] <= self.limits.key_bytes_max
        groups, propagated = self._grouped(block, usual, now_ms)
        for given, indexes in groups.items():
            headers = self._usual_headers(given, now_ms) if given else NO_HEADERS
            if headers is None:
                usual[indexes] = False
                continue
            kept = indexes if usual.all() else [index for index in indexes if usual[index]]
            by_codec.setdefault(headers.codec, []).extend(kept)
            if given or propagated is not None:
                batch.headers |= dict.fromkeys(kept, headers)
        unusual = np.flatnonzero(~usual).tolist()
        if propagated is not None:
            batch.propagated = propagated.without(unusual)
        for index in unusual:
            self._add_codec(batch, index, now_ms, by_codec, others)
        return {codec: sorted(indexes) for codec, indexes in by_codec.items()}

    def _grouped(
        self, block: RecordBlock, usual: NDArray[np.bool_], now_ms: int
    ) -> tuple[dict[Headers, list[int]], EncodedHeaders | None]:
        """The records with the same headers. If many differ, only those that inferd reads are compared, and the others
        come as columns; records that must be read one by one become unusual, and may be in any group."""
        if not block.columns["headers"].any():
            return {(): list(range(len(block)))}, None
        if (groups := block.by_few_headers()) is not None:
            return groups, None
        split = block.split_headers(self.limits)
        usual &= split.split & ((split.deadlines < 0) | (split.deadlines >= now_ms))
        propagated = EncodedHeaders(split.propagated, split.propagated_counts, split.may_be_sampled)
        return group_headers(split.rest, split.rest_counts), propagated

    def _usual_headers(self, given: Sequence[tuple[str, bytes | None]], now_ms: int) -> RequestHeaders | None:
        """The headers of a request of ours that can be answered; None for any other."""
        try:
            headers = parse_request_headers(given, self.limits)
        except InferenceError:
            return None
        foreign = headers.protocol is not None or headers.attributes
        return None if foreign or self._rejection(headers, now_ms) is not None else headers

    def _add_codec(
        self, batch: MicroBatch, index: int, now_ms: int, by_codec: dict[Codec, list[int]], others: list[int]
    ) -> None:
        record = batch.records[index]
        if record.key is not None and len(record.key) > self.limits.key_bytes_max:
            self._reject_key(batch, index, len(record.key))
        elif record.headers:
            codec = self._codec_of(batch, index, record, now_ms)
            if codec is not None:
                by_codec.setdefault(codec, []).append(index)
        elif getattr(record, "rejection", None) is not None:
            others.append(index)
        else:
            by_codec.setdefault(MSGPACK, []).append(index)

    def _reject_key(self, batch: MicroBatch, index: int, size: int) -> None:
        """Rejects a key that is too long for a result; the answer has no key."""
        self.salvage(batch, index, batch.records[index])
        error = TooLargeError(f"key: {size} bytes, and {self.limits.key_bytes_max} are allowed; the result has no key")
        batch.fail(index, error, None, None)

    def _codec_of(self, batch: MicroBatch, index: int, record: Record, now_ms: int) -> Codec | None:
        """Reads the headers. Returns the codec, or None if the record was rejected because of its headers."""
        try:
            check_readable(record)
            headers = parse_request_headers(record.headers, self.limits)
        except InferenceError as error:
            self.salvage(batch, index, record)
            batch.fail(index, self._too_large(record) or error, None, None)
            return None
        batch.headers[index] = headers
        if (headers.protocol is not None or headers.attributes) and not self._open(batch, index, record, headers):
            return None
        headers = batch.headers[index]
        if (rejection := self._rejection(headers, now_ms)) is not None:
            # The error must not go to the topic that was rejected: remove `reply-to` from the headers.
            batch.headers[index] = msgspec.structs.replace(headers, reply_to=None) if headers.reply_to else headers
            codec = batch.headers_of(index).codec
            batch.fail(index, rejection, *request_identity(record.value, codec, self.limits))
            return None
        return headers.codec

    def _open(self, batch: MicroBatch, index: int, record: Record, headers: RequestHeaders) -> bool:
        """Replaces a request in another protocol by one of ours; rejects it, and returns False, if it is invalid."""
        place = batch.partition_of(index), record.offset, record.timestamp
        exchange = self._exchanges.open(headers, record.value, record.headers, *place)
        if exchange is None:
            return True
        if not isinstance(exchange.request, InferenceError):
            batch.exchange(index, exchange, exchange.request)
            return True
        batch.exchange(index, exchange, None)
        batch.fail(index, exchange.request, None, exchange.model_id)
        return False

    def salvage(self, batch: MicroBatch, index: int, record: Record) -> None:
        """Prepares the answer to a record that was rejected before its value is read."""
        headers = batch.headers[index] = salvage_headers(record.headers, self.limits)
        place = batch.partition_of(index), record.offset, record.timestamp
        exchange = self._exchanges.open(headers, record.value, record.headers, *place)
        if exchange is not None:
            batch.exchange(index, exchange, None)

    def _too_large(self, record: Record) -> TooLargeError | None:
        try:
            check_dead_letter_size(record.key, record.value, record.headers, self.limits)
        except TooLargeError as error:
            return error
        return None

    def _rejection(self, headers: RequestHeaders, now_ms: int) -> InferenceError | None:
        """The error that follows from the headers alone; None if there is none."""
        if headers.reply_to is not None and headers.reply_to not in self._reply_to_allowed:
            return ReplyToRefusedError(
                f"header reply-to: {headers.reply_to!r} is not on the list of allowed topics (INFERD_REPLY_TO_ALLOWED)"
            )
        if headers.deadline_ms is not None and headers.deadline_ms < now_ms:
            return _too_late(headers.deadline_ms)
        return None


def check_readable(record: Record) -> None:
    """Raises the error of a record that was rejected when it was fetched."""
    rejection: InferenceError | None = getattr(record, "rejection", None)
    if rejection is not None:
        raise rejection


def _too_late(deadline_ms: int) -> DeadlineExceededError:
    # The message does not say by how much: after a crash, a repeated answer must have the same bytes.
    return DeadlineExceededError(f"the deadline, {deadline_ms} ms since 1970, passed before the request was scored")
