"""The result kernel beside the codecs and aiokafka's builder of record batches, its equivalents."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from inferd.streams.inference.kernels import RecordParts, equal_spans, join_results, library, write_records
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


def fewer_numbers(at: Any, count: int, most: int, *arguments: Any) -> Any:
    return library().number_parts(at, count, most - 1, *arguments)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("write_records", one_record_less),
        ("write_records", one_byte_less),
        ("number_parts", fewer_numbers),
        ("crc32c", lambda data, start, end: library().crc32c(data, start, end - 1)),
    ],
    ids=["records", "room", "numbers", "checksum"],
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
    with pytest.raises(ValueError, match=r"outside|values of"):
        join_results(library(), "json", (b"", b"", b""), ids, GOOD)


@pytest.mark.parametrize("kinds", [[0, 1], [-1, 0], [0]])
def test_kinds_of_headers_that_do_not_exist_are_refused(kinds: list[int]) -> None:
    with pytest.raises(ValueError, match="kinds"):
        RecordParts(GOOD, GOOD, spans([0], [0]), np.array(kinds, np.int64))


@pytest.mark.parametrize(("span", "at"), [(range(3), 0), (range(-1, 2), 0), (range(2), 11)])
def test_records_and_room_that_do_not_exist_are_refused(span: range, at: int) -> None:
    parts = RecordParts(GOOD, GOOD, spans([0], [0]), np.zeros(2, np.int64))
    with pytest.raises(ValueError, match="records"):
        write_records(library(), parts, span, bytearray(10), at)


def test_nothing_is_joined_from_nothing() -> None:
    empty = Spans(b"", NONE, NONE)
    assert list(join_results(library(), "msgpack", (b"a", b"b", b"c"), empty, empty)) == []
    first, numbers = equal_spans(library(), empty, 3) or ((0,), NONE)
    assert (list(first), len(numbers)) == ([], 0)
