"""The decoders of batch jobs as targets: messages, and statuses as clients read them."""

from __future__ import annotations

import json
from functools import partial
from typing import Any

import msgspec

from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.jobs.codec import decode_job_message
from inferd.schemas.jobs.status_codec import decode_status
from inferd.schemas.limits import DEFAULT_LIMITS
from tests.fuzz.mutators import SHAPES
from tests.fuzz.target import Target

CODECS: tuple[Codec, ...] = (MSGPACK, JSON)
ROWS = ([[1.5, 2], [None, "AA"]], [{"a": 1.0, "b": True}], [1.0, 2.0], {"a": 1})
OPEN = {"model_id": "m@champion", "outputs": ["raw"], "row_count": 4, "chunk_rows": 2, "deadline": 10**12, "labels": {}}
GOOD: tuple[dict[str, Any], ...] = (
    {"type": "open", **OPEN},
    {"type": "open", "model_id": "m:3", "labels": {"team": "é"}},
    *({"type": "rows", "seq": seq, "input_batch": rows} for seq, rows in enumerate(ROWS)),
    *({"type": "submit", **OPEN, "input_batch": rows} for rows in ROWS),
    {"type": "close", "message_count": 4},
    {"type": "cancel"},
    {"type": "retry"},
)
BAD: tuple[dict[str, Any], ...] = (
    {"type": "other"},
    {"model_id": "m"},
    {"type": "open", "model_id": "../m"},
    {"type": "open", "model_id": "m", "deadline": -1},
    {"type": "open", "model_id": "m", "chunk_rows": 0},
    {"type": "rows", "seq": -1, "input_batch": [[1.0]]},
    {"type": "rows", "seq": 0},
    {"type": "close", "message_count": 2**60},
    {"type": "cancel", "why": 1},
)
STATUS = {
    "job_id": "j",
    "status": "completed",
    "model_id": "m",
    "version": 1,
    "digest": "0" * 64,
    "input_count": 4,
    "processed": 4,
    "succeeded": 4,
    "failed": 0,
    "chunks_total": 2,
    "chunks_done": 2,
    "submitted_at": 1,
    "started_at": 2,
    "updated_at": 3,
    "finished_at": 4,
}


def targets() -> list[Target]:
    """Every decoder of jobs."""
    return [target for codec in CODECS for target in (_message(codec), _status(codec))]


def _message(codec: Codec) -> Target:
    return Target(
        f"job-message-{codec}",
        SHAPES[codec],
        partial(decode_job_message, codec=codec, limits=DEFAULT_LIMITS),
        partial(_encoded, (*GOOD, *BAD), codec),
        weight=2.0,
    )


def _status(codec: Codec) -> Target:
    wrong: tuple[dict[str, Any], ...] = (
        {**STATUS, "status": "odd"},
        {**STATUS, "processed": "4"},
        {**STATUS, "error": {"code": 1}},
        {},
    )
    return Target(
        f"job-status-{codec}",
        SHAPES[codec],
        partial(decode_status, codec=codec),
        partial(_encoded, (STATUS, *wrong), codec),
    )


def _encoded(values: tuple[Any, ...], codec: Codec) -> list[bytes]:
    return [msgspec.msgpack.encode(value) if codec is MSGPACK else json.dumps(value).encode() for value in values]
