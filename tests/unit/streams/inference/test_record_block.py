"""A block of records beside a list of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.streams.inference import (
    RECORD,
    Record,
    RecordBlock,
    joined_records,
    record_keys,
    record_timestamps,
    record_values,
)
from tests.fixtures.record_blocks import block_of


@dataclass(frozen=True)
class Plain:
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]


BYTES = st.none() | st.binary(max_size=200)
HEADERS = st.sampled_from([(), (("content-type", b"application/json"),), (("é", None), ("x" * 70, b"y" * 130))])
RECORDS = st.lists(st.builds(Plain, st.integers(0, 2**60), st.integers(-1, 2**50), BYTES, BYTES, HEADERS), max_size=12)


def same(block: RecordBlock, records: list[Plain]) -> None:
    assert len(block) == len(records)
    singles = [block[place] for place in range(len(records))]
    for made in (singles, list(block), [block[place - len(records)] for place in range(len(records))]):
        assert [Plain(r.offset, r.timestamp, r.key, r.value, r.headers) for r in made] == records
    for each in (block, records):
        assert record_timestamps(each) == [record.timestamp for record in records]
        assert record_keys(each) == [record.key for record in records]
        assert list(record_values(each)) == [record.value or b"" for record in records]
    found = sorted((index, given) for given, indexes in block.by_headers().items() for index in indexes)
    assert found == [(index, record.headers) for index, record in enumerate(records)]


@given(RECORDS, st.integers(-14, 14), st.integers(-14, 14))
def test_a_block_is_a_list_of_its_records(records: list[Plain], start: int, stop: int) -> None:
    block = block_of(records)
    same(block, records)
    same(block[start:stop], records[start:stop])


@given(st.lists(st.tuples(RECORDS, st.integers(0, 5), st.integers(0, 12)), min_size=1, max_size=5))
def test_parts_of_blocks_are_joined(parts: list[tuple[list[Plain], int, int]]) -> None:
    together = joined_records([block_of(records)[start:stop] for records, start, stop in parts])
    assert isinstance(together, RecordBlock)
    same(together, [record for records, start, stop in parts for record in records[start:stop]])


def test_a_block_and_a_list_are_joined_to_a_list() -> None:
    records: list[Record] = [Plain(n, 0, None, b"v", ()) for n in range(4)]
    together = joined_records([block_of(records[:2]), records[2:]])
    assert isinstance(together, list)
    assert [record.offset for record in together] == [0, 1, 2, 3]
    assert joined_records([records]) is records


def test_headers_whose_lengths_are_encoded_differently_are_the_same() -> None:
    content = b"\x02a\x02b" + b"\x82\x00a\x82\x80\x00b"
    rows = [(0, 0, 0, -1, 0, -1, 0, 4, 1), (1, 0, 4, -1, 4, -1, 4, 7, 1), (2, 0, 0, -1, 0, -1, 0, 4, 1)]
    block = RecordBlock(content, np.array(rows, RECORD))
    assert block.by_headers() == {(("a", b"b"),): [0, 2, 1]}
    assert [record.headers for record in block] == [(("a", b"b"),)] * 3
