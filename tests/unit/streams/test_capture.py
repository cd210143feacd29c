"""Captured requests: which ones, what of them, and where they are written."""

from __future__ import annotations

from typing import Any

import msgpack
import pytest

from inferd.schemas.capture import CapturedRequest, decode_captured, encode_captured
from inferd.schemas.errors import MalformedError
from inferd.schemas.limits import Limits
from inferd.schemas.models import Alias, SplitShare
from inferd.streams.capture import Capture
from inferd.streams.inference.outcome import Outcome
from inferd.streams.inference.scoring import Scorer
from inferd.streams.kafka.destinations import UNCHECKED, Destinations
from inferd.streams.kafka.topic_checks import TopicState
from inferd.streams.lane.output_batch import OutputBatch
from inferd.streams.recording import Part
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import Fetched, catalog_of, score

TOPIC = "ns.default.capture"
SMALL = Destinations([TopicState(TOPIC, "capture", 2, 1, {"max.message.bytes": "2000"})])


def record(offset: int, rows: Any, key: bytes | None = b"k", **fields: Any) -> Fetched:
    return Fetched(msgpack.packb({"model_id": "sum", "input_data": rows, **fields}), offset, key)


def outcome_of(records: list[Fetched]) -> Outcome:
    catalog = catalog_of(sum_model(1), sum_model(2))
    catalog.put_alias("sum", "split", Alias(split=[SplitShare(1, 3.0), SplitShare(2, 1.0)], revision=7))
    return score(Scorer(catalog, Limits()), list(records), partition=3)


def captured(records: list[Fetched], share: float = 1.0, destinations: Destinations = UNCHECKED) -> list[Any]:
    """What is captured of records of partition 3."""
    output = OutputBatch(0, 0, [])
    capture = Capture(TOPIC, share, destinations)
    capture.add([Part(range(len(records)), 3, records, output)], outcome_of(records), 1_700)
    return [(key, decode_captured(value)) for each in output.by_topic.values() for key, value, _ in each]


def test_a_captured_request_has_its_features_outputs_and_identity() -> None:
    records = [record(4, [1.0, 2.5], id="one"), record(5, [{"a": 2.0, "b": 3.0}], None, model_id="sum:1")]
    assert captured(records) == [
        (b"k", CapturedRequest(
            id="one", model_id="sum", version=2, scored_at=1_700,
            features={"a": [1.0], "b": [2.5]}, outputs={"prediction": [3.5]},
        )),
        (b"3-5", CapturedRequest(
            id="3-5", model_id="sum", version=1, scored_at=1_700,
            features={"a": [2.0], "b": [3.0]}, outputs={"prediction": [5.0]},
        )),
    ]  # fmt: skip


def test_the_outputs_that_were_asked_for_are_captured_row_by_row() -> None:
    ((_, found),) = captured([record(0, [[1, 2], [3, 4]], id="r", outputs=["raw", "prediction"])])
    assert dict(found.outputs) == {"raw": [3.0, 7.0], "prediction": [3.0, 7.0]}
    assert dict(found.features) == {"a": [1.0, 3.0], "b": [2.0, 4.0]}


def test_requests_to_an_alias_have_its_revision_and_variant() -> None:
    records = [record(n, [n, 1], b"k%d" % n, id=f"r{n}", model_id="sum@split") for n in range(40)]
    found = captured(records)
    assert {(each.version, each.variant, each.alias_revision) for _, each in found} == {
        (1, "champion", 7), (2, "canary", 7),
    }  # fmt: skip


def test_failed_requests_are_not_captured() -> None:
    records = [record(0, ["x", 1], id="bad"), record(1, [1, 1], id="good"), Fetched(b"garbage", 2)]
    assert [each.id for _, each in captured(records)] == ["good"]


def test_the_share_is_by_id_and_independent_of_splits() -> None:
    records = [record(n, [n, 1], None, id=f"r{n}", model_id="sum@split") for n in range(2_000)]
    found = [each for _, each in captured(records, 0.25)]
    assert len(found) == pytest.approx(500, abs=80)
    assert sum(each.version == 2 for each in found) == pytest.approx(125, abs=45)
    again = [each for _, each in captured(records[::-1], 0.25)]
    assert {each.id for each in again} == {each.id for each in found}


def test_records_that_are_processed_again_are_not_captured() -> None:
    records = [record(n, [n, 1], id=f"r{n}") for n in range(4)]
    output = OutputBatch(0, 0, [])
    Capture(TOPIC, 1.0, UNCHECKED).add([Part(range(1, 3), 3, records[1:3], output)], outcome_of(records), 0)
    assert [decode_captured(value).id for _, value, _ in output.by_topic[TOPIC, 3]] == ["r1", "r2"]


def test_a_request_too_large_for_the_topic_is_counted_and_fails_nothing() -> None:
    records = [record(0, [[1, 2]] * 500, id="large"), record(1, [1, 2], id="small")]
    output = OutputBatch(0, 0, [])
    capture = Capture(TOPIC, 1.0, SMALL)
    capture.add([Part(range(2), 3, records, output)], outcome_of(records), 0)
    assert [decode_captured(value).id for _, value, _ in output.by_topic[TOPIC, 1]] == ["small"]
    assert (capture.written, capture.refused) == (1, 1)


def test_http_requests_wait_for_the_next_output() -> None:
    capture, output = Capture(TOPIC, 1.0, SMALL), OutputBatch(0, 0, [])
    records = [record(0, [1, 2], None, id="http")]
    capture.add([Part(range(1), -1, records, None)], outcome_of(records), 0)
    assert capture.written == 0
    for _ in range(2):
        capture.add_late(1, output)
    assert [(key, decode_captured(value).id) for key, value, _ in output.by_topic[TOPIC, 1]] == [(b"http", "http")]


@pytest.mark.parametrize(
    "value",
    [None, b"", b"x", msgpack.packb({"id": "r"}), encode_captured(
        CapturedRequest(id="r", model_id="m", version=1, scored_at=0, features={"a": [1.0]}, outputs={"prediction": []})
    )],
    ids=["none", "empty", "garbage", "incomplete", "ragged"],
)  # fmt: skip
def test_records_of_others_are_refused(value: bytes | None) -> None:
    with pytest.raises(MalformedError, match="not a captured request"):
        decode_captured(value)
