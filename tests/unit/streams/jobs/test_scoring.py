"""Chunks of jobs: exact predictions, one typed error for each bad row, retries of failed rows, waiting for models."""

from __future__ import annotations

import math
from collections.abc import Callable
from random import Random
from typing import Any

import msgspec
import numpy as np
import pytest

from inferd.schemas.codecs import (
    JSON,
    MSGPACK,
    Codec,
    codec_named,
)
from inferd.schemas.errors import InvalidValueError, ModelNotReadyError, VersionNotFoundError
from inferd.schemas.jobs.chunk_codec import decode_chunk_result, encode_chunk_result
from inferd.schemas.jobs.codec import encode_rows
from inferd.schemas.jobs.job import Chunk, ChunkResult, Source
from inferd.schemas.limits import DEFAULT_LIMITS, Limits
from inferd.schemas.models import Alias, SplitShare
from inferd.schemas.requests.request import ModelReference, Output
from inferd.streams.inference.catalog import ModelCatalog, ServedModel, Version
from inferd.streams.inference.features.matrix import FeatureSchema
from inferd.streams.inference.formats.lightgbm.runtime import LightGBMRuntime
from inferd.streams.inference.manifests import manifest_of
from inferd.streams.inference.postprocess import compile_postprocess
from inferd.streams.jobs.scoring.pinned_model import model_of, pin_model
from inferd.streams.jobs.scoring.scoring import (
    ChunkScorer,
    ChunkWork,
    ProcessBatch,
    chunk_work,
)
from tests.fixtures.lane import SumRuntime, sum_model
from tests.fixtures.scoring import catalog_of
from tests.unit.streams.inference.trained_models import Trained, matrix

ROWS: list[Any] = [[float(n), 0.5] for n in range(8)]
BAD_ROWS: list[tuple[Any, str]] = [
    ([1.0], "schema_mismatch"),
    ([1.0, 2.0, 3.0], "schema_mismatch"),
    ([1.0, math.inf], "invalid_value"),
    (["x", 1.0], "invalid_value"),
    ({"a": 1.0}, "schema_mismatch"),
    ({"a": 1.0, "b": 2.0, "c": 3.0}, "schema_mismatch"),
    (7, "malformed"),
    (None, "malformed"),
    ([[1.0], 2.0], "malformed"),
    ([], "schema_mismatch"),
]


def chunk_of(given: Any, *, codec: Codec = MSGPACK, first_row: int = 0, **fields: Any) -> Chunk:
    data = (msgspec.msgpack if codec is MSGPACK else msgspec.json).encode(given)
    defaults: dict[str, Any] = {
        "job_id": "j", "chunk": 0, "model_id": "sum", "version": 1, "digest": f"{1:064x}", "partition": 0,
        "rows": data, "rows_encoding": codec.name, "encoding": codec.name,
        "row_count": len(given), "first_row": first_row,
    }  # fmt: skip
    return Chunk(**(defaults | fields))


def results(
    catalog: ModelCatalog,
    *works: ChunkWork | Chunk,
    limits: Limits = DEFAULT_LIMITS,
    process_batch: ProcessBatch | None = None,
) -> list[ChunkResult]:
    made = [work if isinstance(work, ChunkWork) else chunk_work(work, None, None, limits) for work in works]
    batch = ChunkScorer(catalog, limits, process_batch).prepare(made)
    for group in batch.groups:
        group.predict()
    encoded = batch.finish()
    return [
        decode_chunk_result(value, codec_named(work.chunk.encoding), limits)
        for value, work in zip(encoded, made, strict=True)
    ]


def codes(result: ChunkResult) -> dict[int, str]:
    return {error.row: error.code for error in result.errors}


@pytest.mark.parametrize("kind", ["binary", "multiclass", "regression", "linear"])
@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
def test_predictions_are_those_of_the_booster(trained: Callable[[str], Trained], kind: str, codec: Codec) -> None:
    it = trained(kind)
    manifest = manifest_of(it.text, "sum", 1)
    model = ServedModel(manifest, LightGBMRuntime(it.text), FeatureSchema(manifest), compile_postprocess(manifest))
    rows = matrix(3, 700)
    rows[:, 3] = np.nan_to_num(rows[:, 3])
    outputs: tuple[Output, ...] = ("prediction", "raw", "leaves")
    works = [
        chunk_of(rows[start : start + size].tolist(), codec=codec, first_row=start, chunk=start,
                 digest=manifest.sha256, outputs=outputs)
        for start, size in ((0, 600), (600, 30), (630, 70))
    ]  # fmt: skip
    scored = results(catalog_of(model), *works)
    for output, how in (("prediction", {}), ("raw", {"raw_score": True}), ("leaves", {"pred_leaf": True})):
        values = np.array([value for result in scored for value in result.outputs[output]])
        expected = it.booster.predict(rows, num_threads=1, **how)
        assert values.astype(expected.dtype).tobytes() == expected.tobytes()
    assert not any(result.errors for result in scored)


