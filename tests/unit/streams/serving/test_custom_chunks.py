"""Chunks that a user-defined class scores: the job's model version answers, and an invalid row fails alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from inferd.schemas.codecs import MSGPACK
from inferd.schemas.jobs.chunk_codec import decode_chunk_result
from inferd.schemas.jobs.job import Chunk, ChunkResult
from inferd.schemas.limits import DEFAULT_LIMITS
from inferd.streams.inference.catalog import ModelCatalog
from inferd.streams.jobs.scoring.scoring import ChunkScorer, ChunkWork
from inferd.streams.serving.batch_predictor import BatchPredictor
from inferd.streams.serving.user_code import UserCode
from tests.fixtures.lane import sum_model
from tests.fixtures.scoring import catalog_of


class Named(BatchPredictor):
    """Returns the version of its model."""

    def process_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        if [7, 7] in input_batch:
            raise ZeroDivisionError("row 4711")
        version = self.pinned(model_id).model.manifest.version
        return [[model_id, version, prediction] for prediction in super().process_batch(model_id, input_batch)]


def scored(catalog: ModelCatalog, rows: list[list[float]]) -> ChunkResult:
    """The result of one chunk of version 1."""
    custom = UserCode(("default",), batch=Named)
    custom.follow({"default": catalog})
    manifest = sum_model().manifest
    chunk = Chunk(
        job_id="j", chunk=0, first_row=10, row_count=len(rows), model_id="sum", version=1, digest=manifest.sha256,
        partition=0,
    )  # fmt: skip
    scorer = ChunkScorer(catalog, DEFAULT_LIMITS, custom.process_batch("default"))
    batch = scorer.prepare([ChunkWork(chunk, msgspec.msgpack.encode(rows))])
    for group in batch.groups:
        group.predict()
    (result,) = batch.finish()
    return decode_chunk_result(result, MSGPACK, DEFAULT_LIMITS)


def test_the_version_of_the_job_answers() -> None:
    result = scored(catalog_of(sum_model(1), sum_model(2)), [[1, 2], [3], [5, 6]])
    assert result.outputs["prediction"] == [["sum", 1, 3.0], None, ["sum", 1, 11.0]]
    assert [(error.row, error.code) for error in result.errors] == [(11, "schema_mismatch")]


def test_a_bug_fails_the_chunk_s_rows() -> None:
    result = scored(catalog_of(sum_model()), [[1, 2], [7, 7]])
    assert [(error.row, error.code) for error in result.errors] == [(10, "internal"), (11, "internal")]
    assert "4711" not in result.errors[0].message
