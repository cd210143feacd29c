"""Packing NDJSON into job messages: deterministic, bounded, and strict about each line."""

from __future__ import annotations

import itertools
import json
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.daemon.http.routes.jobs_upload import ENVELOPE_BYTES, LinePacker, row_messages
from inferd.schemas.codecs import JSON
from inferd.schemas.errors import InvalidValueError, ModelServingError, TooLargeError
from inferd.schemas.jobs.codec import decode_job_message
from inferd.schemas.jobs.job import JobRows
from inferd.schemas.limits import DEFAULT_LIMITS

BYTES_MAX = 120
LIMITS = replace(DEFAULT_LIMITS, message_bytes_max=ENVELOPE_BYTES + BYTES_MAX, job_message_rows_max=9)
TEXTS = st.text('a,[{"\\é', max_size=4)
ROW = st.lists(st.integers(-999, 999), max_size=6) | st.dictionaries(st.sampled_from("abc"), TEXTS)
ROWS = st.lists(ROW, max_size=60)


async def collect(pieces: Sequence[bytes], packer: LinePacker) -> list[bytes]:
    async def body() -> AsyncIterator[bytes]:
        for piece in pieces:
            yield piece

    return [message async for message in row_messages(body(), packer)]


def cut(data: bytes, places: Sequence[int]) -> Iterator[bytes]:
    edges = [0, *sorted(place % (len(data) + 1) for place in places), len(data)]
    return (data[start:stop] for start, stop in itertools.pairwise(edges) if start < stop)


def read(messages: Sequence[bytes]) -> list[Any]:
    """The rows of messages; checks their order and their limits."""
    rows: list[Any] = []
    for seq, message in enumerate(messages):
        decoded = decode_job_message(message, JSON, DEFAULT_LIMITS)
        assert isinstance(decoded, JobRows)
        assert (decoded.seq, len(message) <= BYTES_MAX + ENVELOPE_BYTES) == (seq, True)
        assert 0 < decoded.batch.count <= LIMITS.job_message_rows_max
        rows += json.loads(decoded.batch.cut(0, decoded.batch.count))
    return rows


@given(
    ROWS,
    st.lists(st.integers(0, 5_000), max_size=8),
    st.sampled_from([b"\n", b"\r\n", b" \n\n"]),
    st.booleans(),
    st.integers(1, 12),
)
async def test_messages_contain_the_rows_however_the_body_is_split(
    rows: list[Any], places: list[int], end: bytes, last_end: bool, block_rows: int
) -> None:
    body = end.join(json.dumps(row).encode() for row in rows) + (end if last_end else b"")
    messages = await collect([*cut(body, places)], LinePacker(LIMITS, block_rows))
    assert read(messages) == rows
    assert messages == await collect([body], LinePacker(LIMITS, block_rows))


async def test_arrays_of_rows_are_flattened_and_a_byte_order_mark_is_ignored() -> None:
    body = b'\xef\xbb\xbf[[1],[2]]\r\n[]\n [ {"a": 1} , {"a":2} ]\n[3]'
    messages = await collect([body], LinePacker(LIMITS, 4))
    assert read(messages) == [[1], [2], [], {"a": 1}, {"a": 2}, [3]]
    assert messages == await collect([body[:2], body[2:9], body[9:]], LinePacker(LIMITS, 4))
    for wrong in (b"[[1],2]", b'[{"a":1},"x"]', b"[[1],[2]"):
        with pytest.raises(InvalidValueError, match="line 2: "):
            await collect([b"[1]\n", wrong], LinePacker(LIMITS, 4))


async def test_full_messages_consist_of_whole_blocks() -> None:
    messages = await collect([b"[1]\n" * 25], LinePacker(LIMITS, 4))
    counts = [message.count(b"[1]") for message in messages]
    assert (counts[:-1], sum(counts)) == ([8] * (len(counts) - 1), 25)


@pytest.mark.parametrize(
    ("body", "error", "line"),
    [
        (b"[1]\n[2\n[3]", InvalidValueError, "line 2"),
        (b"[1\n2],[3]\n", InvalidValueError, "line 1"),
        (b"[1],[2]\n", InvalidValueError, "line 1"),
        (b"[1]\n\n7\n", InvalidValueError, "line 3"),
        (b"[NaN]\n", InvalidValueError, "line 1"),
        (b"[1]\n" * 9 + b"]", InvalidValueError, "line 10"),
        (b"[1]\n[" + b"1," * 200 + b"1]", TooLargeError, "line 2"),
        (b"[1]\n[" + b" " * 200, TooLargeError, "line 2"),
    ],
)
async def test_an_invalid_line_is_named(body: bytes, error: type[ModelServingError], line: str) -> None:
    with pytest.raises(error, match=line):
        await collect([body[:5], body[5:]], LinePacker(LIMITS))
