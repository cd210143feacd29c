"""Records of `dead-letters` for people: summaries and details."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from inferd.daemon.value_view import view_of
from inferd.schemas.dead_letters import DeadLetter, Headers
from inferd.schemas.errors import MalformedError

if TYPE_CHECKING:
    from aiokafka import ConsumerRecord


@dataclass(frozen=True, slots=True)
class Entry:
    """A record of `dead-letters`. If it is not a valid dead letter, `letter` is None and `problem` has the reason."""

    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value_bytes: int
    value: bytes | None
    """None also if only a summary is read."""
    headers: Headers
    """Headers of the original record, without the error headers."""
    letter: DeadLetter | None
    problem: str | None

    @classmethod
    def of(cls, record: ConsumerRecord[bytes | None, bytes | None], *, with_value: bool) -> Entry:
        """Decodes a record."""
        value = record.value if with_value else None
        letter, problem = None, None
        headers: Headers = tuple(record.headers)
        try:
            letter = DeadLetter.parse(record.key, value, record.headers)
            headers = letter.original_headers
        except MalformedError as error:
            problem = error.message
        size = len(record.value or b"")
        return cls(record.partition, record.offset, record.timestamp, record.key, size, value, headers, letter, problem)


def summary_of(entry: Entry) -> dict[str, Any]:
    """Where it is, and why it was rejected."""
    letter = entry.letter
    summary = {
        "partition": entry.partition,
        "offset": entry.offset,
        "timestamp": entry.timestamp_ms,
        "key": text_of(entry.key),
        "value_bytes": entry.value_bytes,
    }
    if letter is None:
        return summary | {"problem": entry.problem}
    return summary | {
        "code": letter.code,
        "message": letter.message,
        "source": {
            "topic": letter.topic,
            "partition": letter.partition,
            "offset": letter.offset,
            "timestamp": letter.timestamp,
        },
        "worker": letter.worker,
        "omitted": [{"part": part.part, "bytes": part.bytes, "sha256": part.sha256} for part in letter.omitted],
    }


def details_of(entry: Entry) -> dict[str, Any]:
    """The summary, and the headers and the value of the original record."""
    view = view_of(entry.value)
    return summary_of(entry) | {
        "headers": [[name, text_of(value)] for name, value in entry.headers],
        "value_base64": entry.value,
        "value_format": view.format,
        "value": view.value,
    }


def text_of(value: bytes | None) -> str | None:
    """A key or a header as text."""
    return None if value is None else value.decode("utf-8", "backslashreplace")
