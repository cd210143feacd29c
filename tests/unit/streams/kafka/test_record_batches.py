"""Record batches of any content, read record by record; and the names in aiokafka that this rests on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import accumulate, islice, pairwise
from typing import Any

import cramjam
import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from hypothesis import given, settings
from hypothesis import strategies as st

from inferd.schemas.errors import InvalidHeaderError, MalformedError, TooLargeError
from inferd.streams.inference import RecordBlock, kernels_fault
from inferd.streams.kafka import record_batches
from inferd.streams.kafka.record_batches import (
    HEADERS_READ_MAX,
    PartitionRecords,
    RecordBatches,
    UnreadableLogError,
    UnreadableRecord,
    expand,
    read_tolerantly,
)

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
    monkeypatch.setattr(PartitionRecords, "expanded_bytes_max", 64_000_000)
    monkeypatch.setattr(fetcher.FetchResult, "getall", record_batches.getall_in_blocks)


def batch_of(messages: list[Message], codec: int = NONE, first: int = 0) -> bytearray:
    builder = DefaultRecordBatchBuilder(2, codec, 0, -1, -1, 0, 10_000_000)
    for n, (key, value, headers) in enumerate(messages):
        assert builder.append(n, 1_000 + n, key, value, headers) is not None
    raw = bytearray(builder.build())
    raw[:8] = first.to_bytes(8, "big")
    return raw


def read(*batches: bytes | bytearray, tp: TopicPartition = LANE, fetch_offset: int = 0) -> list[Any]:
    """The records of batches. They are read twice: one after the other, and as blocks; both have to agree."""
    if tp != LANE:
        return list(reader(*batches, tp=tp, fetch_offset=fetch_offset))
    records, fault = until_fault(iter(reader(*batches, fetch_offset=fetch_offset)))
    in_blocks = reader(*batches, fetch_offset=fetch_offset)
    taken, same = until_fault(each for part in parts_of(in_blocks) for each in part)
    assert [described(each) for each in taken] == [described(each) for each in records]
    assert (type(same), str(same)) == (type(fault), str(fault))
    if fault is not None:
        raise fault
    return records


def until_fault(records: Iterator[Any]) -> tuple[list[Any], Exception | None]:
    """The records in front of a fault, and the fault."""
    read = []
    try:
        for record in records:
            read.append(record)  # noqa: PERF402  # what was read counts
    except Exception as fault:  # noqa: BLE001  # compared with that of the other reader
        return read, fault
    return read, None


def parts_of(in_blocks: Any) -> Iterator[Any]:
    while not in_blocks.exhausted:
        part = in_blocks.take(2)
        assert not part or in_blocks.next_fetch_offset >= part[-1].offset + 1
        yield part


def reader(*batches: bytes | bytearray, tp: TopicPartition = LANE, fetch_offset: int = 0) -> Any:
    # The checksum is aiokafka's; these tests change bytes behind its back.
    make: Any = PartitionRecords
    return make(tp, RecordBatches(b"".join(batches)), [], fetch_offset, None, None, False, 0)


def described(record: Any) -> tuple[Any, ...]:
    rejection = getattr(record, "rejection", None)
    return record.offset, record.timestamp, record.key, record.value, [*record.headers], type(rejection), str(rejection)


def plain(records: list[Any]) -> list[Message]:
    return [(r.key, r.value, list(r.headers)) for r in records]


def with_bad_header_name(raw: bytearray) -> bytearray:
    """The batch, with two bytes that are not UTF-8 in place of the header name `ü`."""
    at = raw.index("ü".encode())
    raw[at : at + 2] = b"\xff\xfe"
    return raw


@pytest.mark.parametrize("codec", [NONE, GZIP, SNAPPY, LZ4, ZSTD])
def test_every_codec_reads_as_it_was_written(codec: int) -> None:
    records = read(batch_of(MESSAGES, codec), batch_of(MESSAGES, codec, first=3))
    assert plain(records) == MESSAGES * 2
    assert [r.offset for r in records] == [0, 1, 2, 3, 4, 5]
    assert [r.timestamp for r in records] == [1_000, 1_001, 1_002] * 2


@pytest.mark.parametrize("codec", [NONE, LZ4])
def test_many_small_batches_come_in_one_block(codec: int) -> None:
    batches = [batch_of(MESSAGES, codec, first=3 * n) for n in range(1_500)]
    in_blocks = reader(*batches[:500], batch_of(MESSAGES, ZSTD, first=1_500), *batches[501:])
    assert in_blocks.comes_in_blocks
    taken = in_blocks.take(None)
    assert [record.offset for record in taken] == [*range(4_500)]
    assert plain(list(taken[1_497:1_506])) == MESSAGES * 3
    if kernels_fault() is None:
        assert isinstance(taken, RecordBlock)


def test_few_records_in_many_batches_come_one_by_one() -> None:
    batches = [batch_of(MESSAGES, first=3 * n) for n in range(10)]
    assert not reader(*batches).comes_in_blocks
    assert reader(*batches, batch_of(MESSAGES, first=30)).comes_in_blocks


@pytest.mark.parametrize("broker", [False, True])
def test_timestamps_of_blocks_are_those_of_the_broker_if_it_sets_them(broker: bool) -> None:
    raw = batch_of(MESSAGES * 20)
    raw[22] |= 8 * broker
    assert [record.timestamp for record in read(raw)] == ([1_059] * 60 if broker else [*range(1_000, 1_060)])


def test_other_topics_get_consumer_records() -> None:
    (record, *_) = read(batch_of(MESSAGES), tp=TopicPartition("other", 7))
    assert (record.topic, record.partition, record.serialized_value_size) == ("other", 7, 2)


def test_records_before_the_position_are_skipped() -> None:
    assert [r.offset for r in read(batch_of(MESSAGES), fetch_offset=2)] == [2]


def test_a_truncated_batch_is_left_for_the_next_fetch() -> None:
    assert len(read(batch_of(MESSAGES), batch_of(MESSAGES, first=3)[:-1])) == 3


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize("codec", [NONE, ZSTD])
def test_an_undecodable_header_name_does_not_affect_the_neighbours(place: int, codec: int) -> None:
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
    rejected = [r for r in records if isinstance(r, UnreadableRecord)]
    assert [r.offset for r in rejected] == [place]
    assert isinstance(rejected[0].rejection, InvalidHeaderError)
    assert "\\xff\\xfe" in rejected[0].rejection.message


def test_the_tolerant_reader_agrees_with_the_fast_one() -> None:
    raw = bytes(batch_of(MESSAGES, first=40))
    assert plain(list(read_tolerantly(raw))) == MESSAGES
    assert [(r.offset, r.timestamp) for r in read_tolerantly(raw)] == [(40, 1_000), (41, 1_001), (42, 1_002)]


@pytest.mark.parametrize("codec", [NONE, ZSTD])
def test_a_record_with_too_many_headers_is_rejected_without_reading_them(codec: int) -> None:
    many: Message = (b"k", b"v", [("", None)] * 400_000)
    most: Message = (b"k", b"v", [("", b"x" * 20)] * HEADERS_READ_MAX)
    raw = batch_of([*MESSAGES, many, most, *MESSAGES, many], codec, first=7)
    records = read(raw)
    assert [r.offset for r in records] == list(range(7, 16))
    assert plain(records) == [*MESSAGES, (b"k", b"v", []), most, *MESSAGES, (b"k", b"v", [])]
    rejections = {r.offset: r.rejection for r in records if isinstance(r, UnreadableRecord)}
    assert sorted(rejections) == [10, 15]
    assert all(
        isinstance(rejection, TooLargeError) and "400000 headers" in str(rejection) for rejection in rejections.values()
    )


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_expands_too_far_is_rejected_record_by_record(codec: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PartitionRecords, "expanded_bytes_max", 1_000_000)
    bomb = batch_of([(b"k", bytes(700_000), []) for _ in range(2)], codec)
    records = read(bomb, batch_of(MESSAGES, first=2))
    assert [r.offset for r in records] == [0, 1, 2, 3, 4]
    assert [type(r.rejection) for r in records[:2]] == [TooLargeError] * 2
    assert plain(records[2:]) == MESSAGES


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD])
def test_a_batch_that_expands_far_but_within_the_limit_is_read(codec: int) -> None:
    assert read(batch_of([(b"k", bytes(3_000_000), [])], codec))[0].value == bytes(3_000_000)


@pytest.mark.parametrize("codec", [GZIP, SNAPPY, LZ4, ZSTD, 7])
def test_a_batch_that_does_not_expand_is_malformed(codec: int) -> None:
    raw = batch_of(MESSAGES)
    raw[22] = codec
    assert [type(r.rejection) for r in read(raw)] == [MalformedError] * 3


def test_decompression_only_changes_codec_and_length() -> None:
    raw = bytes(batch_of(MESSAGES, GZIP))
    expanded = expand(raw, 1_000)
    assert expanded[:8] == raw[:8]
    assert int.from_bytes(expanded[8:12], "big") == len(expanded) - 12
    assert expanded[22] & 7 == 0
    assert expanded[61:] == bytes(batch_of(MESSAGES))[61:]


def test_install_replaces_aiokafkas_reader(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fails when aiokafka's fetcher no longer makes its readers by these names."""
    for name in ("PartitionRecords", "MemoryRecords"):
        assert name in fetcher.Fetcher._proc_fetch_request.__code__.co_names
        monkeypatch.setattr(fetcher, name, getattr(fetcher, name))
    record_batches.install_batch_checks({"t"}, 5)
    assert fetcher.PartitionRecords is PartitionRecords
    assert vars(fetcher)["MemoryRecords"] is RecordBatches
    stock: Any = PartitionRecords.__mro__[1]
    for name in ("_unpack_records", "_consume_aborted_up_to", "_contains_abort_marker", "_consumer_record"):
        assert name in vars(stock)
    assert {"_tp", "_records", "_check_crcs", "_isolation_level", "_aborted_producers"} <= set(
        stock.__init__.__code__.co_names
    )
    result: Any = fetcher.FetchResult
    assert result.getall is record_batches.getall_in_blocks
    assert {"_partition_records", "_topic_partition"} <= set(result.__init__.__code__.co_names)
    assert {"check_assignment", "_update_position", "has_more"} <= set(vars(result))
    assert fetcher.READ_COMMITTED == record_batches.READ_COMMITTED


