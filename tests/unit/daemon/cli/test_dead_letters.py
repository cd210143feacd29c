"""`inferd dead-letters`: listing and showing the records of a topic."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from aiokafka import ConsumerRecord, TopicPartition
from click.testing import CliRunner, Result

from inferd.daemon import dead_letter_log
from inferd.daemon.cli import dead_letters, main
from inferd.schemas.connection import KafkaConnection
from inferd.schemas.dead_letters import DeadLetter

TOPIC = "inferd.default.dead-letters"


def record(partition: int, offset: int, code: str = "malformed", value: bytes | None = b"{}", **changes: Any) -> Any:
    letter = DeadLetter(
        code=code,
        message="field \x1b[2J is unknown",
        topic="inferd.default.requests",
        partition=partition,
        offset=100 + offset,
        timestamp=1_700_000_000_000,
        worker="w1",
        key=b"k\x1b",
        value=value,
        original_headers=(("correlation-id", b"c1"),),
    )
    fields: dict[str, Any] = {
        "topic": TOPIC,
        "partition": partition,
        "offset": offset,
        "timestamp": 1_700_000_000_000 + 10 * offset + partition,
        "timestamp_type": 0,
        "key": letter.key,
        "value": value,
        "checksum": None,
        "serialized_key_size": 2,
        "serialized_value_size": len(value or b""),
        "headers": letter.headers(),
    }
    return ConsumerRecord(**fields | changes)


class Log:
    """A topic with two partitions; records the ranges that are read."""

    def __init__(self) -> None:
        self.records = [record(0, n) for n in range(2, 7)] + [record(1, n, "too_deep") for n in range(3)]
        self.asked: dict[TopicPartition, tuple[int, int]] = {}
        self.topic = TOPIC

    async def ranges(self) -> dict[TopicPartition, tuple[int, int]]:
        return {TopicPartition(TOPIC, 0): (2, 7), TopicPartition(TOPIC, 1): (0, 3)}

    async def read(self, ranges: dict[TopicPartition, tuple[int, int]]) -> AsyncIterator[Any]:
        self.asked = ranges
        for tp, (first, end) in ranges.items():
            for held in self.records:
                if held.partition == tp.partition and first <= held.offset < end:
                    yield held


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> Log:
    log = Log()

    @asynccontextmanager
    async def open_topic(_connection: KafkaConnection, topic: str) -> AsyncIterator[Log]:
        assert topic == TOPIC
        yield log

    def run_with_broker(_connection: KafkaConnection, work: Any) -> Any:
        import asyncio

        return asyncio.run(work())

    monkeypatch.setattr(dead_letter_log, "open_topic", open_topic)
    monkeypatch.setattr(dead_letters, "run_with_broker", run_with_broker)
    return log


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["dead-letters", *arguments], env={"INFERD_BROKER": None, "INFERD_TENANTS": None})


def places(result: Result) -> list[str]:
    return [f"{entry['partition']}:{entry['offset']}" for entry in json.loads(result.stdout)]


def test_the_newest_are_listed_oldest_first(log: Log) -> None:
    assert places(run("list", "--last", "3", "--output", "json")) == ["0:4", "0:5", "0:6"]
    assert log.asked == {TopicPartition(TOPIC, 0): (4, 7), TopicPartition(TOPIC, 1): (0, 3)}


def test_all_are_listed_by_time(log: Log) -> None:
    assert places(run("list", "--all", "--output", "json")) == [
        *("1:0", "1:1", "0:2", "1:2"),
        *("0:3", "0:4", "0:5", "0:6"),
    ]


def test_a_code_is_searched_in_the_whole_topic(log: Log) -> None:
    assert places(run("list", "--code", "too_deep", "--last", "2", "--output", "json")) == ["1:1", "1:2"]
    assert log.asked[TopicPartition(TOPIC, 0)] == (2, 7)


def test_the_table_has_the_source_of_each_record(log: Log) -> None:
    header, first, *_ = run("list", "--last", "1").stdout.splitlines()
    assert header.split() == ["dead", "letter", "time", "code", "source", "key", "bytes", "message"]
    assert "0:6" in first
    assert "inferd.default.requests 0:106" in first
    assert "field \\x1b[2J is unknown" in first
    assert "\x1b" not in first


def test_invalid_dead_letters_are_reported(log: Log) -> None:
    log.records = [record(0, 6, headers=(), key=None)]
    (entry,) = json.loads(run("list", "--output", "json").stdout)
    assert "header inferd-error-code is missing" in entry["problem"]
    assert "inferd-error-code" in run("list").stdout


def test_no_dead_letters_is_an_empty_result(log: Log) -> None:
    log.records = []
    done = run("list")
    assert (done.exit_code, done.stderr) == (0, "no dead letters\n")
    assert json.loads(run("list", "--output", "json").stdout) == []


def test_show_prints_headers_and_value(log: Log) -> None:
    log.records.append(record(1, 2, value=b'{"model_id":"x\x1b"}'.replace(b"\x1b", b"\\u001b")))
    log.records = [held for held in log.records if held.partition == 0] + log.records[-1:]
    text = run("show", "1:2").stdout
    assert "malformed" in text
    assert "correlation-id" in text
    assert '  "model_id": "x\\u001b"' in text
    assert "\x1b" not in text


def test_show_as_json_has_the_bytes(log: Log) -> None:
    log.records[0] = record(0, 2, value=b"\xc1\x00")
    said = json.loads(run("show", "0:2", "--output", "json").stdout)
    assert (said["value_base64"], said["value_format"], said["value"]) == ("wQA=", "binary", None)
    assert said["headers"] == [["correlation-id", "c1"]]
    assert said["source"]["offset"] == 102


def test_the_raw_value_is_written_byte_for_byte(log: Log) -> None:
    log.records[0] = record(0, 2, value=b"\xc1\x00\n")
    assert run("show", "0:2", "--raw").stdout_bytes == b"\xc1\x00\n"


@pytest.mark.parametrize(
    ("place", "code", "said"),
    [
        ("0:7", 1, "has offsets 2 to 6"),
        ("0:0", 1, "has offsets 2 to 6"),
        ("5:0", 1, "has no partition 5: its partitions are 0 to 1"),
        ("5", 2, "is not PARTITION:OFFSET"),
        ("a:b", 2, "is not PARTITION:OFFSET"),
        ("1:٣", 2, "is not PARTITION:OFFSET"),
    ],
)
def test_an_offset_without_a_record(log: Log, place: str, code: int, said: str) -> None:
    done = run("show", place)
    assert done.exit_code == code
    assert said in done.stderr


def test_a_record_removed_by_compaction_or_abort(log: Log) -> None:
    log.records = []
    done = run("show", "0:4")
    assert (done.exit_code, "has no record at 0:4" in done.stderr) == (1, True)
