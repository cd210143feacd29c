"""Dead letters: a rejected record, unchanged, with headers that say why it was rejected.

If the record is too large for the topic, its largest parts are omitted. The dead letter then has their sizes and
digests, and topic, partition and offset of the original record.
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
"""The error headers, in the order in which they follow the original headers."""
OMITTED = PREFIX + "omitted"
"""The header that lists the omitted parts as JSON; it follows the other error headers."""
OMITTED_MAX = 16
"""Parts that are omitted one by one; after that, all remaining headers are omitted together."""
HEADERS_APART_MAX = 256
"""A record with more headers keeps either all of them or none."""
PART_CHARS_MAX = 80
OWN_BYTES_MAX = 8_192
"""Size of the error headers of a dead letter without omitted parts."""
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)


class Omitted(msgspec.Struct, frozen=True):
    """A part of the original record that the dead letter does not contain."""

    part: str
    """`value`, `key`, `header NAME`, or `headers` for several."""
    bytes: int
    sha256: str
    """Hexadecimal. For several headers: of their names and values, concatenated."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that `worker` rejected with `code`, and the topic, partition and offset it was read from."""

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
    """Omitted parts, largest first; empty if the record is complete."""

    def headers(self) -> Headers:
        """The headers of the dead letter: the original ones, byte for byte, then the error headers.

        A dead letter that was redriven and rejected again keeps the earlier error headers among the original ones.
        """
        texts = {field: str(getattr(self, field)) for field in FIELDS}
        own = [(PREFIX + field, text.encode("utf-8", "backslashreplace")) for field, text in texts.items()]
        if self.omitted:
            own.append((OMITTED, msgspec.json.encode(self.omitted)))
        return *self.original_headers, *own

    def trimmed(self, bytes_max: int) -> DeadLetter:
        """This dead letter, with its largest parts omitted until it has at most `bytes_max` bytes."""
        if self._bytes <= bytes_max:
            return self
        left = self._without_largest() if len(self.omitted) < OMITTED_MAX else self._without_headers()
        return left if left == self else left.trimmed(bytes_max)

    @property
    def _bytes(self) -> int:
        return record_bytes(self.key, self.value, self.headers())

    def _without_largest(self) -> DeadLetter:
        crowded = len(self.original_headers) > HEADERS_APART_MAX
        headers = (
            [_joined(self.original_headers)] if crowded else [_joined((header,)) for header in self.original_headers]
        )
        index = max(range(len(headers)), key=lambda index: len(headers[index]), default=None)
        largest = headers[index] if index is not None else b""
        value, key = self.value or b"", self.key or b""
        if not (value or key or largest):
            return self._without_headers()
        if len(value) >= max(len(key), len(largest)):
            return replace(self, value=None, omitted=(*self.omitted, _omitted("value", value)))
        if len(key) >= len(largest) or index is None:
            return replace(self, key=None, omitted=(*self.omitted, _omitted("key", key)))
        if crowded:
            return self._without_headers()
        name = self.original_headers[index][0][:PART_CHARS_MAX]
        left = self.original_headers[:index] + self.original_headers[index + 1 :]
        return replace(self, original_headers=left, omitted=(*self.omitted, _omitted(f"header {name}", largest)))

    def _without_headers(self) -> DeadLetter:
        if not self.original_headers:
            return self
        return replace(
            self, original_headers=(), omitted=(*self.omitted, _omitted("headers", _joined(self.original_headers)))
        )

    @classmethod
    def parse(cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
        """Parse a record of `dead-letters`. The last header of each error field is its own; all others are original.

        `MalformedError`, naming the header, if one is missing or invalid.
        """
        last = {name: index for index, (name, _) in enumerate(headers) if name.startswith(PREFIX)}
        indexes = {field: last[PREFIX + field] for field in FIELDS if PREFIX + field in last}
        own = set(indexes.values())
        omitted: tuple[Omitted, ...] = ()
        # An `omitted` header in front of the error headers belongs to an earlier dead letter of the same record.
        if last.get(OMITTED, -1) > max(own, default=-1):
            own.add(last[OMITTED])
            omitted = _read_omitted(headers[last[OMITTED]][1])
        texts = {field: _text(field, headers[indexes[field]][1] if field in indexes else None) for field in FIELDS}
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
            original_headers=tuple(header for index, header in enumerate(headers) if index not in own),
            omitted=omitted,
        )


def check_dead_letter_size(
    key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]], limits: Limits
) -> None:
    """`TooLargeError` for a record that does not fit in a dead letter without omissions."""
    size, allowed = record_bytes(key, value, headers), limits.dead_letter_bytes_max - OWN_BYTES_MAX
    if size > allowed:
        raise TooLargeError(f"record: key, value and headers have {size} bytes; at most {allowed} are allowed")


def _omitted(part: str, content: bytes) -> Omitted:
    return Omitted(part, len(content), sha256(content).hexdigest())


def _joined(headers: Headers) -> bytes:
    return b"".join([name.encode("utf-8", "surrogateescape") + (content or b"") for name, content in headers])


def _read_omitted(value: bytes | None) -> tuple[Omitted, ...]:
    try:
        return msgspec.json.decode(value or b"", type=tuple[Omitted, ...])
    except (msgspec.MsgspecError, UnicodeDecodeError) as error:
        raise MalformedError(f"dead letter: the header {OMITTED} is not a list of parts: {error}") from None


def _text(field: str, value: bytes | None) -> str:
    if value is None:
        raise MalformedError(f"dead letter: the header {PREFIX}{field} is missing; inferd did not write this record")
    try:
        return value.decode()
    except UnicodeDecodeError as error:
        raise MalformedError(f"dead letter: the header {PREFIX}{field} is not UTF-8: {error.reason}") from None


def _integer(field: str, texts: dict[str, str]) -> int:
    if not _INTEGER.fullmatch(texts[field]):
        raise MalformedError(f"dead letter: the header {PREFIX}{field} is not an integer: {texts[field][:80]!r}")
    return int(texts[field])
