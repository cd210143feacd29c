"""`inferd jobs`, and the client's jobs, against a real broker and real workers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import lightgbm
import numpy as np
import pandas as pd
import pytest

from inferd import SyncClient
from inferd.daemon.cli.output import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE
from inferd.schemas.errors import (
    ChunkConflictError,
    JobConflictError,
    JobNotFoundError,
    ModelNotFoundError,
)
from tests.fixtures.workers import Cluster, TrainedModel, Worker, until

pytest.importorskip("pyarrow", reason="Parquet needs the extra files")

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
Done = subprocess.CompletedProcess[str]
Inferd = Callable[..., Done]
ROWS = 12_000
PLANS = ["7", "basic", "pro"]


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    """Topics for this module."""
    made = Cluster(kafka, f"job-commands-{uuid.uuid4().hex[:8]}")
    made.create_topics()
    return made


@pytest.fixture(scope="module")
def environment(place: Cluster) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
    return {**kept, "INFERD_BROKER": place.bootstrap, "INFERD_NAMESPACE": place.namespace}


@pytest.fixture(scope="module")
def inferd(environment: dict[str, str]) -> Inferd:
    """Runs a command as a user does."""

    def run(*arguments: object, stdin: str = "", **changes: str) -> Done:
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(
            command,
            input=stdin,
            env={**environment, **changes},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    return run


@pytest.fixture(scope="module")
def churn() -> TrainedModel:
    """A model of numbers and of a category with string values, one of which consists of digits."""
    table = customers(600, seed=3)
    late = (table.age > 50) ^ (table.plan == "7")
    booster = lightgbm.train(
        {"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(table, late), 10
    )
    return TrainedModel(booster, booster.model_to_string().encode(), table.shape[1])


@pytest.fixture(scope="module", autouse=True)
def workers(
    place: Cluster, model: TrainedModel, churn: TrainedModel, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[Worker]]:
    """Two workers and two models: `demo` with numbers only, and `churn`."""
    place.deploy(model)
    place.deploy(churn, "churn")
    names = ("w1", "w2")
    started = [Worker(place.bootstrap, place.namespace, tmp_path_factory.mktemp(name), name) for name in names]
    for worker in started:
        worker.wait_ready()
    yield started
    for worker in started:
        worker.kill()


def customers(count: int, seed: int = 5) -> pd.DataFrame:
    """Rows of `churn`; every seventh has no age."""
    rng = np.random.default_rng(seed)
    age = pd.Series(rng.integers(18, 90, count).astype(float)).mask(np.arange(count) % 7 == 6)
    wide = {f"usage_{n}": rng.normal(size=count).round(9) for n in range(6)}
    return pd.DataFrame({"age": age, "plan": pd.Categorical(rng.choice(PLANS, count), PLANS), **wide})


def write(rows: pd.DataFrame, path: Path) -> Path:
    """The rows as a file of the format that its suffix names, in an order of columns that is not the model's."""
    shuffled = rows[list(reversed(rows.columns))]
    if path.suffix == ".parquet":
        shuffled.to_parquet(path, index=False)
    elif path.suffix == ".csv":
        shuffled.to_csv(path, index=False)
    else:
        path.write_text("".join(f"{line}\n" for line in ndjson(shuffled)))
    return path


def ndjson(rows: pd.DataFrame) -> list[str]:
    plain = rows.astype(object).where(rows.notna(), None)
    return [json.dumps(dict(zip(rows.columns, values, strict=True))) for values in plain.to_numpy().tolist()]


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".csv":
        return pd.read_csv(path)
    return pd.DataFrame(map(json.loads, path.read_text().splitlines()))


