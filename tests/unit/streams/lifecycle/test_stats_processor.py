"""The owner of `model-stats` adds what workers counted to windows, exactly once, and stops at nothing."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.connection import KafkaConnection
from inferd.schemas.monitoring import (
    Baseline,
    Features,
    FeatureStats,
    NumberBaseline,
    WindowKey,
    WindowStats,
    decode_window,
    encode_baseline,
    encode_window,
    merged,
)
from inferd.streams.faust_app import create_app
from inferd.streams.lane import OutputBatch
from inferd.streams.lifecycle import DriftWatch, LifecycleContext, StatsProcessor, WindowStore
from inferd.streams.lifecycle import windows as windows_module
from inferd.streams.settings import StreamSettings
from inferd.streams.state import make_table
from tests.fixtures.lane import TOPICS

STATS = TopicPartition(TOPICS.name("model-stats"), 0)
NOW_MINUTE = 1_000_000


class Owner:
    """A processor with its table, and a clock that tests set."""

    def __init__(self, processor: StatsProcessor, store: WindowStore) -> None:
        self.processor, self.store = processor, store
        self.now_s = NOW_MINUTE * 60.0
        self.offset = 0
        self.known: dict[tuple[str, int], Baseline] = {}

    @classmethod
    async def make(cls, path: Path) -> Owner:
        settings = StreamSettings(KafkaConnection(), "w1", path, "ns")
        table = make_table(create_app(settings), settings, "default", "model-windows", None)
        await table.retain({0})
        store = WindowStore("default", table, 48)
        owner: Owner
        context = LifecycleContext(
            TOPICS, store, (table,), "w1", settings.limits, clock=lambda: owner.now_s,
            baseline_of=lambda *version: owner.known.get(version),
        )  # fmt: skip
        owner = cls(StatsProcessor(context), store)
        await owner.processor.opened(0)
        return owner

    def records(self, values: Iterable[bytes | None]) -> list[ConsumerRecord[Any, Any]]:
        made = []
        for value in values:
            made.append(ConsumerRecord(*STATS, self.offset, 1_000, 0, b"churn", value, None, 5, len(value or b""), ()))
            self.offset += 1
        return made

    async def process(self, values: Iterable[bytes | None]) -> OutputBatch:
        return await self.process_records(self.records(values))

    async def process_records(self, records: list[ConsumerRecord[Any, Any]]) -> OutputBatch:
        self.now_s += 1
        [[output]] = await self.processor.process([(STATS, records)])
        return output

    def publish(self, output: OutputBatch) -> None:
        for table, changes in output.changes.items():
            table.stage(changes)
            table.apply(changes, (table.store.offset or 0) + len(changes))
        self.processor.acked(0, output)

    async def take(self, values: Iterable[bytes | None]) -> OutputBatch:
        output = await self.process(values)
        self.publish(output)
        return output


@pytest.fixture
async def owner(tmp_path: Path) -> Owner:
    return await Owner.make(tmp_path)


def window(minute: int = NOW_MINUTE, **fields: Any) -> WindowStats:
    return WindowStats(**{"model_id": "churn", "version": 3, "minute": minute, "requests": 1, **fields})


async def test_counts_of_a_minute_add_up(owner: Owner) -> None:
    parts = [window(requests=2), window(requests=3, errors={"internal": 1}), window(version=4)]
    await owner.take(map(encode_window, parts[:2]))
    await owner.take(map(encode_window, parts[2:]))
    await owner.take([encode_window(window(NOW_MINUTE + 1, requests=7))])

    first, second = owner.store.windows("churn", 3, 0)
    assert first == merged(parts[:2])
    assert (second.minute, second.requests) == (NOW_MINUTE + 1, 7)
    assert owner.store.windows("churn", 3, NOW_MINUTE + 1) == [second]
    assert owner.store.versions() == owner.store.versions("churn") == [("churn", 3), ("churn", 4)]
    assert owner.store.versions("other") == []


async def test_variants_and_revisions_have_windows_of_their_own(owner: Owner) -> None:
    parts = [window(variant="champion", alias_revision=1), window(variant="canary", alias_revision=2), window()]
    await owner.take(map(encode_window, parts))
    assert sorted(owner.store.windows("churn", 3, 0), key=encode_window) == sorted(parts, key=encode_window)


async def test_records_are_collected_before_they_are_added(owner: Owner) -> None:
    await owner.take([encode_window(window())])
    owner.now_s += 0.3
    assert await owner.processor.process([(STATS, owner.records([encode_window(window())]))]) == [[]]
    owner.now_s += 0.3
    [[_]] = await owner.processor.process([(STATS, owner.records([encode_window(window())]))])


@pytest.mark.parametrize("bad", [None, b"", b"garbage", encode_window(window(NOW_MINUTE + 100))])
async def test_a_bad_record_is_a_dead_letter_and_stops_nothing(owner: Owner, bad: bytes | None) -> None:
    output = await owner.take([encode_window(window()), bad, encode_window(window())])
    assert output.next_offset == 3
    assert [len(records) for records in output.by_topic.values()] == [1]
    assert {topic for topic, _ in output.by_topic} == {TOPICS.name("dead-letters")}
    (found,) = owner.store.windows("churn", 3, 0)
    assert found.requests == 2


async def test_a_window_that_grows_too_large_keeps_what_it_has(owner: Owner) -> None:
    many = [encode_window(window(errors={f"{place}-{n}" * 8: 1 for n in range(3_000)})) for place in "ab"]
    output = await owner.take(many)
    assert output.tally.errors == {"invalid_value": 1}
    (found,) = owner.store.windows("churn", 3, 0)
    assert found == decode_window(many[0])


async def test_dropped_output_is_not_counted(owner: Owner) -> None:
    await owner.take([encode_window(window())])
    output = await owner.process([encode_window(window()), encode_window(window(version=4))])
    for table, changes in output.changes.items():
        table.stage(changes)
        table.discard()
    owner.processor.rewound(0, [output])
    assert [found.requests for found in owner.store.windows("churn", 3, 0)] == [1]
    assert owner.store.versions() == [("churn", 3)]
    [[_]] = await owner.processor.process([(STATS, owner.records([encode_window(window())]))])


async def test_old_windows_are_removed(owner: Owner) -> None:
    await owner.take([encode_window(window()), encode_window(window(NOW_MINUTE + 1))])
    assert owner.processor.idle_output(STATS, 2, int(owner.now_s * 1000)) is None
    owner.now_s += 48 * 3_600 + 60
    output = owner.processor.idle_output(STATS, 2, int(owner.now_s * 1000))
    assert output is not None
    assert output.next_offset == 2
    owner.publish(output)
    assert [found.minute for found in owner.store.windows("churn", 3, 0)] == [NOW_MINUTE + 1]
    assert len(owner.store.table.partition(0).store) == 1

    late = await owner.take([encode_window(window())])
    assert late.changes == {}, "what is older than the windows is not counted"


async def test_the_oldest_windows_give_way(owner: Owner, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(windows_module, "WINDOWS_MAX", 3)
    await owner.take(encode_window(window(NOW_MINUTE + n)) for n in range(5))
    assert [found.minute - NOW_MINUTE for found in owner.store.windows("churn", 3, 0)] == [2, 3, 4]


async def test_windows_are_there_after_a_restart(owner: Owner) -> None:
    await owner.take([encode_window(window())])
    table = owner.store.table.partition(0)
    table.restore([(b"no window", b"x"), (WindowKey.of(window(version=9)).encode(), b"garbage")], 9)
    owner.processor.closed(0)
    assert owner.store.windows("churn", 3, 0) == []
    await owner.processor.opened(0)
    assert owner.store.windows("churn", 3, 0) == [window()]
    assert owner.store.windows("churn", 9, 0) == [], "an entry that cannot be read stops no other"


def counted(minute: int, age: list[int], rows: int = 300) -> WindowStats:
    return window(minute, requests=rows, features=Features(7, rows, {"age": FeatureStats(age)}))


BASELINE = Baseline(7, "given", 400, {"age": NumberBaseline([1.0], 0.0, 2.0, [200, 200])})


async def test_the_owner_measures_drift_of_the_last_hour(owner: Owner) -> None:
    known = {("churn", 3): BASELINE}
    drift = DriftWatch("default", owner.store, lambda *version: known.get(version))
    parts = [counted(NOW_MINUTE - 100, [300, 0]), counted(NOW_MINUTE, [150, 150]), window(version=4)]
    await owner.take(map(encode_window, parts))
    for _ in range(2):
        drift.step(owner.now_s)
    (found,) = drift.snapshot()
    assert (found.model_id, found.version, found.rows, found.source) == ("churn", 3, 300, "given")
    assert found.features == {"age": pytest.approx(0.0)}, "what is older than an hour is not in it"

    await owner.take([encode_window(counted(NOW_MINUTE, [900, 0], 900))])
    drift.step(owner.now_s)
    assert drift.snapshot() == (found,), "not again so soon"
    for _ in range(2):
        drift.step(owner.now_s + 61)
    (found,) = drift.snapshot()
    assert (found.rows, found.features["age"] > 0.2) == (1_200, True)
    drift.clear()
    assert drift.snapshot() == ()


async def test_a_learned_baseline_is_published_unless_there_is_one(owner: Owner) -> None:
    value, models = encode_baseline(BASELINE), (TOPICS.name("models"), 0)
    record = replaced(owner.records([value])[0], key=b"churn/3#learned")
    output = await owner.process_records([record])
    assert output.by_topic == {models: [(b"churn/3#learned", value, [])]}
    assert TopicPartition(*models) in {*owner.processor.outputs(0)}
    owner.known["churn", 3] = BASELINE
    assert (await owner.process_records([record])).by_topic == {}
    garbage = replaced(record, value=b"garbage")
    (topic,) = (await owner.process_records([garbage])).by_topic
    assert topic == (TOPICS.name("dead-letters"), 0)


async def test_drift_of_few_rows_is_not_reported(owner: Owner) -> None:
    drift = DriftWatch("default", owner.store, lambda _model, _version: BASELINE)
    await owner.take([encode_window(counted(NOW_MINUTE, [10, 0], 10))])
    drift.step(owner.now_s)
    assert drift.snapshot() == ()


@given(
    st.builds(
        WindowKey,
        st.from_regex(r"\A[A-Za-z0-9_-]{1,9}\Z"),
        st.integers(1, 10**9),
        st.integers(0, 2**31),
        st.sampled_from(["", "champion"]),
        st.integers(-1, 10),
        st.sampled_from(["", "champion", "eu.west"]),
    )
)
def test_the_key_of_an_entry_says_which_window_it_is(key: WindowKey) -> None:
    assert WindowKey.parse(key.encode()) == key


def test_keys_of_earlier_releases_are_read() -> None:
    assert WindowKey.parse(b"churn:3/29934000/canary/7") == WindowKey("churn", 3, 29_934_000, "canary", 7, "")
    with pytest.raises(ValueError, match="five"):
        WindowKey.parse(b"churn:3/29934000/canary/7/champion/x")
