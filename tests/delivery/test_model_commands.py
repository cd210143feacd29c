"""`inferd models` and `inferd predict` against a real broker and a real worker."""

from __future__ import annotations

import json
import os
import re
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

from inferd import Client
from inferd.daemon.cli.output import EXIT_FAILED, EXIT_UNREACHABLE, EXIT_USAGE
from inferd.schemas.models.model import Alias, SplitShare
from tests.fixtures.workers import Cluster, TrainedModel, Worker

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
Done = subprocess.CompletedProcess[str]
Inferd = Callable[..., Done]


@pytest.fixture(scope="module")
def place(kafka: str) -> Cluster:
    """Topics for this module."""
    made = Cluster(kafka, f"commands-{uuid.uuid4().hex[:8]}")
    made.create_topics()
    return made


@pytest.fixture(scope="module")
def inferd(place: Cluster) -> Inferd:
    """Runs a command as a user does."""

    def run(*arguments: object, stdin: str = "", **changes: str) -> Done:
        environment = {name: value for name, value in os.environ.items() if not name.startswith("INFERD_")}
        environment |= {"INFERD_BROKER": place.bootstrap, "INFERD_NAMESPACE": place.namespace, **changes}
        command = [*COMMAND, *map(str, arguments)]
        return subprocess.run(
            command, input=stdin, env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


@pytest.fixture(scope="module")
def worker(place: Cluster, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Worker]:
    started = Worker(place.bootstrap, place.namespace, tmp_path_factory.mktemp("worker"), "w1")
    yield started
    started.kill()


@pytest.fixture(scope="module")
def churn() -> TrainedModel:
    """A model with a category with string values, one of which consists of digits."""
    rng = np.random.default_rng(3)
    rows = pd.DataFrame({"age": rng.integers(18, 90, 500), "plan": rng.choice(["basic", "pro", "7"], 500)})
    rows = rows.astype({"age": float, "plan": "category"})
    late = (rows.age > 50) ^ (rows.plan == "7")
    booster = lightgbm.train({"objective": "binary", "verbose": -1, "num_threads": 1}, lightgbm.Dataset(rows, late), 10)
    return TrainedModel(booster, booster.model_to_string().encode(), 2)


@pytest.fixture(scope="module")
def expected(churn: TrainedModel) -> Callable[[list[tuple[float | None, str]]], list[float]]:
    """LightGBM's own predictions."""

    def predict(rows: list[tuple[float | None, str]]) -> list[float]:
        table = pd.DataFrame(rows, columns=["age", "plan"])
        plan = pd.Categorical(table.plan, categories=["7", "basic", "pro"])
        predicted: list[float] = churn.booster.predict(table.assign(age=table.age.astype(float), plan=plan)).tolist()
        return predicted

    return predict


@pytest.fixture(scope="module")
def deployed(inferd: Inferd, worker: Worker, churn: TrainedModel, tmp_path_factory: pytest.TempPathFactory) -> Done:
    """The model, deployed by the command."""
    path = tmp_path_factory.mktemp("model") / "churn.txt"
    path.write_bytes(churn.data)
    return inferd("models", "deploy", path, "--name", "churn", "--output", "json")


def lines(done: Done) -> list[dict[str, Any]]:
    return [json.loads(line) for line in done.stdout.splitlines()]


# ----------------------------------------------------------------------------------------------------------- models


def test_a_deploy_fills_the_manifest_in_from_the_model_file(deployed: Done) -> None:
    assert deployed.returncode == 0, deployed.stderr
    manifest = json.loads(deployed.stdout)
    assert (manifest["model_id"], manifest["version"], manifest["objective"]) == ("churn", 1, "binary")
    assert manifest["features"] == [
        {"name": "age"},
        {
            "name": "plan",
            "dtype": "category",
            "file_categories": {"kind": "text", "count": 3, "first": ["7", "basic", "pro"]},
        },
    ]
    assert "inferd predict churn" in deployed.stderr


def test_models_are_deployed_listed_and_removed(
    inferd: Inferd, place: Cluster, churn: TrainedModel, tmp_path: Path
) -> None:
    path, manifest = tmp_path / "m.txt", tmp_path / "manifest.json"
    path.write_bytes(churn.data)
    manifest.write_text('{"features": [{"name": "age", "min": 0}], "labels": {"team": "growth"}}')
    assert inferd("models", "deploy", path, "--name", "lifecycle").returncode == 0
    again = inferd("models", "deploy", path, "--name", "lifecycle", "--manifest", manifest, "--alias", "best")
    assert again.returncode == 0, again.stderr
    listed = inferd("models", "list").stdout.splitlines()
    assert [line.split()[:3] for line in listed if line.startswith("lifecycle")] == [
        ["lifecycle", "1", "-"],
        ["lifecycle", "2", "best"],
    ]
    shown = json.loads(inferd("models", "show", "lifecycle@best", "--output", "json").stdout)
    assert (shown["version"], shown["features"][0]["min"], shown["labels"]) == (2, 0.0, {"team": "growth"})
    assert "growth" in inferd("models", "show", "lifecycle").stdout
    removed = inferd("models", "remove", "lifecycle:1", "--output", "json")
    assert json.loads(removed.stdout) == {"removed": ["lifecycle/1"]}
    assert inferd("models", "remove", "lifecycle").returncode == EXIT_FAILED
    assert inferd("models", "remove", "lifecycle", "--all").returncode == 0
    assert "lifecycle" not in inferd("models", "list").stdout


def test_removing_a_version_leaves_no_dangling_alias(inferd: Inferd, churn: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(churn.data)
    assert inferd("models", "deploy", path, "--name", "led", "--alias", "champion").returncode == 0
    second = inferd("models", "deploy", path, "--name", "led")
    assert "try it: inferd predict led:2" in second.stderr
    assert "requests to led are served by version 1, because of its alias champion" in second.stderr
    third = inferd("models", "deploy", path, "--name", "led", "--version", 2, "--alias", "champion")
    assert "are served by" not in third.stderr, third.stderr
    refused = inferd("models", "remove", "led:2")
    assert (refused.returncode, refused.stdout) == (EXIT_FAILED, "")
    assert "led@champion points at version 2" in refused.stderr
    moved = inferd("models", "remove", "led:2", "--move-aliases-to", 1, "--output", "json")
    assert json.loads(moved.stdout) == {"removed": ["led/2"]}, moved.stderr
    listed = inferd("models", "list").stdout.splitlines()
    assert [line.split()[:3] for line in listed if line.startswith("led")] == [["led", "1", "champion"]]
    assert inferd("models", "remove", "led", "--all").returncode == 0


def test_aliases_are_moved_split_rolled_back_and_promoted(inferd: Inferd, churn: TrainedModel, tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(churn.data)
    for _ in range(2):
        assert inferd("models", "deploy", path, "--name", "moved").returncode == 0

    def changed(*arguments: object) -> dict[str, Any]:
        done = inferd("models", *arguments, "--output", "json")
        assert done.returncode == 0, done.stderr
        found: dict[str, Any] = json.loads(done.stdout)
        return found

    assert changed("alias", "moved@champion", 1, "--by", "ana")["revision"] == 1
    split = changed("alias", "moved@champion", "1=90", "2=10", "--revision", 1)
    assert split["split"] == [{"version": 1, "weight": 90.0}, {"version": 2, "weight": 10.0}]
    late = inferd("models", "alias", "moved@champion", 2, "--revision", 1)
    assert late.returncode == EXIT_FAILED
    assert "moved@champion was changed in the meantime" in late.stderr
    assert changed("alias", "moved@next", 2)["version"] == 2
    assert changed("promote", "moved@next", "--to", "champion")["version"] == 2
    refused = inferd("models", "alias", "moved@next", 2, "--shadow", 2)
    assert (refused.returncode, "version 2 answers requests" in refused.stderr) == (EXIT_FAILED, True)
    assert changed("alias", "moved@next", 2, "--shadow", 1)["shadow"] == [1]
    assert "2, 1 (shadow)" in inferd("models", "aliases", "moved").stdout
    assert "shadow" not in changed("alias", "moved@next", 2)
    back = inferd("models", "rollback", "moved")
    assert "moved@champion points at 1 (90 %), 2 (10 %) again, as in revision 2" in back.stderr
    assert "another rollback leads to 1" in back.stderr
    assert changed("rollback", "moved@champion")["version"] == 1
    none = inferd("models", "rollback", "moved@champion")
    assert (none.returncode, "no earlier target" in none.stderr) == (EXIT_FAILED, True)
    listed = inferd("models", "aliases", "moved").stdout.splitlines()
    assert [line.split()[:3] for line in listed if line.startswith("champion")] == [["champion", "5", "1"]]
    assert re.search(r"4 +1 \(90 %\), 2 \(10 %\) +.*rollback to revision 2", listed[2]), listed
    assert any(line.split()[0] == "1" and "ana" in line for line in listed), listed
    assert inferd("models", "remove", "moved@next").returncode == 0
    assert changed("aliases", "moved")["next"]["removed"] is True
    assert inferd("models", "remove", "moved", "--all").returncode == 0


async def test_splits_and_aliases_that_lead_nowhere_are_listed(
    inferd: Inferd, place: Cluster, churn: TrainedModel, tmp_path: Path
) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(churn.data)
    for _ in range(2):
        assert inferd("models", "deploy", path, "--name", "split").returncode == 0
    async with Client(place.bootstrap, namespace=place.namespace) as client:
        await client.set_alias("split", "champion", Alias(split=[SplitShare(1, 9.0), SplitShare(2, 1.0)]))
    listed = inferd("models", "list").stdout
    assert re.search(r"split +1 +champion \(90 %\)", listed), listed
    assert re.search(r"split +2 +champion \(10 %\)", listed), listed
    producer = place.producer()
    producer.produce(place.topics.name("models"), None, b"split/2")
    assert producer.flush(30) == 0
    dangling = inferd("models", "list")
    assert "alias split@champion points at version 2, which is not deployed" in dangling.stderr
    assert inferd("models", "remove", "split", "--all").returncode == 0


def test_a_file_that_is_not_a_model_is_rejected_before_anything_is_sent(inferd: Inferd, tmp_path: Path) -> None:
    path = tmp_path / "model.txt"
    path.write_bytes(b"\x80\x04\x95 a pickle")
    done = inferd("models", "deploy", path, "--name", "evil")
    assert (done.returncode, done.stdout) == (EXIT_FAILED, "")
    assert "inferd: model file: a pickle (or joblib, or cloudpickle), which can run any code" in done.stderr
    assert "evil" not in inferd("models", "list").stdout


@pytest.mark.parametrize(
    ("manifest", "said"),
    [
        ("[1]", "not a JSON object"),
        ('{"features": [{"name": "height"}]}', "height"),
        ('{"version": 7, "size": 3}', "size is 3"),
        ('{"featuers": []}', "featuers"),
    ],
)
def test_a_manifest_of_another_model_is_rejected(
    inferd: Inferd, churn: TrainedModel, tmp_path: Path, manifest: str, said: str
) -> None:
    path, manifest_path = tmp_path / "m.txt", tmp_path / "manifest.json"
    path.write_bytes(churn.data)
    manifest_path.write_text(manifest)
    done = inferd("models", "deploy", path, "--name", "unfit", "--manifest", manifest_path)
    assert done.returncode == EXIT_FAILED
    assert said in done.stderr


def test_a_version_is_never_replaced(inferd: Inferd, deployed: Done, tmp_path: Path) -> None:
    path = tmp_path / "other.txt"
    booster = lightgbm.train({"verbose": -1, "num_threads": 1}, lightgbm.Dataset(np.eye(50), np.arange(50)), 3)
    path.write_bytes(booster.model_to_string().encode())
    done = inferd("models", "deploy", path, "--name", "churn", "--version", 1)
    assert done.returncode == EXIT_FAILED
    assert "churn:1 is deployed already" in done.stderr


def test_a_missing_model(inferd: Inferd) -> None:
    done = inferd("models", "show", "nothing")
    assert (done.returncode, "there is no model 'nothing'" in done.stderr) == (EXIT_FAILED, True)


# ---------------------------------------------------------------------------------------------------------- predict


def test_a_row_by_position_and_by_name(inferd: Inferd, deployed: Done, expected: Any) -> None:
    (wanted,) = expected([(41, "7")])
    for row in ('[41, "7"]', '{"plan": "7", "age": 41}'):
        done = inferd("predict", "churn", row, "--output", "json")
        assert done.returncode == 0, done.stderr
        assert lines(done) == [{"row": 0, "prediction": wanted, "version": 1}]


def test_a_csv_file_whose_categories_look_like_numbers(
    inferd: Inferd, deployed: Done, expected: Any, tmp_path: Path
) -> None:
    rows = [(20.0 + n % 60 if n % 7 else None, ["7", "basic", "pro"][n % 3]) for n in range(1_000)]
    path = tmp_path / "rows.csv"
    path.write_text("age,plan,id\n" + "".join(f"{'' if a is None else a},{p},{n}\n" for n, (a, p) in enumerate(rows)))
    done = inferd("predict", "churn", path, "--skip-column", "id", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert [line["row"] for line in lines(done)] == list(range(1_000))
    assert [line["prediction"] for line in lines(done)] == expected(rows)
    assert "1,000 rows" in done.stderr


def test_a_parquet_file_in_batches(inferd: Inferd, deployed: Done, expected: Any, tmp_path: Path) -> None:
    rows = [(float(n), "pro") for n in range(20, 80)]
    path = tmp_path / "rows.parquet"
    pd.DataFrame(rows, columns=["age", "plan"]).to_parquet(path)
    done = inferd("predict", "churn:1", path, "--batch-rows", 7, "--outputs", "raw,prediction", "--output", "json")
    assert done.returncode == 0, done.stderr
    assert [line["prediction"] for line in lines(done)] == expected(rows)
    assert {tuple(line) for line in lines(done)} == {("row", "prediction", "raw", "version")}


def test_failed_rows_are_reported_and_do_not_affect_others(inferd: Inferd, deployed: Done, expected: Any) -> None:
    stdin = '[41, "pro"]\n[41, "gold"]\nno json\n{"age": 41}\n[50, "pro"]\n'
    done = inferd("predict", "churn", "-", "--output", "json", stdin=stdin)
    assert done.returncode == EXIT_FAILED
    assert [line.get("prediction") or line["error"]["code"] for line in lines(done)] == [
        *expected([(41, "pro")]),
        "invalid_value",
        "malformed",
        "schema_mismatch",
        *expected([(50, "pro")]),
    ]
    table = inferd("predict", "churn", "-", stdin=stdin).stdout
    assert "invalid_value: " in table
    assert "'gold'" not in table, "values are not repeated in errors"


def test_rows_on_standard_input_are_answered_as_they_arrive(place: Cluster, inferd: Inferd, deployed: Done) -> None:
    environment = {**os.environ, "INFERD_BROKER": place.bootstrap, "INFERD_NAMESPACE": place.namespace}
    arguments = [*COMMAND, "predict", "churn", "--output", "json"]
    pipes: dict[str, Any] = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.PIPE)
    with subprocess.Popen(arguments, env=environment, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        for number in range(3):
            process.stdin.write(f'[{number}, "pro"]\n')
            process.stdin.flush()
            assert json.loads(process.stdout.readline())["row"] == number
        process.stdin.close()
        assert process.wait(20) == 0


def test_a_model_that_is_not_deployed(inferd: Inferd, deployed: Done) -> None:
    done = inferd("predict", "nothing", "[1]", "--output", "json")
    assert (done.returncode, lines(done)[0]["error"]["code"]) == (EXIT_FAILED, "model_not_found")


@pytest.mark.parametrize(
    "arguments",
    [
        ("predict",),
        ("predict", "no such/name", "[1]"),
        ("predict", "churn", "missing.csv"),
        ("predict", "churn", "[1"),
        ("predict", "churn", "[1]", "--outputs", "raw,,"),
        ("predict", "churn", "[1]", "--batch-rows", "0"),
        ("models", "deploy", "missing.txt", "--name", "m"),
        ("models", "deploy"),
    ],
)
def test_wrong_usage(inferd: Inferd, arguments: tuple[str, ...]) -> None:
    done = inferd(*arguments)
    assert (done.returncode, done.stdout) == (EXIT_USAGE, "")
    assert done.stderr.startswith("inferd: ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize("arguments", [("models", "list"), ("predict", "churn", "[1]")])
def test_no_broker(inferd: Inferd, arguments: tuple[str, ...]) -> None:
    done = inferd(*arguments, INFERD_BROKER="127.0.0.1:1")
    assert (done.returncode, done.stdout) == (EXIT_UNREACHABLE, "")
    assert "127.0.0.1:1" in done.stderr


def test_missing_topics(inferd: Inferd) -> None:
    done = inferd("models", "list", "--tenant", "nobody")
    assert done.returncode == EXIT_FAILED
    assert "inferd topics create --tenant nobody" in done.stderr