def test_small_chunks_are_predicted_together_and_large_ones_separately() -> None:
    runtime = SumRuntime()
    catalog = catalog_of(sum_model(runtime=runtime))
    small = [chunk_of(ROWS, chunk=n) for n in range(10)]
    assert [r.outputs["prediction"] for r in results(catalog, *small)] == [[n + 0.5 for n in range(8)]] * 10
    assert runtime.calls == [80]
    runtime.calls.clear()
    results(catalog, *[chunk_of(ROWS * 100, chunk=n) for n in range(3)])
    assert runtime.calls == [800, 800, 800]


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
@pytest.mark.parametrize(("bad", "code"), BAD_ROWS)
def test_a_bad_row_has_its_error_and_its_neighbours_their_predictions(bad: Any, code: str, codec: Codec) -> None:
    if codec is JSON and bad == [1.0, math.inf]:
        pytest.skip("JSON has no such value")
    rows = [*ROWS[:3], bad, *ROWS[3:]]
    (result,) = results(catalog_of(sum_model()), chunk_of(rows, codec=codec, first_row=100))
    assert codes(result) == {103: code}
    assert result.outputs["prediction"] == [0.5, 1.5, 2.5, None, 3.5, 4.5, 5.5, 6.5, 7.5]
    assert "row 0" not in result.errors[0].message
    assert "row 103" in result.errors[0].message or code == "malformed"


def test_rows_of_every_kind_agree_with_each_one_alone() -> None:
    random, catalog = Random(3), catalog_of(sum_model())
    good: list[Any] = [[1.5, 2.5], [1, 2], [None, 1.0], {"a": 1.0, "b": 2.5}, [True, 2.0], [math.nan, 0.0]]
    for _ in range(150):
        rows = [random.choice([*good, *good, *(row for row, _ in BAD_ROWS)]) for _ in range(random.randint(1, 12))]
        if not isinstance(rows[0], list | dict):
            continue
        codec: Codec = random.choice([MSGPACK, JSON])
        if codec is JSON:
            rows = [[None if value == math.inf else value for value in row] if isinstance(row, list) else row
                    for row in rows]  # fmt: skip
        (together,) = results(catalog, chunk_of(rows, codec=codec))
        for place, row in enumerate(rows):
            if not isinstance(row, list | dict):
                assert codes(together)[place] == "malformed"
                continue
            (alone,) = results(catalog, chunk_of([row], codec=codec, first_row=place))
            assert codes(alone).get(place) == codes(together).get(place)
            assert alone.outputs["prediction"][0] == together.outputs["prediction"][place]
            message = {error.row: error.message for error in together.errors}.get(place)
            assert message == (alone.errors[0].message if alone.errors else None)


def test_only_the_bad_rows_of_a_tensor_fail() -> None:
    values = np.array(ROWS)
    values[2, 1] = np.inf
    source = encode_rows(0, values), MSGPACK
    chunk = chunk_of([None] * 5, rows=None, source=Source(9, 1, 6), first_row=1)
    (result,) = results(catalog_of(sum_model()), chunk_work(chunk, source, None, DEFAULT_LIMITS))
    assert codes(result) == {2: "invalid_value"}
    assert result.outputs["prediction"] == [1.5, None, 3.5, 4.5, 5.5]


def test_rows_are_read_from_their_source_or_are_past_retention() -> None:
    chunk = chunk_of([None] * 3, rows=None, source=Source(9, 2, 5), first_row=2)
    work = chunk_work(chunk, (encode_rows(0, ROWS, JSON), JSON), None, DEFAULT_LIMITS)
    (result,) = results(catalog_of(sum_model()), work)
    assert result.outputs["prediction"] == [2.5, 3.5, 4.5]
    (gone,) = results(catalog_of(sum_model()), chunk_work(chunk, None, None, DEFAULT_LIMITS))
    assert codes(gone) == dict.fromkeys((2, 3, 4), "job_expired")
    other = chunk_work(chunk, (encode_rows(0, ROWS[:3]), MSGPACK), None, DEFAULT_LIMITS)
    (short,) = results(catalog_of(sum_model()), other)
    assert len(short.errors) == 3