def submitted(done: Done) -> str:
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize(("given", "asked"), [("parquet", "csv"), ("csv", "ndjson"), ("ndjson", "parquet")])
def test_predictions_of_a_file_are_in_row_order(
    inferd: Inferd, churn: TrainedModel, tmp_path: Path, given: str, asked: str
) -> None:
    rows = customers(ROWS)
    file = write(rows, tmp_path / f"rows.{given}")
    job = submitted(inferd("jobs", "submit", file, "--model", "churn", "--watch", "--label", "source=test"))
    out = tmp_path / f"out.{asked}"
    done = inferd("jobs", "results", job, "-o", out)
    assert done.returncode == 0, done.stderr
    results = read(out)
    assert results.row.tolist() == list(range(ROWS))
    assert results.prediction.tolist() == churn.booster.predict(rows).tolist()


def test_columns_of_numbers_travel_as_an_array(inferd: Inferd, model: TrainedModel, tmp_path: Path) -> None:
    values = np.random.default_rng(2).normal(size=(ROWS, 10))
    rows = pd.DataFrame(values, columns=[f"Column_{n}" for n in range(10)]).assign(id=1)
    file = write(rows, tmp_path / "rows.parquet")
    refused = inferd("jobs", "submit", file, "--model", "demo")
    assert (refused.returncode, "unknown 'id'" in refused.stderr) == (EXIT_FAILED, True)
    submit = inferd("jobs", "submit", file, "--model", "demo", "--skip-column", "id", "--watch", "--output", "json")
    assert submit.returncode == 0, submit.stderr
    job = json.loads(submit.stdout)["job_id"]
    printed = inferd("jobs", "results", job, "--from-row", ROWS - 3, "--output", "json").stdout.splitlines()
    expected = model.booster.predict(values)[-3:].tolist()
    assert [json.loads(line)["prediction"] for line in printed] == expected
    status = json.loads(inferd("jobs", "status", job, "--output", "json").stdout)
    assert (status["status"], status["processed"], status["version"]) == ("completed", ROWS, 1)


def test_a_killed_submission_can_be_continued(
    inferd: Inferd, environment: dict[str, str], churn: TrainedModel, tmp_path: Path
) -> None:
    rows = customers(ROWS)
    lines = ndjson(rows)
    arguments = ("jobs", "submit", "--model", "churn", "--job-id", "interrupted")
    with subprocess.Popen([*COMMAND, *arguments, "-"], env=environment, stdin=subprocess.PIPE, text=True) as process:
        assert process.stdin is not None
        process.stdin.writelines(f"{line}\n" for line in lines[:9_000])
        process.stdin.flush()
        with client(environment) as asked:
            until(lambda: input_count(asked, "interrupted") > 0, 20, "rows of the first message")
        process.kill()
    file = tmp_path / "rows.ndjson"
    file.write_text("\n".join(lines))
    done = inferd(*arguments, file, "--watch")
    assert done.returncode == 0, done.stderr
    assert "of them sent before)" in done.stderr
    with client(environment) as asked:
        results = list(asked.job_results("interrupted"))
    assert [row.row for row in results] == list(range(ROWS))
    assert [row.outputs["prediction"] for row in results] == churn.booster.predict(rows).tolist()


def client(environment: dict[str, str]) -> SyncClient:
    return SyncClient(environment["INFERD_BROKER"], namespace=environment["INFERD_NAMESPACE"])


def input_count(asked: SyncClient, job: str) -> int:
    try:
        return asked.job_status(job).input_count
    except JobNotFoundError:
        return 0


