"""User-defined predictors in a worker: micro-batches in one call, names without a model file, and metrics of their
time."""

from __future__ import annotations

import hashlib
import json
import threading
import time
from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
import numpy as np
import pytest

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.errors import InvalidValueError, ServerError
from inferd.schemas.jobs.chunk_codec import decode_chunk_result
from inferd.schemas.jobs.job import Chunk
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.schemas.requests.request import ModelReference
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.inference.own_models import own_digest
from inferd.streams.inference.scoring import Scorer
from inferd.streams.jobs.scoring.pinned_model import pin_model
from inferd.streams.jobs.scoring.scoring import ChunkScorer, ChunkWork
from inferd.streams.prediction_runner import PredictionRunner
from inferd.streams.requests.batch_scoring import BatchScoring
from inferd.streams.requests.batch_sizing import BatchSizer
from inferd.streams.serving.realtime_predictor import RealtimePredictor
from inferd.streams.serving.user_code import UserCode
from inferd.streams.settings import LaneSettings
from inferd.streams.telemetry.measure import LaneMeasures
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import Fetched, catalog_of, score

calls: list[tuple[str, list[Any]]] = []
threads: set[str] = set()


@pytest.fixture(autouse=True)
def forgotten() -> None:
    calls.clear()
    threads.clear()


class Totals(RealtimePredictor):
    """Owns `total`: the sum of a row; `bug` in a row raises, and so does a negative number, as an error of its row."""

    own_models: ClassVar[dict[str, int]] = {"total": 3}

    def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        calls.append((model_id, list(input_batch)))
        threads.add(threading.current_thread().name)
        if any("bug" in row for row in input_batch):
            raise ZeroDivisionError("row 4711")
        if any(row[0] < 0 for row in input_batch):
            raise InvalidValueError("a row is negative")
        return [InvalidValueError("zero") if row[0] == 0 else float(sum(row)) for row in input_batch]


class OneByOne(RealtimePredictor):
    own_models: ClassVar[dict[str, int]] = {"one": 1}

    def predict(self, model_id: str, input_data: Any) -> Any:
        calls.append((model_id, input_data))
        return {"rows": len(input_data)}


class Wrapped(RealtimePredictor):
    """Ten times the model's predictions, for a whole micro-batch."""

    def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        calls.append((model_id, list(input_batch)))
        return [10 * each for each in super().predict_batch(model_id, input_batch)]


def scorer_of(realtime: type[RealtimePredictor], catalog: ModelCatalog | None = None) -> Scorer:
    catalog = catalog or ModelCatalog()
    custom = UserCode(("default",), realtime)
    custom.follow({"default": catalog})
    return Scorer(catalog, DEFAULT_LIMITS, ask=custom.ask("default"), ask_rows=custom.ask_rows("default"))


def request(input_data: Any, model_id: str = "total", **fields: Any) -> bytes:
    return msgspec.msgpack.encode({"model_id": model_id, "input_data": input_data, **fields})


def values_or_codes(values: Sequence[bytes]) -> list[Any]:
    """The prediction of each result, or the code of its error."""
    results = [msgspec.msgpack.decode(value) for value in values]
    return [result["error"]["code"] if "error" in result else result["prediction"] for result in results]


# ------------------------------------------------------------------------------------------------------ micro-batches


def test_the_rows_of_a_micro_batch_are_passed_in_one_call() -> None:
    tensor = {"dtype": "<f4", "shape": [2, 2], "data": np.arange(1, 5, dtype="<f4").tobytes()}
    inputs = [[1, 2], [[3, 4], [5, 6]], tensor, [7], [[8]]]
    outcome = score(scorer_of(Totals), [request(each) for each in inputs])
    assert values_or_codes(outcome.values) == [3, [7, 11], [3, 7], 7, [8]]
    assert len(calls) == 1
    assert [np.array(row).tolist() for row in calls[0][1]] == [[1, 2], [3, 4], [5, 6], [1, 2], [3, 4], [7], [8]]
    assert outcome.by_model == {("total", 3): (5, 7)}


def test_no_row_disturbs_another_request() -> None:
    inputs: list[Any] = [[1], ["bug"], [2, 2], [-1], [0], [[3], [-1]], [[4], ["bug"]], [5]]
    outcome = score(scorer_of(Totals), [request(each) for each in inputs])
    assert values_or_codes(outcome.values) == [
        *(1, "internal", 4, "invalid_value", "invalid_value", "invalid_value", "internal", 5),
    ]
    assert b"4711" not in b"".join(outcome.values)


def test_a_call_that_gives_too_few_predictions_fails_its_requests() -> None:
    class Short(Totals):
        def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
            return []

    assert values_or_codes(score(scorer_of(Short), [request([1]), request([2])]).values) == ["internal", "internal"]


def test_a_call_that_raises_system_exit_fails_its_requests() -> None:
    class Ends(Totals):
        def predict_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
            raise SystemExit(3)

    assert values_or_codes(score(scorer_of(Ends), [request([1])]).values) == ["internal"]


def test_references_and_encodings_are_calls_of_their_own() -> None:
    as_json = Fetched(
        json.dumps({"model_id": "total", "input_data": [1]}).encode(), headers=[("content-type", b"application/json")]
    )
    outcome = score(scorer_of(Totals), [request([1]), request([2], "total:3"), as_json, request([4])])
    assert sorted(calls) == [("total", [[1]]), ("total", [[1], [4]]), ("total:3", [[2]])]
    assert json.loads(outcome.values[2])["prediction"] == 1


