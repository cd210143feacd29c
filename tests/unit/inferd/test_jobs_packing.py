"""Packing rows into job messages: complete, within limits, deterministic."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.jobs.packing import Packer, packed_rows, rows_message
from inferd.schemas.codecs import JSON, MSGPACK, Codec
from inferd.schemas.errors import InvalidValueError, TooLargeError
from inferd.schemas.jobs.codec import decode_job_message, encode_rows
from inferd.schemas.jobs.job import JobRows
from inferd.schemas.limits import DEFAULT_LIMITS

VALUES = st.one_of(
    st.floats(allow_nan=False, allow_infinity=False), st.integers(-5, 2**40), st.text(max_size=9), st.none()
)
ROW_LISTS = st.lists(st.lists(VALUES, min_size=1, max_size=4), max_size=40)


def messages_of(items: list[Any], codec: Codec = MSGPACK, bytes_max: int = 200, block: int = 4) -> list[JobRows]:
    packer = Packer(codec, bytes_max, 16, block)
    packed = [message for item in items for message in packer.add(item)]
    packed += packer.finish()
    decoded = []
    for seq, message in enumerate(packed):
        assert message.count <= 16
        assert len(message.data) <= bytes_max + 60
        rows = decode_job_message(rows_message(seq, message), message.codec, DEFAULT_LIMITS)
        assert isinstance(rows, JobRows)
        assert (rows.seq, rows.batch.count) == (seq, message.count)
        decoded.append(rows)
    return decoded


def rows_in(messages: list[JobRows]) -> list[Any]:
    rows: list[Any] = []
    for message in messages:
        decode = msgspec.msgpack.decode if message.batch.codec is MSGPACK else msgspec.json.decode
        value: Any = decode(message.batch.cut(0, message.batch.count))
        if isinstance(value, dict):
            rows += np.frombuffer(value["data"], value["dtype"]).reshape(value["shape"]).tolist()
        else:
            rows += value
    return rows


@given(ROW_LISTS, st.integers(1, 40), st.sampled_from([MSGPACK, JSON]))
def test_messages_do_not_depend_on_how_rows_are_grouped(rows: list[list[Any]], step: int, codec: Codec) -> None:
    together = messages_of([rows], codec)
    assert rows_in(together) == rows
    assert messages_of(rows, codec) == together
    assert messages_of([rows[start : start + step] for start in range(0, len(rows), step)], codec) == together


@given(st.integers(0, 60), st.integers(1, 3), st.integers(1, 60), st.sampled_from(["<f8", "<f4", "<i4"]))
def test_array_messages_do_not_depend_on_how_rows_are_grouped(count: int, features: int, step: int, dtype: str) -> None:
    array = np.arange(count * features).reshape(count, features).astype(dtype)
    together = messages_of([array])
    assert rows_in(together) == array.tolist()
    assert messages_of([array[start : start + step] for start in range(0, count, step)]) == together
    assert all(message.batch.tensor is not None for message in together)


def test_alternating_lists_and_arrays_keep_their_order() -> None:
    array = np.array([[1.0, 2.0], [3.0, 4.0]])
    items = [[[9.0, "a"]], array, array.astype("<f4"), {"x": 1.0}, [5.0, 6.0], np.array([7.0, 8.0])]
    assert rows_in(messages_of(items)) == [
        [9.0, "a"], [1.0, 2.0], [3.0, 4.0], [1.0, 2.0], [3.0, 4.0], {"x": 1.0}, [5.0, 6.0], [7.0, 8.0],
    ]  # fmt: skip


def test_the_fast_encoding_equals_the_codec() -> None:
    rows = [[1.5, math.nan, "a"], {"x": np.float32(2.0), "y": None, "z": True}, np.array([3, 4])]
    packer = Packer()
    (message,) = [*packer.add(rows), *packer.finish()]
    assert rows_message(0, message) == encode_rows(0, rows)


@pytest.mark.parametrize(
    ("rows", "error", "said"),
    [
        ([["x" * 300]], TooLargeError, "row 0"),
        ([[1.0], [2.0], ["x" * 300]], TooLargeError, "row 2"),
        (np.zeros((2, 50)), TooLargeError, "400 bytes"),
        ([[1.0], [object()]], InvalidValueError, "row 1"),
        ([[1.0], 2.0], InvalidValueError, "row 1|rows 0 to 1"),
        (5, InvalidValueError, "int"),
        ([[10**400]], InvalidValueError, "rows 0 to 0"),
    ],
)
def test_unsupported_rows_are_errors(rows: Any, error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        messages_of([rows])


async def _batches() -> AsyncIterator[Any]:
    yield [[1.0, 2.0]]
    yield np.array([[3.0, 4.0]])


@pytest.mark.parametrize(
    "rows",
    [
        [[1.0, 2.0], [3.0, 4.0]],
        np.array([[1.0, 2.0], [3.0, 4.0]]),
        [[[1.0, 2.0]], [[3.0, 4.0]]],
        [np.array([[1.0, 2.0]]), np.array([[3.0, 4.0]])],
        ((1.0, 2.0), (3.0, 4.0)),
        iter([[1.0, 2.0], [3.0, 4.0]]),
        _batches(),
    ],
)
async def test_rows_batches_and_iterables(rows: Any) -> None:
    packed = [message async for message in packed_rows(rows, MSGPACK)]
    messages = [decode_job_message(rows_message(0, each), MSGPACK, DEFAULT_LIMITS) for each in packed]
    assert rows_in([message for message in messages if isinstance(message, JobRows)]) == [[1.0, 2.0], [3.0, 4.0]]


@pytest.mark.parametrize("rows", [5, "text", None, b"bytes"])
async def test_values_that_are_not_rows(rows: Any) -> None:
    with pytest.raises(InvalidValueError, match="rows: "):
        [message async for message in packed_rows(rows, MSGPACK)]
