"""Exchanges: a request of another protocol as one of ours, and the way of its result back."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from inferd.schemas.cloud_events import (
    RELATED,
    Attribute,
    Place,
    attributes_of_headers,
    attributes_of_result,
    decode_event,
    encode_event,
    headers_of_attributes,
    is_event,
    source_of,
)
from inferd.schemas.codecs import CONTENT_TYPE, JSON, MSGPACK, Codec
from inferd.schemas.errors import InferenceError, InvalidHeaderError, MalformedError, UnsupportedContentTypeError
from inferd.schemas.headers import CLOUD_EVENT, JSON_LENGTH, OPEN_INFERENCE, RequestHeaders, parse_media_type
from inferd.schemas.limits import Limits
from inferd.schemas.open_inference import encode_answer, open_record

Headers = Sequence[tuple[str, bytes | None]]


@dataclass(frozen=True, slots=True)
class Answer:
    """The value of a result, and the headers that describe it; the content-type is the first."""

    value: bytes
    headers: tuple[tuple[str, bytes], ...]


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request."""

    request: bytes | InferenceError | None
    """Our request, encoded with `codec`; or why there is none."""
    codec: Codec
    answer: Callable[[bytes], Answer]
    """The answer for our result, encoded with `codec`."""
    model_id: str | None = None
    """The model reference, if it is known although there is no request."""


@dataclass(frozen=True, slots=True)
class Exchanges:
    """Opens the requests of a topic."""

    limits: Limits
    group: str = "inferd"
    """Consumer group of the workers: the `source` of events."""
    topic: str = "requests"

    def open(
        self, parsed: RequestHeaders, value: bytes | None, headers: Headers, partition: int, offset: int, timestamp: int
    ) -> Exchange | None:
        """The exchange for a record with these headers; None if it is a request of ours.

        An invalid request has an exchange, too, so that the answer with its error is in kind.
        """
        if parsed.protocol is None and not parsed.attributes:
            return None
        place = Place(source_of(self.group), self.topic, partition, offset, timestamp)
        if parsed.protocol == CLOUD_EVENT:
            return self._structured(value, headers, place, parsed)
        if is_event(name for name, _ in parsed.attributes):
            return self._binary(value, headers, place, parsed)
        return self._plain(value, headers, parsed) if parsed.protocol is not None else None

    def _plain(self, value: bytes | None, headers: Headers, parsed: RequestHeaders, *, binary: bool = True) -> Exchange:
        """A request in one of the codecs, or of the Open Inference Protocol."""
        if parsed.protocol is None:
            return Exchange(value, parsed.codec, lambda result: Answer(result, (parsed.codec.header,)))
        if parsed.protocol != OPEN_INFERENCE:
            raise UnsupportedContentTypeError(f"CloudEvent: its data is an event again ({parsed.protocol})")
        opened = open_record(value, headers, self.limits, binary=binary)
        request = opened.value
        if parsed.row_errors and not isinstance(request, InferenceError):
            request = InvalidHeaderError("header row-errors: a request of the protocol fails as a whole; omit it")

        def answer(result: bytes) -> Answer:
            data, length = encode_answer(result, opened.asked, self.limits, binary=binary)
            described = ((CONTENT_TYPE, OPEN_INFERENCE.encode()),)
            return Answer(data, described if length is None else (*described, (JSON_LENGTH, b"%d" % length)))

        return Exchange(request, MSGPACK, answer, opened.model_id)

    def _binary(self, value: bytes | None, headers: Headers, place: Place, parsed: RequestHeaders) -> Exchange:
        inner = self._plain(value, headers, parsed)
        request = inner.request
        asked: dict[str, Attribute] = {}
        try:
            asked = attributes_of_headers(parsed.attributes)
        except InferenceError as error:
            request = error

        def answer(result: bytes) -> Answer:
            # The id of the request is a propagated header: `ce_relatedid`.
            attributes = headers_of_attributes(attributes_of_result(place, result, inner.codec, asked))
            data = inner.answer(result)
            return Answer(data.value, (*data.headers, *attributes))

        return Exchange(request, inner.codec, answer, inner.model_id)

    def _structured(self, value: bytes | None, headers: Headers, place: Place, parsed: RequestHeaders) -> Exchange:
        inner = Exchange(None, JSON, lambda result: Answer(result, (JSON.header,)))
        error: InferenceError | None = None
        asked: dict[str, Attribute] = {}
        related: dict[str, Attribute] = {}
        try:
            event = decode_event(value, self.limits)
            asked, related = event.attributes, {RELATED: event.attributes["id"]}
            inner = self._data(event.data, event.attributes.get("datacontenttype"), headers, parsed, event.is_json)
        except InferenceError as caught:
            error = caught

        def answer(result: bytes) -> Answer:
            data = inner.answer(result)
            attributes = attributes_of_result(place, result, inner.codec, asked) | related
            event = encode_event(attributes, data.value, data.headers[0][1].decode())
            return Answer(event, ((CONTENT_TYPE, CLOUD_EVENT.encode()),))

        return Exchange(error or inner.request, inner.codec, answer, inner.model_id)

    def _data(
        self, data: bytes | None, data_type: object, headers: Headers, parsed: RequestHeaders, is_json: bool
    ) -> Exchange:
        """The exchange for the data of an event in structured mode."""
        media = parse_media_type(str(data_type).encode()) if data_type is not None else JSON if is_json else MSGPACK
        if is_json and isinstance(media, Codec) and media is not JSON:
            raise MalformedError(f"CloudEvent: data of type {media.content_type} is sent in data_base64")
        protocol, codec = (media, MSGPACK) if isinstance(media, str) else (None, media)
        inner = RequestHeaders(codec, protocol=protocol, row_errors=parsed.row_errors)
        return self._plain(data, headers, inner, binary=False)
