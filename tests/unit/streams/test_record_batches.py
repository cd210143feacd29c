"""Record batches of any content, read record by record; and the names in aiokafka that this rests on."""

from __future__ import annotations

from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder

from schemas.errors import InvalidHeaderError, MalformedError, TooLargeError
from streams import record_batches
from streams.record_batches import PartitionRecords, RecordBatches, UnreadableRecord, expand, read_tolerantly

LANE = TopicPartition("lane", 0)
NONE, GZIP, SNAPPY, LZ4, ZSTD = range(5)
Message = tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]

MESSAGES: list[Message] = [
    (b"k0", b"v0", []),
    (None, b"v1", [("a", b"1"), ("b", None)]),
    (b"k2", None, [("ü", b"\xff")]),
]


@pytest.fixture(autouse=True)
def lane_topic(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartitionRecords, "lane_topics", {"lane"})


def batch_of(messages: list[Message], codec: int = NONE, first: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 10_000_000)
    for n, (key, value, headers) in enumerate(messages):
        assert builder.append(n, 1_000 + n, key, value, headers) is not None
    raw = bytearray(builder.build())
    raw[:8] = first.to_bytes(8, "big")
    return raw


def read(*batches: bytes | bytearray, tp: TopicPartition = LANE, fetch_offset: int = 0) -> list[Any]:
    records = RecordBatches(b"".join(batches))
    # The checksum is aiokafka's; these tests change bytes behind its back.
    make: Any = PartitionRecords
    return list(make(tp, records, [], fetch_offset, None, None, False, 0))


def plain(records: list[Any]) -> list[Message]:
    return [(r.key, r.value, list(r.headers)) for r in records]


def with_bad_header_name(raw: bytearray) -> bytearray:
    """The batch, with the two bytes of the header name `ü` no UTF-8 any more."""
    at = raw.index("ü".encode())
    raw[at : at + 2] = b"\xff\xfe"
    return raw


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_every_codec_reads_as_it_was_written(codec: int) -> None:
    records = read(batch_of(MESSAGES, codec), batch_of(MESSAGES, codec, first=3))
    assert plain(records) == MESSAGES * 2
    assert [r.offset for r in records] == [0, 1, 2, 3, 4, 5]
    assert [r.timestamp for r in records] == [1_000, 1_001, 1_002] * 2


def test_other_topics_get_consumer_records() -> None:
    (record, *_) = read(batch_of(MESSAGES), tp=TopicPartition("other", 7))
    assert (record.topic, record.partition, record.serialized_value_size) == ("other", 7, 2)


def test_records_before_the_position_are_left_out() -> None:
    assert [r.offset for r in read(batch_of(MESSAGES), fetch_offset=2)] == [2]


def test_a_batch_that_is_cut_off_is_left_for_the_next_fetch() -> None:
    assert len(read(batch_of(MESSAGES), batch_of(MESSAGES, first=3)[:-1])) == 3


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("codec", [NONE, ZSTD])
def test_a_header_name_that_is_no_text_spares_the_neighbours(place: int, codec: int) -> None:
    messages: list[Message] = [(b"k", b"v%d" % n, [("ok", b"1")]) for n in range(3)]
    messages[place] = (b"k", b"bad", [("ok", b"1"), ("ü", b"2")])
    raw = with_bad_header_name(batch_of(messages))
    if codec == ZSTD:
        body = bytes(cramjam.zstd.compress(bytes(raw[61:])))
        raw = raw[:22] + bytes([ZSTD]) + raw[23:61] + body
        raw[8:12] = (len(raw) - 12).to_bytes(4, "big")
    records = read(raw)
    assert [r.offset for r in records] == [0, 1, 2]
    assert [r.value for r in records] == [m[1] for m in messages]
    refused = [r for r in records if isinstance(r, UnreadableRecord)]
    assert [r.offset for r in refused] == [place]
    assert isinstance(refused[0].refusal, InvalidHeaderError)
    assert "\\xff\\xfe" in refused[0].refusal.message