def test_aborted_transactions_and_markers_are_skipped() -> None:
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
    in_blocks = make(LANE, RecordBatches(records._data), [(1, 0)], 0, None, None, False, record_batches.READ_COMMITTED)
    assert [r.offset for r in in_blocks.take(None)] == [1, 4]
    assert in_blocks.next_fetch_offset == 5


class State:
    """What a fetch result needs of a partition's assignment."""

    active = True
    paused = False
    position = 0

    def state_value(self, _tp: TopicPartition) -> State:
        return self

    def consumed_to(self, position: int) -> None:
        self.position = position


@pytest.mark.parametrize("records_max", [1, 7, 50, None])
@pytest.mark.parametrize("sizes", [(20, 11), (31, 19), (32, 18), (10, 40, 40), (40, 3, 40)])
def test_a_fetch_result_hands_over_all_records_in_parts(records_max: int | None, sizes: tuple[int, ...]) -> None:
    messages: list[Message] = [(b"k%d" % n, b"v", []) for n in range(sum(sizes))]
    made: Any = fetcher.FetchResult
    state = State()
    starts = list(accumulate(sizes, initial=0))
    log = [batch_of(messages[start:end], first=start) for start, end in pairwise(starts)]
    result = made(LANE, assignment=state, partition_records=reader(*log), backoff=0)
    taken = []
    while result.has_more():
        part = result.getall(records_max)
        assert len(part) <= (records_max or len(messages))
        assert isinstance(part, RecordBlock) == (sum(sizes) >= 32 and kernels_fault() is None) or not part
        taken += part
        assert state.position == taken[-1].offset + 1
    assert plain(taken) == messages