@pytest.mark.parametrize("codec", [MSGPACK, JSON], ids=str)
def test_a_retry_scores_only_failed_rows(codec: Codec) -> None:
    runtime = SumRuntime()
    catalog = catalog_of(sum_model(runtime=runtime))
    bad: list[Any] = [ROWS[0], [1.0], *ROWS[2:4], [math.inf, 1.0]]
    before = chunk_of(bad, first_row=10, outputs=("prediction", "raw"), codec=codec)
    (first,) = results(catalog, before)
    assert codes(first) == {11: "schema_mismatch", 14: "invalid_value"}
    runtime.calls.clear()
    again = chunk_of(ROWS[:5], first_row=10, outputs=("prediction", "raw"), codec=codec, attempt=1, previous=3)
    work = chunk_work(again, None, encode_chunk_result(first, codec), DEFAULT_LIMITS)
    (second,) = results(catalog, work)
    assert runtime.calls == [2]
    (whole,) = results(catalog, chunk_of(ROWS[:5], first_row=10, outputs=("prediction", "raw"), attempt=1))
    assert second == whole
    without = chunk_work(again, None, None, DEFAULT_LIMITS)
    other = chunk_work(again, None, encode_chunk_result(msgspec.structs.replace(first, digest="x"), codec),
                       DEFAULT_LIMITS)  # fmt: skip
    assert results(catalog, without, other) == [whole, whole]


def test_the_same_chunk_has_the_same_result_bytes() -> None:
    scorer = ChunkScorer(catalog_of(sum_model()), DEFAULT_LIMITS)
    made = []
    for neighbours in ([], [chunk_of(ROWS * 3, chunk=1)]):
        batch = scorer.prepare([chunk_work(c, None, None, DEFAULT_LIMITS) for c in (chunk_of(ROWS), *neighbours)])
        for group in batch.groups:
            group.predict()
        made.append(batch.finish()[0])
    assert made[0] == made[1]


def test_chunks_wait_only_for_versions_that_may_still_be_loaded() -> None:
    model, catalog, chunk = sum_model(), ModelCatalog(), chunk_of(ROWS)
    scorer = ChunkScorer(catalog, DEFAULT_LIMITS)
    assert scorer.waiting_for(chunk) == "unknown"
    assert codes(results(catalog, chunk)[0])[0] == "version_not_found", "if it is not awaited"
    trying = Version(model.manifest, "trying", "loading")
    catalog.put(trying)
    assert scorer.waiting_for(chunk) == "loading"
    assert codes(results(catalog, chunk)[0])[0] == "model_not_ready"
    catalog.set_state(trying, "failed", "corrupt")
    assert scorer.waiting_for(chunk) is None
    assert codes(results(catalog, chunk)[0])[0] == "model_not_ready"
    catalog.put(Version(model.manifest, "ready", None, model))
    assert scorer.waiting_for(chunk) is None


def test_a_version_that_was_removed_or_replaced_is_not_waited_for() -> None:
    model, chunk = sum_model(), chunk_of(ROWS)
    catalog = catalog_of(model)
    scorer = ChunkScorer(catalog, DEFAULT_LIMITS)
    catalog.remove("sum", 1)
    assert scorer.waiting_for(chunk) is None
    assert set(codes(results(catalog, chunk)[0]).values()) == {"version_not_found"}
    other = msgspec.structs.replace(model.manifest, sha256="f" * 64)
    catalog.put(Version(other, "fetching"))
    assert scorer.waiting_for(chunk) is None
    assert scorer.waiting_for(chunk_of(ROWS, digest="e" * 64)) == "unknown", "the version may still arrive"
    catalog.put(Version(model.manifest, "ready", None, model))
    assert codes(results(catalog, chunk)[0]) == {}, "it serves after it is deployed again"


