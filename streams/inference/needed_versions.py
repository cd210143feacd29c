"""Determines the version for each record of a micro-batch before scoring, so that it can be loaded first."""

from __future__ import annotations

from typing import Any

import msgspec

from inferd.schemas.codec import DECODE_ERRORS, parse_reference
from inferd.schemas.errors import InferenceError
from inferd.schemas.headers import NO_HEADERS, parse_request_headers
from inferd.schemas.protocols import Exchanges
from inferd.schemas.requests import ENVELOPE_DECODERS, ModelReference, default_id
from inferd.streams.inference.catalog import ModelCatalog, Version
from inferd.streams.inference.work import Record


class NeededVersions:
    """The versions for the records of one micro-batch."""

    def __init__(self, catalog: ModelCatalog, exchanges: Exchanges, now_ms: int) -> None:
        """`now_ms`: Unix milliseconds; a record whose deadline has passed needs no model."""
        self._catalog, self._exchanges, self._now_ms = catalog, exchanges, now_ms
        self._chosen: dict[str, Version | None] = {}
        """By model as records name it, unless the version depends on the record."""

    def of(self, partition: int, record: Record) -> Version | None:
        """The version that will score a record, loaded or not; None if the result is an error."""
        try:
            return self._of(partition, record)
        except (InferenceError, *DECODE_ERRORS):
            return None

    def model_of(self, partition: int, record: Record) -> str | None:
        """The name of the model that a record asks for, deployed or not; None if it names none."""
        try:
            envelope = self._envelope(partition, record)
            return None if envelope is None else parse_reference(envelope.model_id).name
        except (InferenceError, *DECODE_ERRORS):
            return None

    def _of(self, partition: int, record: Record) -> Version | None:
        headers = parse_request_headers(record.headers, self._exchanges.limits) if record.headers else NO_HEADERS
        if record.value is None or (headers.deadline_ms is not None and headers.deadline_ms < self._now_ms):
            return None
        if (envelope := self._envelope(partition, record)) is None:
            return None
        model_id = envelope.model_id
        if model_id not in self._chosen:
            reference = parse_reference(model_id)
            if self._catalog.splits(reference):
                given = default_id(partition, record.offset) if envelope.id is msgspec.UNSET else envelope.id
                return self._catalog.choose(reference, record.key or given.encode())
            self._chosen[model_id] = self._choose(reference)
        return self._chosen[model_id]

    def _envelope(self, partition: int, record: Record) -> Any:
        """The decoded request, without its rows; None if there is none."""
        headers = parse_request_headers(record.headers, self._exchanges.limits) if record.headers else NO_HEADERS
        if record.value is None:
            return None
        value, codec = record.value, headers.codec
        place = partition, record.offset, record.timestamp
        if (exchange := self._exchanges.open(headers, value, record.headers, *place)) is not None:
            if not isinstance(exchange.request, bytes):
                return None
            value, codec = exchange.request, exchange.codec
        return ENVELOPE_DECODERS[codec](value)

    def _choose(self, reference: ModelReference) -> Version | None:
        try:
            return self._catalog.choose(reference)
        except InferenceError:
            return None