@pytest.mark.parametrize("place", [0, 1, 2])
def test_a_corrupt_batch_is_neither_skipped_nor_does_it_hide_those_before(place: int) -> None:
    messages: list[Message] = [(b"k", b"v", [])] * 40
    batches = [batch_of(messages, first=40 * n) for n in range(3)]
    batches[place][8:12] = (5).to_bytes(4, "big")  # shorter than its header
    made: Any = fetcher.FetchResult
    state = State()
    result = made(LANE, assignment=state, partition_records=reader(*batches), backoff=0)
    taken = []
    with pytest.raises(UnreadableLogError):  # noqa: PT012  # whenever it is reached
        while result.has_more():
            taken += result.getall(30)
    assert [record.offset for record in taken] == list(range(40 * place))
    assert state.position == 40 * place
    assert result.getall(30) == []
    assert not result.has_more()


def test_the_response_is_freed_when_its_records_have_been_copied() -> None:
    in_blocks = reader(batch_of([(b"k", b"v" * 200, [])] * 50))
    assert in_blocks.comes_in_blocks
    assert len(in_blocks.take(10)) == 10
    assert in_blocks._records.size_in_bytes() == 0
    assert in_blocks.comes_in_blocks


def test_a_fetch_from_before_the_installation_is_read_by_aiokafkas_reader() -> None:
    made: Any = fetcher.FetchResult
    stock: Any = PartitionRecords.__mro__[1]
    records: Any = stock(LANE, RecordBatches(b""), [], 0, None, None, False, 0)
    result: Any = made(LANE, assignment=State(), partition_records=records, backoff=0)
    assert result.getall(5) == []


