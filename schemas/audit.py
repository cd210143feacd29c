"""Records of the audit topic: who changed what, when and from where."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from inferd.schemas.codecs import JSON
from inferd.schemas.errors import MalformedError

Action = Literal[
    "deploy",
    "baseline",
    "alias",
    "remove",
    "rollout",
    "route",
    "cancel",
    "retry",
    "redrive",
    "pause",
    "resume",
    "offsets",
    "grow",
    "replay",
]
HEADERS = (JSON.header,)
"""The headers of a record of `audit`."""
RECORD_BYTES_MAX = 131_072
TEXT_CHARS_MAX = 500
"""Longer texts are cut."""
DETAILS_MAX = 20


class AuditRecord(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One action that was accepted, in JSON."""

    at: int
    """Unix milliseconds."""
    action: Action | str
    """One of `Action`; newer versions may write others."""
    subject: str
    """What was changed: `churn:4`, `churn@champion`, a job, a topic."""
    by: str
    """Who did it: the name of an HTTP token, or user and machine of a Kafka client."""
    origin: str
    """Where it came from: `http <address>`, or `kafka <client id>`."""
    details: Mapping[str, str] = {}
    """Options of the action, such as the alias's target."""
    letters: Mapping[str, Sequence[tuple[int, int]]] = {}
    """Of a redrive: first and last offset of each range of dead letters that were sent again, by partition number."""


_decoder = msgspec.json.Decoder(AuditRecord)


def encode_audit(record: AuditRecord) -> bytes:
    """The value of a record of `audit`; texts longer than `TEXT_CHARS_MAX` are cut."""
    short = msgspec.structs.replace(
        record,
        subject=record.subject[:TEXT_CHARS_MAX],
        by=record.by[:TEXT_CHARS_MAX],
        origin=record.origin[:TEXT_CHARS_MAX],
        details={name: text[:TEXT_CHARS_MAX] for name, text in list(record.details.items())[:DETAILS_MAX]},
    )
    return JSON.encode(short)


def decode_audit(value: bytes | None) -> AuditRecord:
    """The action in a record's value; `MalformedError` if there is none."""
    try:
        return _decoder.decode(value or b"")
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise MalformedError(f"not an audit record: {error}") from None
