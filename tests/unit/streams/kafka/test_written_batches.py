"""Batches that the kernel has written beside those of aiokafka's own builder."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from aiokafka.producer.message_accumulator import BatchBuilder

from inferd.streams.inference import Spans, kernels_fault
from inferd.streams.kafka import HeaderColumns, Outgoing, OutgoingBlock, OutgoingColumns, fill_batches
from inferd.streams.kafka.producer import BATCH_BYTES_MAX
from tests.fuzz.result_kernel import header_columns

CODECS = {"none": 0, "gzip": 1, "lz4": 3, "zstd": 4}
TIMESTAMP_MS = 1_700_000_000_000


def a_producer(codec: int, *, transactional: bool) -> Any:
    """What filling a batch needs of a producer."""
    transactions = SimpleNamespace(transactional_id="t" if transactional else None)
    accumulator = SimpleNamespace(_compression_type=codec, _txn_manager=transactions)
    return SimpleNamespace(
        _message_accumulator=accumulator,
        create_batch=lambda: BatchBuilder(BATCH_BYTES_MAX, codec, is_transactional=transactional),
    )


def a_block(rng: random.Random, count: int, value_bytes: int) -> OutgoingBlock:
    keys = [None if rng.random() < 0.3 else rng.randbytes(rng.randrange(12)) for _ in range(count)]
    given = Spans.of([key or b"" for key in keys])
    nulls = np.array([key is None for key in keys], bool)
    values = [rng.randbytes(16) * rng.randrange(value_bytes // 16 + 1) for _ in range(count)]
    keys_or_null = Spans(given.content, given.starts, given.ends - nulls)
    columns = OutgoingColumns(keys_or_null, Spans.of(values), header_columns(rng, count))
    return OutgoingBlock(columns, range(count))


def sent(batch: Any) -> bytes:
    """The bytes that the producer sends."""
    batch._set_producer_state(7, 2, 40)
    return bytes(batch._build())


@pytest.fixture(autouse=True)
def _kernels(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("gzip.time", SimpleNamespace(time=lambda: 0.0))  # it writes the time into its header
    if (fault := kernels_fault()) is not None:
        pytest.skip(f"compiled kernels: {fault}")


@pytest.mark.parametrize("codec", CODECS.values(), ids=CODECS)
@pytest.mark.parametrize("transactional", [False, True])
@pytest.mark.parametrize(("count", "value_bytes"), [(3, 100), (700, 2_000)])
def test_the_bytes_of_batches_are_those_of_the_producer(
    codec: int, transactional: bool, count: int, value_bytes: int
) -> None:
    producer, block = a_producer(codec, transactional=transactional), a_block(random.Random(count), count, value_bytes)
    written, filled = (fill_batches(producer, records, TIMESTAMP_MS) for records in (block, list(block)))
    assert [each.record_count() for each in written] == [each.record_count() for each in filled]
    assert [each.size() for each in written] == [each.size() for each in filled]
    assert list(map(sent, written)) == list(map(sent, filled))
    assert all(each.append(timestamp=0, key=None, value=b"") is None for each in written), "they are closed"


def test_a_batch_that_compression_makes_larger_is_not_compressed() -> None:
    headers = HeaderColumns(np.zeros(1, np.int64), [[]], None, [], "n", np.zeros(1, np.int64), [[]])
    block = OutgoingBlock(OutgoingColumns(Spans.of([b""]), Spans.of([b"value"]), headers), range(1))
    plain, compressed = (sent(*fill_batches(a_producer(codec, transactional=False), block, 0)) for codec in (0, 1))
    assert plain == compressed


def records_in(batch: Any) -> int:
    return batch.record_count()  # type: ignore[no-any-return]


@pytest.mark.parametrize("bytes_max", [62, 100, 500, 5_000])
def test_batches_of_several_records_keep_to_the_limit_of_their_topic(bytes_max: int) -> None:
    block = a_block(random.Random(5), 60, 300)
    batches = fill_batches(a_producer(0, transactional=False), block, TIMESTAMP_MS, bytes_max)
    assert sum(map(records_in, batches)) == 60
    assert all(batch.size() <= bytes_max or batch.record_count() == 1 for batch in batches)
    if bytes_max == 5_000:
        assert any(batch.record_count() > 1 for batch in batches)


def test_a_block_is_a_sequence_of_its_records() -> None:
    block = a_block(random.Random(3), 40, 50)
    records: list[Outgoing] = list(block)
    assert [block[k] for k in range(len(block))] == records
    assert list(block[7:20]) == records[7:20]
    assert {key is None for key, *_ in records} == {True, False}
