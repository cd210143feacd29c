"""Batch jobs in a plain script: one outcome per row, the statuses of the wire format, and exceptions in user code."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from inferd.schemas.errors import (
    BatchJobError,
    InferenceError,
    InvalidIdError,
    InvalidValueError,
    JobClosedError,
    JobConflictError,
    JobExpiredError,
    JobNotFoundError,
    ModelNotFoundError,
    QuotaExceededError,
    SchemaMismatchError,
    TooLargeError,
)
from inferd.schemas.limits import Limits
from inferd.streams.serving.batch_predictor import BatchPredictor
from inferd.streams.serving.local_jobs import Kept
from inferd.streams.serving.model_manager import ModelManager
from inferd.streams.serving.row_outcomes import row_outcomes
from tests.unit.streams.serving.conftest import SaveModel, expected, matrix

DEADLINE_S = 10.0
ROW = [1, 2, 3, 4, 5]


@pytest.fixture
def predictor(served: ModelManager) -> Iterator[BatchPredictor]:
    with BatchPredictor(served) as predictor:
        yield predictor


class Held(BatchPredictor):
    """Scores a chunk only after the test releases it."""

    go: threading.Event
    reached: threading.Event

    def __init__(self, *given: Any, **more: Any) -> None:
        self.go, self.reached = threading.Event(), threading.Event()
        super().__init__(*given, **more)

    def process_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        self.reached.set()
        assert self.go.wait(DEADLINE_S)
        return super().process_batch(model_id, input_batch)


@pytest.fixture
def held(served: ModelManager) -> Iterator[Held]:
    with Held(served, limits=Limits(job_chunk_rows=2)) as predictor:
        yield predictor
        predictor.go.set()


def test_a_job_gives_a_prediction_for_every_row(predictor: BatchPredictor) -> None:
    rows = matrix(2_500, seed=5)
    job_id = predictor.submit_batch("churn", rows.tolist())
    results = predictor.get_batch_results(job_id, DEADLINE_S)
    assert [line["row"] for line in results] == list(range(2_500))
    assert [line["prediction"] for line in results] == expected(rows)
    status = predictor.get_batch_status(job_id)
    times = [status.pop(name) for name in ("submitted_at", "started_at", "updated_at", "finished_at")]
    assert times == sorted(times[:2]) + [max(times)] * 2
    digest = predictor.model_manager.list()[0].sha256
    assert status == {
        "job_id": job_id, "status": "completed", "model_id": "churn", "version": 1, "digest": digest,
        "input_count": 2_500, "processed": 2_500, "succeeded": 2_500, "failed": 0, "chunks_total": 3, "chunks_done": 3,
    }  # fmt: skip


@pytest.mark.parametrize("batch", [matrix(3), tuple(map(tuple, matrix(3))), list(matrix(3))])
def test_rows_may_have_many_types(predictor: BatchPredictor, batch: Any) -> None:
    assert [line["prediction"] for line in predictor.get_batch_results(predictor.submit_batch("churn", batch))] == (
        expected(np.asarray(batch))
    )


def test_a_bad_row_fails_alone(predictor: BatchPredictor) -> None:
    rows: list[Any] = matrix(100, seed=6).tolist()
    rows[7], rows[50] = [1, 2], {"Column_0": "x"}
    results = predictor.get_batch_results(predictor.submit_batch("churn", rows, "job-1"), DEADLINE_S)
    assert [line["row"] for line in results if "error" in line] == [7, 50]
    assert results[7]["error"]["code"] == "schema_mismatch"
    good = [line["row"] for line in results if "prediction" in line]
    assert [results[row]["prediction"] for row in good] == expected([rows[row] for row in good])
    status = predictor.get_batch_status("job-1")
    assert (status["status"], status["succeeded"], status["failed"]) == ("completed_with_errors", 98, 2)


def test_a_job_may_have_no_rows(predictor: BatchPredictor) -> None:
    job_id = predictor.submit_batch("churn", [])
    assert predictor.get_batch_results(job_id, DEADLINE_S) == []
    assert predictor.get_batch_status(job_id)["status"] == "completed"


def test_jobs_wait_for_those_before_them(held: Held) -> None:
    first, second = held.submit_batch("churn", [ROW] * 5), held.submit_batch("churn", [ROW])
    assert held.reached.wait(DEADLINE_S)
    assert held.get_batch_status(first)["status"] == "running"
    status = held.get_batch_status(second)
    assert (status["status"], status["input_count"], status["started_at"]) == ("queued", 1, None)
    with pytest.raises(JobConflictError, match=r"has not ended after 0\.01 s"):
        held.get_batch_results(first, timeout_s=0.01)
    held.go.set()
    assert len(held.get_batch_results(second, DEADLINE_S)) == 1
    assert held.get_batch_status(first)["chunks_done"] == 3


def test_an_id_is_used_once(held: Held) -> None:
    held.submit_batch("churn", [ROW], "mine")
    with pytest.raises(JobConflictError, match="'mine' has not ended: submit under another id"):
        held.submit_batch("churn", [ROW], "mine")
    held.go.set()
    held.get_batch_results("mine", DEADLINE_S)
    with pytest.raises(JobClosedError, match="'mine' has ended: submit under another id"):
        held.submit_batch("churn", [ROW], "mine")


def test_unknown_jobs_are_not_found(predictor: BatchPredictor) -> None:
    calls = (
        predictor.get_batch_status,
        predictor.get_batch_results,
        predictor.cancel_batch,
        predictor.retry_batch,
    )
    for call in calls:
        with pytest.raises(JobNotFoundError, match="'nobody'") as caught:
            call("nobody")
        assert isinstance(caught.value, BatchJobError)
        assert caught.value.code == "job_not_found"


def test_a_cancelled_job_ends_at_once(held: Held) -> None:
    job_id, queued = held.submit_batch("churn", [ROW] * 6), held.submit_batch("churn", [ROW])
    assert held.reached.wait(DEADLINE_S)
    held.cancel_batch(job_id)
    held.cancel_batch(queued)
    assert [held.get_batch_status(each)["status"] for each in (job_id, queued)] == ["cancelled"] * 2
    held.go.set()
    assert held.get_batch_results(job_id, DEADLINE_S) == []
    held.cancel_batch(job_id)
    after = held.submit_batch("churn", [ROW])
    assert held.get_batch_results(after, DEADLINE_S) == [{"row": 0, "prediction": expected([ROW])[0]}]
    with pytest.raises(JobClosedError, match="completed"):
        held.cancel_batch(after)


class Mended(BatchPredictor):
    """Fails on some rows until it is mended."""

    mended = False
    rows_seen = 0

    def process_batch(self, model_id: str, input_batch: Sequence[Any]) -> list[Any]:
        self.rows_seen += len(input_batch)
        if not self.mended and len(input_batch) == 2:
            raise ZeroDivisionError("row 4711")
        return super().process_batch(model_id, input_batch)


def test_a_retry_scores_only_the_failed_rows(served: ModelManager) -> None:
    with Mended(served, limits=Limits(job_chunk_rows=3)) as predictor:
        job_id = predictor.submit_batch("churn", [ROW] * 5)
        results = predictor.get_batch_results(job_id, DEADLINE_S)
        assert [line.get("error", {}).get("code") for line in results] == [None] * 3 + ["internal"] * 2
        assert "4711" not in results[3]["error"]["message"]
        predictor.mended, predictor.rows_seen = True, 0
        predictor.retry_batch(job_id)
        results = predictor.get_batch_results(job_id, DEADLINE_S)
        assert [line["prediction"] for line in results] == expected([ROW] * 5)
        assert predictor.rows_seen == 2
        status = predictor.get_batch_status(job_id)
        assert (status["status"], status["attempt"], status["succeeded"]) == ("completed", 1, 5)
        with pytest.raises(JobClosedError, match="it is completed"):
            predictor.retry_batch(job_id)


class Percent(BatchPredictor):
    """The override that a user would write first."""

    seen: tuple[str, ...] = ()

    def process_batch(self, model_id: str, input_batch: Sequence[Any]) -> Any:
        self.seen = (*self.seen, model_id)
        return np.asarray(super().process_batch(model_id, input_batch)) * 100


def test_an_override_needs_no_error_handling(served: ModelManager, save_model: SaveModel) -> None:
    with Percent(served) as predictor:
        results = predictor.get_batch_results(predictor.submit_batch("churn", [ROW, [1], ROW]), DEADLINE_S)
        assert [line.get("prediction") for line in results] == [
            expected([ROW])[0] * 100,
            None,
            expected([ROW])[0] * 100,
        ]
        assert results[1]["error"]["code"] == "schema_mismatch"
        assert set(predictor.seen) == {"churn"}


def test_a_job_keeps_the_version_that_it_was_opened_with(held: Held, save_model: SaveModel) -> None:
    job_id = held.submit_batch("churn", [ROW] * 4)
    held.model_manager.register("churn", save_model(rounds=5), trial=False)
    held.go.set()
    assert {line["prediction"] for line in held.get_batch_results(job_id, DEADLINE_S)} == {expected([ROW])[0]}
    assert held.get_batch_status(job_id)["version"] == 1


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda _: [1.0], "1 predictions for 2 rows"),
        (lambda _: None, "TypeError in process_batch"),
        (lambda rows: [object() for _ in rows], "returned a value that cannot be encoded"),
    ],
)
def test_errors_of_an_override_are_internal(wrong: Any, words: str) -> None:
    outcomes = row_outcomes(wrong, [ROW, ROW])
    assert [error.code for error in outcomes] == ["internal", "internal"]
    assert all(words in error.message for error in outcomes)


@given(st.lists(st.sampled_from(["good", "bad", "outputs"]), max_size=40))
def test_failing_rows_are_found_at_any_index(kinds: list[str]) -> None:
    def process(rows: Sequence[str]) -> list[Any]:
        if "bad" in rows:
            raise InvalidValueError("one of them is bad")
        return [TooLargeError("this one") if row == "outputs" else 1 for row in rows]

    outcomes = row_outcomes(process, kinds)
    codes = {"good": None, "bad": "invalid_value", "outputs": "too_large"}
    assert [getattr(outcome, "code", None) for outcome in outcomes] == [codes[kind] for kind in kinds]


@pytest.mark.parametrize("batch", ["rows", {"a": 1}, 7, None, ROW, [1.0], [None]])
def test_invalid_input_is_rejected_at_once(predictor: BatchPredictor, batch: Any) -> None:
    with pytest.raises(InvalidValueError, match="expected rows"):
        predictor.submit_batch("churn", batch)


def test_an_unknown_model_or_invalid_id_is_rejected_at_once(predictor: BatchPredictor) -> None:
    with pytest.raises(ModelNotFoundError):
        predictor.submit_batch("fraud", [ROW])
    with pytest.raises(InvalidIdError):
        predictor.submit_batch("churn", [ROW], "no spaces")
    with pytest.raises(SchemaMismatchError):
        predictor.process_batch("churn", [[1]])
    with pytest.raises(InferenceError, match="a single row"):
        predictor.process_batch("churn", ROW)
    assert predictor.process_batch("churn", []) == []


def test_quotas_hold(served: ModelManager) -> None:
    limits = Limits(jobs_open_max=1, job_rows_max=3)
    with Held(served, limits=limits) as predictor:
        with pytest.raises(TooLargeError, match="4 rows, and 3 are allowed"):
            predictor.submit_batch("churn", [ROW] * 4, "large")
        predictor.submit_batch("churn", [ROW])
        with pytest.raises(QuotaExceededError):
            predictor.submit_batch("churn", [ROW])
        predictor.go.set()
        with pytest.raises(JobNotFoundError):
            predictor.get_batch_status("large")


def test_results_make_room_for_later_ones(served: ModelManager) -> None:
    with BatchPredictor(served, kept=Kept(rows_max=5, jobs_max=2)) as predictor:
        for name in ("a", "b", "c"):
            predictor.submit_batch("churn", [ROW] * 3, name)
            predictor.get_batch_results(name, DEADLINE_S)
        predictor.submit_batch("churn", [ROW], "last")
        predictor.get_batch_results("last", DEADLINE_S)
        predictor.close()
        with pytest.raises(JobNotFoundError):
            predictor.get_batch_status("a")
        assert predictor.get_batch_status("c")["status"] in {"completed", "expired"}
        assert len(predictor.get_batch_results("last")) == 1


def test_expired_results_are_reported(served: ModelManager) -> None:
    with BatchPredictor(served, kept=Kept(rows_max=1)) as predictor:
        for name in ("a", "b"):
            predictor.submit_batch("churn", [ROW] * 3, name)
        predictor.get_batch_results("b", DEADLINE_S)
        predictor.close()
        with pytest.raises(JobExpiredError, match="evicted"):
            predictor.get_batch_results("a")
        status = predictor.get_batch_status("a")
        assert (status["status"], status["processed"], status["input_count"]) == ("expired", 3, 3)
        with pytest.raises(JobExpiredError):
            predictor.retry_batch("a")