def test_an_exception_for_one_row_does_not_affect_the_others() -> None:
    class Raises(SumRuntime):
        def predict(self, matrix: Any, outputs: Any) -> Any:
            if (matrix[:, 0] == 5.0).any():
                raise RuntimeError("five")
            return super().predict(matrix, outputs)

    batch = ChunkScorer(catalog_of(sum_model(runtime=Raises())), DEFAULT_LIMITS).prepare(
        [chunk_work(chunk_of(ROWS, chunk=n, first_row=8 * n), None, None, DEFAULT_LIMITS) for n in range(3)]
    )
    for group in batch.groups:
        group.predict()
    scored = [decode_chunk_result(value, MSGPACK) for value in batch.finish()]
    assert [codes(result) for result in scored] == [{8 * n + 5: "internal"} for n in range(3)]
    assert [result.outputs["prediction"] for result in scored] == [[0.5, 1.5, 2.5, 3.5, 4.5, None, 6.5, 7.5]] * 3
    assert len(batch.faults) == 3


def test_outputs_that_do_not_fit_or_do_not_exist_are_errors_of_their_rows() -> None:
    catalog = catalog_of(sum_model())
    (unknown,) = results(catalog, chunk_of(ROWS, outputs=("prediction", "leaves")))
    assert set(codes(unknown).values()) <= {"invalid_value"}
    small = Limits(result_bytes_max=2_000)
    batch = ChunkScorer(catalog, small).prepare([chunk_work(chunk_of(ROWS * 30), None, None, small)])
    for group in batch.groups:
        group.predict()
    (value,) = batch.finish()
    assert set(codes(decode_chunk_result(value, MSGPACK)).values()) == {"too_large"}


def test_the_code_of_the_user_replaces_the_model() -> None:
    def process_batch(model_id: str, rows: list[Any]) -> list[Any]:
        assert model_id.startswith("sum")
        return [InvalidValueError("no fours") if row[0] == 4.0 else np.float64(row[0] * 2) for row in rows]

    (result,) = results(catalog_of(sum_model()), chunk_of([*ROWS, 7]), process_batch=process_batch)
    assert codes(result) == {4: "invalid_value", 8: "malformed"}
    assert result.outputs["prediction"] == [0.0, 2.0, 4.0, 6.0, None, 10.0, 12.0, 14.0, None]


@pytest.mark.parametrize(
    "process_batch",
    [
        lambda model_id, rows: [1.0],
        lambda model_id, rows: None,
        lambda model_id, rows: 1 / 0,
        lambda model_id, rows: [object() for _ in rows],
        lambda model_id, rows: [ValueError("no") for _ in rows],
        lambda model_id, rows: [2**70 for _ in rows],
    ],
)
def test_errors_of_user_code_are_internal_errors_of_its_rows(process_batch: ProcessBatch) -> None:
    (result,) = results(catalog_of(sum_model()), chunk_of(ROWS), process_batch=process_batch)
    assert codes(result) == dict.fromkeys(range(8), "internal")


def test_a_version_is_pinned_whether_it_is_loaded_or_not() -> None:
    first, second = sum_model(1), sum_model(2)
    catalog = catalog_of(first)
    catalog.put(Version(second.manifest, "trying"))
    pinned = pin_model(catalog, ModelReference("sum"), ("prediction",), "j")
    assert (pinned.version, pinned.digest, pinned.values_per_row) == (1, first.manifest.sha256, 1)
    assert pin_model(catalog, ModelReference("sum", 2), ("prediction",), "j").version == 2
    with pytest.raises(VersionNotFoundError):
        pin_model(catalog, ModelReference("sum", 3), ("prediction",), "j")
    catalog.put(Version(second.manifest, "failed", "corrupt"))
    with pytest.raises(ModelNotReadyError):
        pin_model(catalog, ModelReference("sum", 2), ("prediction",), "j")
    assert model_of(catalog, chunk_of(ROWS)) is not None


def test_a_job_by_alias_is_pinned_with_its_revision_and_variant() -> None:
    catalog = catalog_of(sum_model(1), sum_model(2))
    catalog.put_alias("sum", "champion", Alias(2, revision=4))
    shares = [SplitShare(1, 30.0), SplitShare(2, 70.0)]
    catalog.put_alias("sum", "next", Alias(split=shares, revision=5))

    def pinned(reference: ModelReference, job_id: str = "j") -> tuple[int, int | None, str | None]:
        found = pin_model(catalog, reference, ("prediction",), job_id)
        return found.version, found.alias_revision, found.variant

    assert pinned(ModelReference("sum")) == (2, 4, "champion")
    assert pinned(ModelReference("sum", 2)) == (2, None, None)
    by_split = {pinned(ModelReference("sum", alias="next"), f"j{n}") for n in range(40)}
    assert by_split == {(1, 5, "canary"), (2, 5, "champion")}
