"""Cutting the messages of a job into chunks, and the records that are sent to the scorers."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.jobs import Chunk, RowBatch, Source
from inferd.schemas.limits import Limits
from inferd.streams.jobs.state.places import place_of
from inferd.streams.jobs.state.state import CHUNK, JobState, Records


def chunk_count(rows: int, chunk_rows: int) -> int:
    """Number of chunks for a message of `rows` rows."""
    return -(-rows // chunk_rows)


def chunks_of(messages: Records, chunk_rows: int, first_seq: int = 0, first_row: int = 0) -> Records:
    """The chunks of consecutive messages from `first_seq` on, in row order; none is done."""
    rows = messages["rows"].astype(np.int64)
    counts = -(-rows // chunk_rows)
    message = np.repeat(np.arange(len(rows)), counts)
    nth = np.arange(len(message)) - np.repeat(np.cumsum(counts) - counts, counts)
    chunks: Records = np.zeros(len(message), CHUNK)
    chunks["seq"] = first_seq + message
    chunks["start"] = nth * chunk_rows
    chunks["rows"] = np.minimum(chunk_rows, rows[message] - chunks["start"])
    chunks["first_row"] = first_row + (np.cumsum(rows) - rows)[message] + chunks["start"]
    chunks["result"] = -1
    return chunks


def arrived_until(state: JobState) -> int:
    """The first message from `next_seq` on that has not arrived."""
    absent = np.flatnonzero(state.messages["offset"][state.next_seq :] < 0)
    return state.next_seq + int(absent[0]) if len(absent) else len(state.messages)


def chunk_records(
    state: JobState,
    places: Iterable[int],
    partition: int,
    limits: Limits,
    inline: tuple[int, RowBatch] | None = None,
) -> Iterator[Chunk]:
    """The records of chunks. Those of message `inline` (its `seq` and rows) carry their rows if these fit; the others
    say where to read them."""
    for place in places:
        chunk = state.chunks[place]
        seq, start, rows = int(chunk["seq"]), int(chunk["start"]), int(chunk["rows"])
        data = inline[1].cut(start, start + rows) if inline is not None and inline[0] == seq else None
        if data is not None and len(data) > limits.job_chunk_bytes_max:
            data = None
        rows_at, result_at = place_of(int(state.messages[seq]["offset"])), place_of(int(chunk["result"]))
        has_result = chunk["result"] >= 0
        yield Chunk(
            job_id=state.job_id,
            chunk=place,
            first_row=int(chunk["first_row"]),
            row_count=rows,
            model_id=state.model_id or "",
            version=state.version or 0,
            digest=state.digest or "",
            partition=partition,
            outputs=state.outputs,
            encoding=state.encoding,
            attempt=int(chunk["attempt"]),
            rows=data,
            rows_encoding=(inline[1].codec if inline is not None and data is not None else MSGPACK).name,
            source=None if data is not None else Source(rows_at.offset, start, start + rows, rows_at.partition),
            previous=result_at.offset if has_result else None,
            previous_partition=result_at.partition if has_result else None,
        )
