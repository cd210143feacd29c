"""Dead letters: a refused record as it came, and why it was refused.

A record that is too large for the topic is kept without its largest parts; of those the dead letter has the sizes and
digests, beside the record's place in the log.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import sha256

import msgspec

from inferd.schemas.errors import MalformedError, TooLargeError
from inferd.schemas.limits import Limits
from inferd.schemas.record_size import record_bytes

Headers = tuple[tuple[str, bytes | None], ...]

PREFIX = "inferd-error-"
FIELDS = ("code", "message", "topic", "partition", "offset", "timestamp", "worker")
"""What the error headers say, in their order behind the original ones."""
OMITTED = PREFIX + "omitted"
"""The header that lists, as JSON, what a dead letter lacks of its record; it follows the other error headers."""
OMITTED_MAX = 16
"""Parts that are named one by one; beyond them, headers are omitted together."""
HEADERS_APART_MAX = 256
"""Of a record with more headers, all or none are kept."""
PART_CHARS_MAX = 80
OWN_BYTES_MAX = 8_192
"""The error headers of a dead letter that lacks nothing."""
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class Omitted(msgspec.Struct, frozen=True):
    """A part of a record that its dead letter lacks."""

    part: str
    """`value`, `key`, `header NAME`, or `headers` for several."""
    bytes: int
    sha256: str
    """In hexadecimal; of several headers, that of their names and values one after the other."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that was refused with `code`: where it was read, by whom, and its own key, value and headers."""

    code: str
    message: str
    topic: str
    partition: int
    offset: int
    timestamp: int
    """Of the original record, Unix milliseconds."""
    worker: str
    key: bytes | None = None
    value: bytes | None = None
    original_headers: Headers = ()
    omitted: tuple[Omitted, ...] = ()
    """What is missing of the record, the largest part first; empty where it was kept whole."""

    def headers(self) -> Headers:
        """The headers of the dead letter: the original ones byte for byte, and the error's behind them.

        A dead letter that was produced again and refused again keeps the earlier error's headers among the original.
        """
        texts = {field: str(getattr(self, field)) for field in FIELDS}
        own = [(PREFIX + field, text.encode("utf-8", "backslashreplace")) for field, text in texts.items()]
        if self.omitted:
            own.append((OMITTED, msgspec.json.encode(self.omitted)))
        return *self.original_headers, *own

    def fitted(self, bytes_max: int) -> DeadLetter:
        """This dead letter without as many of its largest parts as it takes to have at most `bytes_max`."""
        if self._bytes <= bytes_max:
            return self
        left = self._without_largest() if len(self.omitted) < OMITTED_MAX else self._without_headers()
        return left if left == self else left.fitted(bytes_max)

    @property
    def _bytes(self) -> int:
        return record_bytes(self.key, self.value, self.headers())

    def _without_largest(self) -> DeadLetter:
        crowded = len(self.original_headers) > HEADERS_APART_MAX
        headers = (
            [_joined(self.original_headers)] if crowded else [_joined((header,)) for header in self.original_headers]
        )
        place = max(range(len(headers)), key=lambda place: len(headers[place]), default=None)
        largest = headers[place] if place is not None else b""
        value, key = self.value or b"", self.key or b""
        if not (value or key or largest):
            return self._without_headers()
        if len(value) >= max(len(key), len(largest)):
            return replace(self, value=None, omitted=(*self.omitted, _omitted("value", value)))
        if len(key) >= len(largest) or place is None:
            return replace(self, key=None, omitted=(*self.omitted, _omitted("key", key)))
        if crowded:
            return self._without_headers()
        name = self.original_headers[place][0][:PART_CHARS_MAX]
        left = self.original_headers[:place] + self.original_headers[place + 1 :]
        return replace(self, original_headers=left, omitted=(*self.omitted, _omitted(f"header {name}", largest)))

    def _without_headers(self) -> DeadLetter:
        if not self.original_headers:
            return self
        return replace(
            self, original_headers=(), omitted=(*self.omitted, _omitted("headers", _joined(self.original_headers)))
        )

    @classmethod
    def parse(cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
        """The dead letter in a record; the last header of each error field is its own, all others are the original.

        `MalformedError`, naming the header, where one is missing or not what it must be.
        """
        last = {name: place for place, (name, _) in enumerate(headers) if name.startswith(PREFIX)}
        places = {field: last[PREFIX + field] for field in FIELDS if PREFIX + field in last}
        own = set(places.values())
        omitted: tuple[Omitted, ...] = ()
        # One before the error headers belongs to an earlier dead letter of the record.
        if last.get(OMITTED, -1) > max(own, default=-1):
            own.add(last[OMITTED])
            omitted = _read_omitted(headers[last[OMITTED]][1])
        texts = {field: _text(field, headers[places[field]][1] if field in places else None) for field in FIELDS}
        return cls(
            code=texts["code"],
            message=texts["message"],
            topic=texts["topic"],
            partition=_integer("partition", texts),
            offset=_integer("offset", texts),
            timestamp=_integer("timestamp", texts),
            worker=texts["worker"],
            key=key,
            value=value,
            original_headers=tuple(header for place, header in enumerate(headers) if place not in own),
            omitted=omitted,
        )


def check_keepable(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]], limits: Limits
) -> None:
    """`TooLargeError` for a record that its dead letter could not keep whole."""
    size, allowed = record_bytes(key, value, headers), limits.dead_letter_bytes_max - OWN_BYTES_MAX
    if size > allowed:
        raise TooLargeError(f"record: key, value and headers have {size} bytes, and {allowed} are allowed")


def _omitted(part: str, content: bytes) -> Omitted:
    return Omitted(part, len(content), sha256(content).hexdigest())


def _joined(headers: Headers) -> bytes:
    return b"".join([name.encode("utf-8", "surrogateescape") + (content or b"") for name, content in headers])


def _read_omitted(value: bytes | None) -> tuple[Omitted, ...]:
    try:
        return msgspec.json.decode(value or b"", type=tuple[Omitted, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(f"dead letter: the header {OMITTED} is no list of parts: {error}") from None


def _text(field: str, value: bytes | None) -> str:
    if value is None:
        raise MalformedError(f"dead letter: the header {PREFIX}{field} is missing; such records are not inferd's")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"dead letter: the header {PREFIX}{field} is not UTF-8: {error.reason}") from None


def _integer(field: str, texts: dict[str, str]) -> int:
    if not _INTEGER.fullmatch(texts[field]):
        raise MalformedError(f"dead letter: the header {PREFIX}{field} is no integer: {texts[field][:80]!r}")
    return int(texts[field])
