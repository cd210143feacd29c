"""Scoring of routes: rows of a model from records, with the same bits as a request for them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import msgpack
import msgspec
import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import InvalidValueError, MalformedError
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.models import Alias, Feature, Manifest, SplitShare
from inferd.schemas.routes import Format, Route, Sink, Source
from inferd.streams.inference import ModelCatalog, Outcome, Scorer, ServedModel, Version, compile_postprocess
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.inference.splits import versions_of
from inferd.streams.routes import RouteScorer
from tests.fixtures.lane import SumRuntime, sum_model


@dataclass(frozen=True)
class Record:
    value: bytes | None
    key: bytes | None = b"k"
    offset: int = 0
    timestamp: int = 1_000
    headers: tuple[tuple[str, bytes | None], ...] = ()


ROUTE = Route("r", Source(["in"], Format("json")), "sum", Sink("out", field="score"))


def catalog(*versions: int, runtime: SumRuntime | None = None) -> ModelCatalog:
    found = ModelCatalog()
    for number in versions or (1,):
        served = sum_model(number, runtime)
        found.put(Version(served.manifest, "ready", served=served))
    return found


def score(scorer: RouteScorer, *records: Record) -> Outcome:
    batch = scorer.of_topic("in").prepare([(0, records)], 0)
    for group in batch.groups:
        group.predict()
    return batch.finish()


def scorer(models: ModelCatalog | None = None, **changes: Any) -> RouteScorer:
    return RouteScorer(msgspec.structs.replace(ROUTE, **changes), models or catalog(), DEFAULT_LIMITS, "inferd")


def record(value: Any, **fields: Any) -> Record:
    return Record(value if isinstance(value, bytes) else json.dumps(value).encode(), **fields)


def field_of(value: bytes) -> Any:
    return json.loads(value)["score"]


def test_features_come_from_paths_constants_and_what_is_beside_the_value() -> None:
    one = record({"x": {"y": [2.5]}}, key=b"4", headers=(("h", b"1"), ("h", b"7")))
    for features, constants, expected in (
        ({"a": "x.y[0]"}, {"b": 1}, 3.5),
        ({"a": "$key", "b": "$headers.h"}, {}, 11.0),
        ({"a": "$timestamp", "b": "$key"}, {}, 1_004.0),
    ):
        (value,) = score(scorer(features=features, constants=constants), one).values
        assert field_of(value) == {"prediction": expected, "model_id": "sum", "version": 1}


def test_missing_null_and_no_time_stamp_are_missing_values() -> None:
    (value,) = score(scorer(features={"b": "$timestamp"}), record({"a": 1}, timestamp=-1)).values
    assert value == b""  # the sum of a missing value is no finite number
    assert isinstance(score(scorer(), record({"a": 1})).failures[0], InvalidValueError)


def test_poison_does_not_disturb_its_neighbours() -> None:
    records = [record({"a": n, "b": 1}) for n in range(5)]
    records[1:1] = [record(b"{"), record({"a": "text", "b": 1}), record({"a": 1, "b": 10**400})]
    outcome = score(scorer(), *records)
    assert [error.code for _, error in sorted(outcome.failures.items())] == [
        "malformed",
        "invalid_value",
        "invalid_value",
    ]
    assert [field_of(value)["prediction"] for value in outcome.values if value] == [1, 2, 3, 4, 5]


def test_errors_name_the_feature_and_no_row_and_the_byte_of_a_number_that_is_too_large() -> None:
    records = [record({"a": 1, "b": 1}), record({"a": "text", "b": 1}), record(b'{"c": "1e999", "a": 1, "b": -1e999}')]
    failures = score(scorer(), *records).failures
    assert failures[1].message.startswith("feature 'a' ")
    assert failures[2].message == "record: the number -1e999 at byte 28 is beyond float64"


def test_a_model_that_raises_for_one_record_fails_it_alone() -> None:
    runtime = SumRuntime()
    runtime.raises = lambda matrix: ZeroDivisionError("bug") if (matrix[:, 0] == 2).any() else None
    outcome = score(scorer(catalog(runtime=runtime)), *(record({"a": n, "b": 0}) for n in range(4)))
    assert {index: error.code for index, error in outcome.failures.items()} == {2: "internal"}
    assert len(outcome.faults) == 1
    assert [bool(value) for value in outcome.values] == [True, True, False, True]


def test_errors_go_to_the_sink_if_the_route_says_so_except_of_what_cannot_be_read() -> None:
    outcome = score(scorer(on_error="sink"), record({"a": "text", "b": 1}), record(b"{"))
    assert isinstance(outcome.failures[1], MalformedError)
    assert outcome.values[1] == b""
    assert field_of(outcome.values[0])["error"]["code"] == "invalid_value"
    assert field_of(outcome.values[0])["model_id"] == "sum"


def test_records_wait_for_a_model_and_for_one_that_fits() -> None:
    models = ModelCatalog()
    for waits, message in (
        (scorer(models), "no model 'sum'"),
        (scorer(features={"colour": "c"}), "colour"),
        (scorer(outputs=["leaves"]), "leaves"),
        (scorer(model="sum:9"), "9"),
    ):
        assert message in (waits.fit() or "")
        outcome = score(waits, record({"a": 1, "b": 2}))
        assert message in outcome.unready[0]
        assert not outcome.failures
    assert scorer().fit() is None
    models.put(catalog().versions()[0])
    assert scorer(models).fit() is None


def test_an_alias_and_its_variant_are_known_for_each_record() -> None:
    models = catalog(1, 2)
    assert score(scorer(models), record({"a": 1, "b": 2})).variants.of(range(1)) is None
    shares = [SplitShare(1, 1), SplitShare(2, 1)]
    models.put_alias("sum", "champion", Alias(split=shares, revision=4))
    records = [record({"a": 1, "b": 2}, key=b"k%d" % number) for number in range(20)]
    found = score(scorer(models), *records).variants.of(range(20))
    names = ["champion" if v == 1 else "canary" for v in versions_of(shares, [b"k%d" % n for n in range(20)]).tolist()]
    assert found == [(("inferd-alias-revision", b"4"), ("inferd-variant", name.encode())) for name in names]


def test_a_split_is_decided_by_the_key_as_for_requests() -> None:
    models = catalog(1, 2)
    models.put_alias("sum", "champion", Alias(split=[SplitShare(1, 1), SplitShare(2, 1)]))
    records = [record({"a": n, "b": 0}, key=b"%d" % n, offset=n) for n in range(50)]
    records += [record({"a": 0, "b": 0}, key=None, offset=n) for n in range(50)]
    versions = [field_of(value)["version"] for value in score(scorer(models), *records).values]
    requests = [
        Record(msgpack.packb({"model_id": "sum", "input_data": [1.0, 2.0]}), each.key, each.offset) for each in records
    ]
    batch = Scorer(models, DEFAULT_LIMITS).prepare([(0, requests)], 0)
    for group in batch.groups:
        group.predict()
    assert versions == [msgpack.unpackb(value)["version"] for value in batch.finish().values]
    assert set(versions) == {1, 2}


class RowRuntime(SumRuntime):
    """Predicts a hash of the bits of each row, so that any difference shows."""

    n_features = 4
    feature_names = ("a", "b", "c", "d")

    def predict(self, matrix: Any, outputs: Any) -> Any:
        weights = np.array([1.0, 3.0, 7.0, 11.0])
        return {output: (np.nan_to_num(matrix, nan=-99.0) * weights).sum(axis=1) for output in outputs}


def rich_model() -> ServedModel:
    features = [
        Feature("a"), Feature("b", dtype="float32"), Feature("c", dtype="category", categories=["x", "y", "z"]),
        Feature("d", dtype="int64", required=False),
    ]  # fmt: skip
    manifest = Manifest("rich", 1, "lightgbm", "0" * 64, 10, features, "regression", 1)
    return ServedModel(manifest, RowRuntime(), FeatureSchema(manifest), compile_postprocess(manifest))


NUMBER = (
    st.none()
    | st.booleans()
    | st.integers(-(2**60), 2**60)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.just("text")
)
ROW = st.fixed_dictionaries(
    {"a": NUMBER, "b": NUMBER, "c": st.sampled_from(["x", "y", "z", "other", None, 1]), "d": NUMBER}
)  # fmt: skip


@given(st.lists(ROW, min_size=1, max_size=8), st.sampled_from(["json", "msgpack"]))
def test_predictions_and_errors_are_those_of_requests(rows: list[dict[str, Any]], name: str) -> None:
    models = ModelCatalog()
    served = rich_model()
    models.put(Version(served.manifest, "ready", served=served))
    encode = {"json": msgspec.json.encode, "msgpack": msgpack.packb}[name]
    route = scorer(models, source=Source(["in"], Format(name)), model="rich", sink=Sink("out", "result"))
    routed = score(route, *(Record(encode(row)) for row in rows))
    requests = [
        Record(msgpack.packb({"model_id": "rich", "input_data": row}, default=str), offset=n)
        for n, row in enumerate(rows)
    ]
    batch = Scorer(models, DEFAULT_LIMITS).prepare([(0, requests)], 0)
    for group in batch.groups:
        group.predict()
    asked = batch.finish()
    assert {n: error.code for n, error in routed.failures.items()} == {n: e.code for n, e in asked.failures.items()}
    decode = {"json": json.loads, "msgpack": msgpack.unpackb}[name]
    for number, value in enumerate(routed.values):
        if number not in routed.failures:
            assert decode(value)["prediction"] == msgpack.unpackb(asked.values[number])["prediction"]


def test_usual_and_unusual_records_are_answered_in_their_order() -> None:
    """Those that a kernel reads, those that it leaves to the typed decoder, invalid ones, and those of two versions."""
    texts = ['{"a":%d,"b":1}', '{"\\u0061":%d,"b":1}', '{"a":%d,"b":1,"a":%d}', "{", '{"a":%d,"b":"text"}']
    chosen = [texts[n % 7 % 5] for n in range(60)]
    records = [Record((text % ((n,) * text.count("%"))).encode(), key=b"%d" % n) for n, text in enumerate(chosen)]
    models = catalog(1, 2)
    models.put_alias("sum", "champion", Alias(split=[SplitShare(1, 1), SplitShare(2, 1)]))
    for model in ("sum:1", "sum"):
        outcome = score(scorer(models, model=model), *records)
        for n, (text, value) in enumerate(zip(chosen, outcome.values, strict=True)):
            if text in texts[3:]:
                assert outcome.failures[n].code == ("malformed" if text == "{" else "invalid_value")
            else:
                assert value.startswith(records[n].value[:-1])  # type: ignore[index]
                assert field_of(value)["prediction"] == n + 1


def test_the_added_field_is_seen_by_every_reader() -> None:
    records = [record({"a": 1, "b": 2, "score": None}), record(b'{"a":1,"b":2,"\\u0073core":1}'), record({"score": 1})]
    outcome = score(scorer(), *records)
    assert [error.code for error in outcome.failures.values()] == ["schema_mismatch"] * 3
