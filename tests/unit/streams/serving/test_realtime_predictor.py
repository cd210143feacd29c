"""Predictions in a plain script: LightGBM's own numbers, the errors of the wire format, and the same with any cache."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest

from inferd.schemas.errors import (
    InferenceError,
    InvalidIdError,
    InvalidValueError,
    ModelNotFoundError,
    SchemaMismatchError,
    ServerError,
)
from inferd.schemas.models.model import Alias, SplitShare
from inferd.schemas.requests.request import Output
from inferd.streams.inference.inputs import Inputs
from inferd.streams.inference.runtime import Arrays
from inferd.streams.inference.user_code import PinnedModelId
from inferd.streams.serving.batch_predictor import BatchPredictor
from inferd.streams.serving.model_manager import ModelManager
from inferd.streams.serving.realtime_predictor import RealtimePredictor
from tests.unit.streams.inference.trained_models import train_on_frame
from tests.unit.streams.serving.conftest import SaveModel, expected, matrix

ROW = [1, 2, 3, 4, 5]


class GetAndSet:
    """A client of a text server as a cache: it returns bytes."""

    def __init__(self) -> None:
        self.kept: dict[str, bytes] = {}
        self.ttls: list[float | None] = []

    def get(self, key: str) -> bytes | None:
        return self.kept.get(key)

    def set(self, key: str, value: str, ttl: float | None = None) -> None:
        self.kept[key] = value.encode()
        self.ttls.append(ttl)


class Broken(dict[str, str]):
    def get(self, key: str, default: Any = None) -> Any:
        raise ConnectionError("the cache is down")

    def __setitem__(self, key: str, value: str) -> None:
        raise ConnectionError("the cache is down")


class Own(MutableMapping[str, str]):
    """A mapping that is not a dict."""

    def __init__(self) -> None:
        self.kept: dict[str, str] = {}

    def __getitem__(self, key: str) -> str:
        return self.kept[key]

    def __setitem__(self, key: str, value: str) -> None:
        self.kept[key] = value

    def __delitem__(self, key: str) -> None:
        del self.kept[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self.kept)

    def __len__(self) -> int:
        return len(self.kept)


CACHES = [None, dict, GetAndSet, Own, Broken]


@pytest.fixture(params=CACHES, ids=lambda cache: getattr(cache, "__name__", "none"))
def predictor(request: pytest.FixtureRequest, served: ModelManager) -> RealtimePredictor:
    return RealtimePredictor(served, None if request.param is None else request.param())


def test_one_row_gives_a_value_and_rows_a_list(predictor: RealtimePredictor) -> None:
    rows = matrix(20, seed=3)
    for _ in range(2):
        assert predictor.predict("churn", ROW) == expected([ROW])[0]
        assert predictor.predict("churn:1", tuple(ROW)) == expected([ROW])[0]
        assert predictor.predict("churn", rows.tolist()) == expected(rows)
        assert predictor.predict("churn", rows) == expected(rows)
        assert predictor.predict("churn", np.array(ROW)) == expected([ROW])[0]
        named = {f"Column_{place}": value for place, value in enumerate(ROW)}
        assert predictor.predict("churn", named) == expected([ROW])[0]
        assert predictor.predict("churn", [[1, None, 3, 4, float("nan")], ROW, ROW]) == expected(
            [[1, np.nan, 3, 4, np.nan], ROW, ROW]
        )


def test_other_outputs_are_named_in_the_error(predictor: RealtimePredictor) -> None:
    for _ in range(2):
        outputs = predictor.predict_outputs("churn", ROW, ["probabilities", "prediction", "leaves"])
        probability = expected([ROW])[0]
        assert list(outputs) == ["probabilities", "prediction", "leaves"]
        assert outputs["prediction"] == probability
        assert outputs["probabilities"] == [1 - probability, probability]
        assert all(isinstance(leaf, int) for leaf in outputs["leaves"])
    assert predictor.predict_outputs("churn", [ROW], ["raw"])["raw"] != [expected([ROW])[0]]


@pytest.mark.parametrize(
    ("model_id", "row", "error", "words"),
    [
        ("churn", [1, 2, 3], SchemaMismatchError, "row 0 has 3 features, expected 5"),
        ("churn", {"Column_0": 1}, SchemaMismatchError, "missing 'Column_1'"),
        ("churn", [1, 2, 3, 4, "five"], InvalidValueError, "'Column_4' is text"),
        ("churn", [ROW, [1, 2, float("inf"), 4, 5]], InvalidValueError, "row 1, feature 'Column_2'"),
        ("churn", object(), InvalidValueError, "expected a row or rows"),
        ("fraud", ROW, ModelNotFoundError, "register it"),
        ("a/b", ROW, InvalidIdError, "expected name, name:version or name@alias"),
    ],
)
def test_errors_are_those_of_the_wire(
    predictor: RealtimePredictor, model_id: str, row: Any, error: type[InferenceError], words: str
) -> None:
    with pytest.raises(error, match=words) as caught:
        predictor.predict(model_id, row)
    assert caught.value.message
    assert caught.value.code == error.code


def test_a_row_is_scored_once_for_each_model_version_and_tenant(
    served: ModelManager, save_model: SaveModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.register("churn", save_model(), trial=False, postprocess={"labels": ["stays", "goes"]})
    other = served.for_tenant("acme")
    other.register("churn", save_model(rounds=5), trial=False)
    cache: dict[str, str] = {}
    predictor = RealtimePredictor(served, cache)
    runtime = served.load("churn:1").runtime
    counted: list[int] = []
    predict = runtime.predict

    def count(rows: Inputs, outputs: tuple[Output, ...]) -> Arrays:
        counted.append(len(rows))
        return predict(rows, outputs)

    monkeypatch.setattr(runtime, "predict", count)
    assert predictor.predict("churn:1", [ROW, ROW, ROW]) == expected([ROW]) * 3
    assert predictor.predict("churn:1", ROW) == expected([ROW])[0]
    assert counted == [1]
    assert predictor.predict("churn:2", ROW) in {"stays", "goes"}
    assert RealtimePredictor(other, cache).predict("churn", ROW) == expected([ROW], rounds=5)[0]
    assert RealtimePredictor(served, cache, "acme").predict("churn", ROW) == expected([ROW], rounds=5)[0]
    assert predictor.predict_outputs("churn:1", ROW, ["raw"]) != {"raw": expected([ROW])[0]}
    assert len(cache) == 4
    assert all(isinstance(value, str) for value in cache.values())


def test_a_row_that_was_never_cached_is_a_miss(served: ModelManager) -> None:
    cache: dict[str, Any] = {}
    predictor = RealtimePredictor(served, cache)
    predictor.predict("churn", ROW)
    for junk in ("", "{", "[]", "[1, 2]", b"\xff", 7, object()):
        cache[next(iter(cache))] = junk
        assert predictor.predict("churn", ROW) == expected([ROW])[0]


def test_a_time_to_live_is_passed_to_the_cache(served: ModelManager, save_model: SaveModel) -> None:
    cache = GetAndSet()
    served.register("churn", save_model(), trial=False, cache={"ttl_s": 60.0, "max_entries": 10})
    predictor = RealtimePredictor(served, cache)
    predictor.predict("churn:1", [ROW])
    predictor.predict("churn:2", [1, 1, 1, 1, 1])
    assert cache.ttls == [None, 60.0]


@pytest.mark.parametrize("cache", [[], (), "text", object()])
def test_objects_that_are_not_a_cache_are_rejected(served: ModelManager, cache: Any) -> None:
    with pytest.raises(ServerError, match=r"get\(key\) and set\(key, value\)"):
        RealtimePredictor(served, cache)


def test_objects_that_are_not_a_manager_are_rejected() -> None:
    with pytest.raises(ServerError, match="expected a ModelManager"):
        RealtimePredictor("models")  # type: ignore[arg-type]


class Halved(RealtimePredictor):
    def predict(self, model_id: str, input_data: Any) -> Any:
        return super().predict(model_id, input_data) / 2


def test_a_subclass_overrides_the_prediction_only(served: ModelManager) -> None:
    model = served.load("churn")
    pinned = PinnedModelId.of("churn", model)
    predictor = Halved(served)
    assert predictor.answer(pinned, ROW, ("prediction",)) == {"prediction": expected([ROW])[0] / 2}
    outputs = predictor.answer(pinned, ROW, ("raw", "prediction"))
    assert outputs == {
        "raw": predictor.predict_outputs("churn", ROW, ["raw"])["raw"],
        "prediction": expected([ROW])[0] / 2,
    }


def test_a_pinned_reference_resolves_to_the_same_version(served: ModelManager, save_model: SaveModel) -> None:
    pinned = PinnedModelId.of("churn", served.load("churn"))
    served.register("churn", save_model(rounds=5), trial=False)
    predictor = RealtimePredictor(served)
    assert pinned == "churn"
    assert predictor.predict(pinned, ROW) == expected([ROW])[0]
    assert predictor.predict("churn", ROW) == expected([ROW], rounds=5)[0]


def test_a_split_sends_calls_to_both(served: ModelManager, save_model: SaveModel) -> None:
    served.register("churn", save_model(rounds=5), trial=False)
    served.set_alias("churn", "half", Alias(split=[SplitShare(1, 1.0), SplitShare(2, 1.0)]))
    predictor = RealtimePredictor(served)
    found = {predictor.predict("churn@half", ROW) for _ in range(64)}
    assert found == {expected([ROW])[0], expected([ROW], rounds=5)[0]}


def test_data_frames_are_predicted_as_lightgbm_predicts_them(manager: ModelManager, tmp_path: Path) -> None:
    """By name and with categories, whatever the index; as rows, a single row, and rows of a job."""
    trained = train_on_frame()
    path = tmp_path / "frame.txt"
    path.write_bytes(trained.text)
    manager.register("frame", path)
    frame = trained.frame.set_index(np.arange(len(trained.frame))[::-1])[trained.frame.columns[::-1]]
    expected = trained.booster.predict(trained.frame).tolist()
    predictor = RealtimePredictor(manager)
    assert predictor.predict("frame", frame) == expected
    assert predictor.predict("frame", pa.Table.from_pandas(frame, preserve_index=False)) == expected
    assert predictor.predict("frame", frame.convert_dtypes()) == expected
    assert predictor.predict("frame", frame.astype(object).iloc[3]) == expected[3]
    with BatchPredictor(manager) as batch:
        lines = batch.get_batch_results(batch.submit_batch("frame", frame), 60)
    assert [line["prediction"] for line in lines] == expected
    with pytest.raises(SchemaMismatchError, match="'index'"):
        predictor.predict("frame", frame.reset_index())