def test_a_fetch_result_is_dropped_after_a_seek() -> None:
    made: Any = fetcher.FetchResult
    state = State()
    messages: list[Message] = [(b"k", b"v" * 200, [])] * 50
    result = made(LANE, assignment=state, partition_records=reader(batch_of(messages)), backoff=0)
    assert len(result.getall(10)) == 10
    state.position = 30
    assert result.getall(10) == []
    assert not result.has_more()


# ---------------------------------------------------------------------- numbers that cannot be right


def claiming(count: int | None = None, last_delta: int | None = None, codec: int = NONE) -> bytearray:
    raw = batch_of(MESSAGES, codec)
    if count is not None:
        raw[57:61] = count.to_bytes(4, "big", signed=True)
    if last_delta is not None:
        raw[23:27] = last_delta.to_bytes(4, "big", signed=True)
    return raw


@pytest.mark.parametrize("length", [*range(10), 48, -1, -2_147_483_648, 2_147_483_647, 10_000])
def test_a_length_that_cannot_be_right_is_a_named_fault(length: int) -> None:
    """aiokafka's C code reads beyond the end of its input: with 0 to 8 bytes the process crashed."""
    raw = batch_of(MESSAGES, first=41)
    raw[8:12] = length.to_bytes(4, "big", signed=True)
    with pytest.raises(
        UnreadableLogError, match=r"topic lane, partition 0: the record batch at offset 41 claims"
    ) as caught:
        read(raw)
    assert caught.value.tp == LANE


def test_a_wrong_length_behind_valid_batches_does_not_affect_them() -> None:
    raw = batch_of(MESSAGES, first=3)
    raw[8:12] = (7).to_bytes(4, "big")
    make: Any = PartitionRecords
    records = make(LANE, RecordBatches(bytes(batch_of(MESSAGES) + raw)), [], 0, None, None, False, 0)
    assert [next(records).offset for _ in range(3)] == [0, 1, 2]
    with pytest.raises(UnreadableLogError, match="offset 3"):
        next(records)
    assert records.next_fetch_offset == 3


def test_a_wrong_checksum_is_a_named_fault() -> None:
    raw = batch_of(MESSAGES)
    raw[-1] ^= 1
    make: Any = PartitionRecords
    with pytest.raises(UnreadableLogError, match=r"partition 0: the checksum of the record batch at offset 0 is wrong"):
        list(make(LANE, RecordBatches(bytes(raw)), [], 0, None, None, True, 0))


