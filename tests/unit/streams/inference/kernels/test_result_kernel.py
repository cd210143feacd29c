"""The result kernel beside the codecs and aiokafka's builder of record batches, its equivalents."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest

from inferd.streams.inference.kernels import HeaderParts, RecordParts, equal_spans, join_results, library
from inferd.streams.inference.kernels.headers import ColumnStruct
from inferd.streams.inference.kernels.results import PartsStruct
from inferd.streams.inference.spans import Spans
from tests.fuzz import result_kernel

pytestmark = pytest.mark.usefixtures("built")

NONE = np.zeros(0, np.int64)


def test_the_kernel_equals_its_twins_without_access_out_of_bounds() -> None:
    assert result_kernel.fuzz_result_kernel(60, seed=1, rounds=600).startswith("result kernel: ")


class Altered:
    """The kernels, except that one gets or returns something else."""

    def __init__(self, name: str, change: Any) -> None:
        setattr(self, name, change)

    def __getattr__(self, name: str) -> Any:
        return getattr(library(), name)


def one_record_less(*arguments: Any) -> Any:
    *before, count, room, out, length = arguments
    return library().write_records(*before, count - 1, room, out, length)


def one_byte_less(*arguments: Any) -> Any:
    *before, room, out, length = arguments
    return library().write_records(*before, room - 1, out, length)


def one_header_less(heads: Any, counts: Any, limits: Any, own: Any, *others: Any) -> None:
    library().split_headers(heads, counts, limits, own, *others)
    given = ctypes.cast(ColumnStruct.from_address(own).counts, ctypes.POINTER(ctypes.c_int64))
    for record in range(PartsStruct.from_address(heads).count):
        given[record] = max(0, given[record] - 1)


def a_later_deadline(*arguments: Any) -> None:
    library().split_headers(*arguments)
    given = ctypes.cast(arguments[5], ctypes.POINTER(ctypes.c_int64))
    for record in range(PartsStruct.from_address(arguments[0]).count):
        given[record] += 1


def fewer_numbers(at: Any, most: int, *arguments: Any) -> Any:
    return library().number_parts(at, most - 1, *arguments)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("write_records", one_record_less),
        ("write_records", one_byte_less),
        ("number_parts", fewer_numbers),
        ("split_headers", one_header_less),
        ("split_headers", a_later_deadline),
        ("crc32c", lambda data, start, end: library().crc32c(data, start, end - 1)),
    ],
    ids=["records", "room", "numbers", "headers", "deadline", "checksum"],
)
def test_the_comparison_finds_planted_mistakes(name: str, change: Any) -> None:
    with pytest.raises(AssertionError):
        result_kernel.fuzz_result_kernel(60, seed=2, kernels=Altered(name, change))


def spans(starts: list[int], ends: list[int], content: bytes = b"abcdef") -> Spans:
    return Spans(content, np.array(starts, np.int64), np.array(ends, np.int64))


GOOD = spans([0, 2], [2, 4])


@pytest.mark.parametrize(
    "ids",
    [spans([0, -1], [2, 4]), spans([0, 2], [2, 7]), spans([0], [1]), Spans(b"abcdef", GOOD.starts, GOOD.ends[::-1])],
)
def test_spans_outside_of_their_content_are_refused(ids: Spans) -> None:
    with pytest.raises(ValueError, match=r"outside|values of|contiguous"):
        join_results(library(), "json", (b"", b"", b""), ids, GOOD)


def header_parts(kinds: list[int], numbers: Sequence[int] = (0, 0), own: Spans | None = None) -> HeaderParts:
    nothing = spans([0], [0])
    return HeaderParts(
        np.array(kinds, np.int64), nothing, nothing, np.ones(1, np.int64),
        None if own is None else (own, np.zeros(2, np.int64)), b"", np.array(numbers, np.int64),
    )  # fmt: skip


@pytest.mark.parametrize(("numbers", "own"), [((0,), None), ((0, 0), spans([0], [0]))])
def test_headers_that_do_not_belong_to_the_records_are_refused(numbers: Sequence[int], own: Spans | None) -> None:
    with pytest.raises(ValueError, match="headers"):
        header_parts([0, 0], numbers, own)


@pytest.mark.parametrize("kinds", [[0, 1], [-1, 0]])
def test_kinds_of_headers_that_do_not_exist_are_refused(kinds: list[int]) -> None:
    with pytest.raises(ValueError, match="headers outside"):
        RecordParts(library(), GOOD, GOOD, header_parts(kinds))


@pytest.mark.parametrize("bad", [spans([0, 0], [2, 7]), spans([0, -1], [2, 4])])
def test_parts_outside_of_their_content_are_refused(bad: Spans) -> None:
    headers = header_parts([0, 0])
    with pytest.raises(ValueError, match="outside"):
        RecordParts(library(), bad, GOOD, headers)
    with pytest.raises(ValueError, match="outside"):
        RecordParts(library(), GOOD, bad, headers)
    with pytest.raises(ValueError, match="outside"):
        RecordParts(library(), GOOD, GOOD, header_parts([0, 0], own=bad))
    with pytest.raises(ValueError, match="keys"):
        RecordParts(library(), GOOD[:1], GOOD, headers)


def test_numbers_below_zero_are_refused() -> None:
    with pytest.raises(ValueError, match="below 0"):
        RecordParts(library(), GOOD, GOOD, header_parts([0, 0], numbers=(0, -1)))


@pytest.mark.parametrize(("span", "at"), [(range(3), 0), (range(-1, 2), 0), (range(2), 11)])
def test_records_and_room_that_do_not_exist_are_refused(span: range, at: int) -> None:
    parts = RecordParts(library(), GOOD, GOOD, header_parts([0, 0]))
    with pytest.raises(ValueError, match="records"):
        parts.write(span, bytearray(10), at)


def test_nothing_is_joined_from_nothing() -> None:
    empty = Spans(b"", NONE, NONE)
    assert list(join_results(library(), "msgpack", (b"a", b"b", b"c"), empty, empty)) == []
    first, numbers = equal_spans(library(), empty, 3) or ((0,), NONE)
    assert (list(first), len(numbers)) == ([], 0)