def test_a_job_is_cancelled_while_it_runs(inferd: Inferd, environment: dict[str, str]) -> None:
    arguments = ("jobs", "submit", "-", "--model", "churn", "--job-id", "endless")
    pipes: dict[str, Any] = {"stdin": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen([*COMMAND, *arguments], env=environment, **pipes) as process, client(environment) as asked:
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.writelines(f"{line}\n" for line in ndjson(customers(9_000)))
        process.stdin.flush()
        until(lambda: input_count(asked, "endless") > 0, 20, "rows of the first message")
        done = inferd("jobs", "cancel", "endless", "--output", "json")
        assert (done.returncode, json.loads(done.stdout)["status"]) == (0, "cancelled"), done.stderr
        process.stdin.close()
        assert "cancelled" in process.stderr.read()
        assert process.wait(20) == EXIT_FAILED
        rows = [row.row for row in asked.job_results("endless")]
        assert rows == sorted(set(rows))
    assert inferd("jobs", "watch", "endless").returncode == EXIT_FAILED


def test_rows_that_fail_keep_their_numbers_and_can_be_tried_again(
    inferd: Inferd, churn: TrainedModel, tmp_path: Path
) -> None:
    rows = customers(500)
    file = write(rows, tmp_path / "rows.csv")
    lines = file.read_text().splitlines()
    plan = list(reversed(rows.columns)).index("plan")
    lines[101] = ",".join("gold" if place == plan else text for place, text in enumerate(lines[101].split(",")))
    lines[201] = "1,2,3"
    file.write_text("\n".join(lines))
    arguments = ("--model", "churn", "--job-id", "poisoned", "--chunk-rows", 64, "--watch")
    done = inferd("jobs", "submit", file, *arguments)
    assert done.returncode == EXIT_FAILED
    assert "line 202: 3 fields" in done.stderr
    for attempt in range(2):
        out = tmp_path / f"out{attempt}.ndjson"
        assert inferd("jobs", "results", "poisoned", "-o", out).returncode == 0
        results = [json.loads(line) for line in out.read_text().splitlines()]
        failed = {result["row"]: result["error"]["code"] for result in results if "error" in result}
        assert failed == {100: "invalid_value", 200: "schema_mismatch"}
        expected = churn.booster.predict(rows)
        assert all(result["prediction"] == expected[result["row"]] for result in results if "error" not in result)
        if not attempt:
            retried = inferd("jobs", "retry", "poisoned", "--watch", "--output", "json")
            status = json.loads(retried.stdout)
            assert (retried.returncode, status["status"]) == (EXIT_FAILED, "completed_with_errors")
            assert (status["attempt"], status["failed"], status["succeeded"]) == (1, 2, 498)


def test_rejections_are_typed_errors(environment: dict[str, str]) -> None:
    rows = customers(50).assign(plan="pro", age=30.0).to_dict("records")
    with client(environment) as asked:
        job = asked.submit_job("churn", rows, job_id="taken")
        assert [status.status for status in asked.watch_job(job)][-1] == "completed"
        assert asked.submit_job("churn", rows, job_id="taken") == "taken"
        with pytest.raises(JobConflictError):
            asked.submit_job("churn", rows, job_id="taken", chunk_rows=7)
        with pytest.raises(ChunkConflictError):
            asked.submit_job("churn", rows[1:], job_id="taken")
        with pytest.raises(ModelNotFoundError):
            asked.submit_job("nobody", rows)
        for question in (asked.job_status, asked.cancel_job, asked.retry_job):
            with pytest.raises(JobNotFoundError):
                question("unknown")
        with pytest.raises(JobNotFoundError):
            list(asked.job_results("unknown"))
        assert asked.job_status("taken").succeeded == 50
        assert "taken" in [status.job_id for status in asked.list_jobs()]


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("submit", "missing.csv", "--model", "churn"), EXIT_USAGE),
        (("submit", __file__, "--model", "churn"), EXIT_USAGE),
        (("submit", "-", "--model", "churn", "--deadline", "soon"), EXIT_USAGE),
        (("status", "no such/job"), EXIT_USAGE),
        (("results", "unknown"), EXIT_FAILED),
    ],
)
def test_wrong_usage(inferd: Inferd, arguments: tuple[str, ...], code: int) -> None:
    done = inferd("jobs", *arguments)
    assert (done.returncode, done.stdout) == (code, "")
    assert done.stderr.startswith("inferd: ")


def test_no_broker(inferd: Inferd) -> None:
    done = inferd("jobs", "list", INFERD_BROKER="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (EXIT_UNREACHABLE, "")