@pytest.mark.parametrize("magic", [0, 1, 3, 255])
def test_a_batch_of_another_version_is_one_rejected_record(magic: int) -> None:
    raw = batch_of(MESSAGES)
    raw[16] = magic
    records = read(raw, batch_of(MESSAGES, first=3))
    assert [r.offset for r in records] == [0, 3, 4, 5]
    assert isinstance(records[0].rejection, MalformedError)


@pytest.mark.parametrize("codec", [NONE, ZSTD])
@pytest.mark.parametrize(
    ("count", "last_delta", "offsets"),
    [
        (-1, None, [0]),
        (2**31 - 1, 2**31 - 1, [0]),
        (4, None, [0]),
        (None, -1, [0]),
        (None, -(2**31), [0]),
        (2, 1, [0, 1]),
        (0, None, []),
        (1_000, 999, [0]),
    ],
)
def test_impossible_claims_are_rejected_and_the_partition_continues(
    count: int | None, last_delta: int | None, offsets: list[int], codec: int
) -> None:
    raw = claiming(count, last_delta, codec)
    after = max(3, (last_delta or 0) + 1)
    records = read(raw, batch_of(MESSAGES, first=after))
    assert [r.offset for r in records[-3:]] == [after, after + 1, after + 2]
    assert plain(records[-3:]) == MESSAGES
    rejected = [r for r in records[:-3] if isinstance(r, UnreadableRecord)]
    if codec == NONE or count != 1_000:
        assert [r.offset for r in records[:-3]][: len(offsets)] == offsets
    assert all(isinstance(r.rejection, MalformedError) for r in rejected)


def test_records_behind_an_unreadable_one_are_rejected_at_their_offsets() -> None:
    raw = batch_of(MESSAGES)
    raw[raw.index(b"k2") - 1] = 0xFF  # the length of the third record's key
    records = read(raw, batch_of(MESSAGES, first=3))
    assert [r.offset for r in records] == [0, 1, 2, 3, 4, 5]
    assert plain(records[:2]) == MESSAGES[:2]
    assert isinstance(records[2].rejection, MalformedError)


def test_an_offset_outside_of_its_batch_is_rejected() -> None:
    raw = batch_of([(b"a", b"1", []), (b"b", b"2", [])])
    at = raw.index(b"b", 61) - 2  # the offset of the second record, which follows its timestamp
    assert raw[at] == 2
    raw[at] = 0x7E
    records = read(raw)
    assert [r.offset for r in records] == [0, 1]
    assert "offset 63" in records[1].rejection.message


def test_a_marker_that_cannot_be_read_is_a_named_fault() -> None:
    raw = batch_of([(b"", b"", [])])
    raw[22] |= 0x30
    raw[43:51] = (7).to_bytes(8, "big")
    make: Any = PartitionRecords
    with pytest.raises(UnreadableLogError, match="transaction marker at offset 0"):
        list(make(LANE, RecordBatches(bytes(raw)), [], 0, None, None, False, record_batches.READ_COMMITTED))


@given(
    st.sampled_from([NONE, ZSTD]), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), min_size=1, max_size=6)
)
@settings(max_examples=300)
def test_with_any_bytes_offsets_increase_and_errors_are_typed(codec: int, changes: list[tuple[int, int]]) -> None:
    raw = batch_of(MESSAGES, codec, first=5)
    for at, byte in changes:
        if 8 <= at < len(raw):  # the broker itself writes the first offset
            raw[at] = byte
    records = RecordBatches(bytes(raw + batch_of(MESSAGES, first=8)))
    make: Any = PartitionRecords
    iterator = make(LANE, records, [], 5, None, None, False, record_batches.READ_COMMITTED)
    seen: list[int] = []
    with suppress(UnreadableLogError):
        seen.extend(record.offset for record in islice(iterator, 1_000))
    assert seen == sorted(set(seen))
    assert all(offset >= 5 for offset in seen)
    assert iterator.next_fetch_offset >= 5