def test_the_tolerant_reader_agrees_with_the_fast_one() -> None:
    raw = bytes(batch_of(MESSAGES, first=40))
    assert plain(list(read_tolerantly(raw))) == MESSAGES
    assert [(r.offset, r.timestamp) for r in read_tolerantly(raw)] == [(40, 1_000), (41, 1_001), (42, 1_002)]


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_expands_too_far_is_refused_record_by_record(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartitionRecords, "expanded_bytes_max", 1_000_000)
    bomb = batch_of([(b"k", bytes(700_000), []) for _ in range(2)], codec)
    records = read(bomb, batch_of(MESSAGES, first=2))
    assert [r.offset for r in records] == [0, 1, 2, 3, 4]
    assert [type(r.refusal) for r in records[:2]] == [TooLargeError] * 2
    assert plain(records[2:]) == MESSAGES


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_expands_far_but_within_the_limit_is_read(codec: int) -> None:
    assert read(batch_of([(b"k", bytes(3_000_000), [])], codec))[0].value == bytes(3_000_000)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD, 7])
def test_a_batch_that_does_not_expand_is_malformed(codec: int) -> None:
    raw = batch_of(MESSAGES)
    raw[22] = codec
    assert [type(r.refusal) for r in read(raw)] == [MalformedError] * 3


def test_expanding_keeps_all_but_codec_and_length() -> None:
    raw = bytes(batch_of(MESSAGES, GZIP))
    expanded = expand(raw, 1_000)
    assert expanded[:8] == raw[:8]
    assert int.from_bytes(expanded[8:12], "big") == len(expanded) - 12
    assert expanded[22] & 7 == 0
    assert expanded[61:] == bytes(batch_of(MESSAGES))[61:]


def test_install_puts_the_reader_into_aiokafka(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when aiokafka's fetcher no longer makes its readers by these names."""
    for name in ("PartitionRecords", "MemoryRecords"):
        assert name in fetcher.Fetcher._proc_fetch_request.__code__.co_names
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    record_batches.install({"t"}, 5)
    assert fetcher.PartitionRecords is PartitionRecords
    assert vars(fetcher)["MemoryRecords"] is RecordBatches
    stock: Any = PartitionRecords.__mro__[1]
    for name in ("_unpack_records", "_consume_aborted_up_to", "_contains_abort_marker", "_consumer_record"):
        assert name in vars(stock)
    assert {"_tp", "_records", "_check_crcs", "_isolation_level", "_aborted_producers"} <= set(
        stock.__init__.__code__.co_names
    )
    assert fetcher.READ_COMMITTED == record_batches.READ_COMMITTED


def test_aborted_transactions_and_markers_are_left_out() -> None:
    def transactional(first: int, producer_id: int, control: bytes | None = None) -> bytearray:
        messages: list[Message] = [(control, b"\0" * 6, [])] if control else [(b"k", b"v%d" % first, [])]
        raw = batch_of(messages, first=first)
        raw[22] |= 0x10 | (0x20 if control else 0)
        raw[43:51] = producer_id.to_bytes(8, "big")
        return raw

    abort, commit = b"\0\0\0\0", b"\0\0\0\1"
    log = [transactional(0, 1), transactional(1, 2), transactional(2, 1, abort), transactional(3, 2, commit)]
    log.append(transactional(4, 1))
    records = RecordBatches(b"".join(bytes(raw) for raw in log))
    make: Any = PartitionRecords
    iterator = make(LANE, records, [(1, 0)], 0, None, None, False, record_batches.READ_COMMITTED)
    assert [r.offset for r in iterator] == [1, 4]
    assert iterator.next_fetch_offset == 5


def test_a_batch_that_claims_more_records_than_it_has_raises_instead_of_inventing_some() -> None:
    raw = batch_of([(b"k", b"v", [])])
    raw[57:61] = (3).to_bytes(4, "big")
    with pytest.raises(Exception, match=r"[Ii]nvalid|buffer|[Cc]orrupt"):
        read(raw)