def test_super_answers_with_the_model_of_the_request() -> None:
    catalog = catalog_of(sum_model(1), sum_model(2))
    asked = [request([1, 2], "sum:1"), request([[1, 2], [3, 4]], "sum:1"), request([1], "sum:1")]
    outcome = score(scorer_of(Wrapped, catalog), asked)
    assert values_or_codes(outcome.values) == [30.0, [30.0, 70.0], "schema_mismatch"]
    raw = score(scorer_of(Wrapped, catalog), [request([1, 2], "sum:1", outputs=["raw", "prediction"])])
    result = msgspec.msgpack.decode(raw.values[0])
    assert (result["raw"], result["prediction"]) == (3.0, 30.0)


# ------------------------------------------------------------------------------------------------------- own names


@pytest.mark.parametrize(("realtime", "name", "version"), [(Totals, "total", 3), (OneByOne, "one", 1)])
def test_a_user_defined_name_needs_no_model(realtime: type[RealtimePredictor], name: str, version: int) -> None:
    outcome = score(scorer_of(realtime), [request([1, 2], reference) for reference in (name, f"{name}:{version}")])
    for value in outcome.values:
        result = msgspec.msgpack.decode(value)
        assert (result["model_id"], result["version"]) == (name, version)
        assert result["digest"] == own_digest(name, version)
    wrong = [request([1], f"{name}:{version + 1}"), request([1], f"{name}@champion"), request([1], "other")]
    codes = values_or_codes(score(scorer_of(realtime), wrong).values)
    assert codes == ["version_not_found", "version_not_found", "model_not_found"]


def test_a_digest_depends_only_on_name_and_version() -> None:
    assert own_digest("total", 3) == hashlib.sha256(b"inferd own model\ntotal\n3").hexdigest()
    assert len({own_digest(*each) for each in (("total", 3), ("total", 4), ("totals", 3))}) == 3


def test_a_user_defined_name_takes_precedence_over_a_deployed_model() -> None:
    class Sum(Totals):
        own_models: ClassVar[dict[str, int]] = {"sum": 1}

    catalog = catalog_of(sum_model(1), sum_model(2))
    outcome = score(scorer_of(Sum, catalog), [request([1, 2, 3], "sum"), request([1, 2], "sum:2")])
    assert values_or_codes(outcome.values) == [6, "version_not_found"]
    assert catalog.resolve(ModelReference.parse("sum")).manifest.sha256 == own_digest("sum", 1)


def test_other_outputs_of_a_user_defined_name_are_rejected() -> None:
    assert values_or_codes(score(scorer_of(Totals), [request([1], outputs=["raw"])]).values) == ["invalid_value"]


@pytest.mark.parametrize("own", [{"a/b": 1}, {"": 1}, {"a": 0}, {"a": True}, {"a": "1"}, {"a": 10**9}])
def test_invalid_names_and_versions_fail_the_start(own: dict[str, Any]) -> None:
    class Wrong(Totals):
        own_models = own

    with pytest.raises(ServerError, match="own_models"):
        UserCode(("default",), Wrong)


@pytest.mark.parametrize(("realtime", "name"), [(Totals, "total"), (OneByOne, "one")])
def test_jobs_of_a_user_defined_name_are_scored_by_its_predictor(realtime: type[RealtimePredictor], name: str) -> None:
    catalog = ModelCatalog()
    custom = UserCode(("default",), realtime)
    custom.follow({"default": catalog})
    pinned = pin_model(catalog, ModelReference.parse(name), ("prediction",), "j")
    rows = [[1, 2], [3, 4]]
    chunk = Chunk(
        job_id="j", chunk=0, first_row=0, row_count=2, model_id=name, version=pinned.version, digest=pinned.digest,
        partition=0,
    )  # fmt: skip
    batch = ChunkScorer(catalog, DEFAULT_LIMITS).prepare([ChunkWork(chunk, msgspec.msgpack.encode(rows))])
    (group,) = batch.groups
    assert (group.in_thread, group.rows) == (True, 2)
    group.predict()
    (result,) = batch.finish()
    assert result is not None
    expected = [3, 7] if name == "total" else [{"rows": 2}] * 2
    assert decode_chunk_result(result, MSGPACK, DEFAULT_LIMITS).outputs["prediction"] == expected


# ------------------------------------------------------------------------------------------------------------- time


@pytest.mark.parametrize(
    ("realtime", "name", "version"), [(Totals, "total", 3), (OneByOne, "one", 1), (Wrapped, "sum", 1)]
)
async def test_its_time_and_rows_are_the_model_s_and_the_loop_does_not_wait(
    realtime: type[RealtimePredictor], name: str, version: int
) -> None:
    measures = LaneMeasures()
    scoring = BatchScoring(measures, BatchSizer(LaneSettings()), PredictionRunner("test", measures, 50.0), time.time)
    records = [Fetched(request([[1, 2], [3, 4]], name), offset=number) for number in range(3)]
    await scoring.score("default", scorer_of(realtime, catalog_of(sum_model(1))), [(0, records)], None, None)
    counters = measures.by_model["default", name, version]
    assert (counters.requests, counters.rows, counters.scored_rows) == (3, 6, 6)
    assert counters.predict_s > 0
    assert threading.current_thread().name not in threads
