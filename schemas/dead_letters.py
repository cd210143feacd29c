"""Dead letters: a refused record as it came, and why it was refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from schemas.errors import MalformedError

Headers = tuple[tuple[str, bytes | None], ...]

PREFIX = "inferd-error-"
FIELDS = ("code", "message", "topic", "partition", "offset", "timestamp", "worker")
"""What the error headers say, in their order behind the original ones."""
_INTEGER = re.compile(r"-?[0-9]{1,19}", re.ASCII)


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

    def headers(self) -> Headers:
        """The headers of the dead letter: the original ones byte for byte, and the error's behind them.

        A dead letter that was produced again and refused again keeps the earlier error's headers among the original.
        """
        texts = {field: str(getattr(self, field)) for field in FIELDS}
        own = [(PREFIX + field, text.encode("utf-8", "backslashreplace")) for field, text in texts.items()]
        return *self.original_headers, *own

    @classmethod
    def parse(cls, key: bytes | None, value: bytes | None, headers: Sequence[tuple[str, bytes | None]]) -> DeadLetter:
        """The dead letter in a record; the last header of each error field is its own, all others are the original.

        `MalformedError`, naming the header, where one is missing or not what it must be.
        """
        last = {name: place for place, (name, _) in enumerate(headers) if name.startswith(PREFIX)}
        places = {field: last[PREFIX + field] for field in FIELDS if PREFIX + field in last}
        own = set(places.values())
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
        )


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
