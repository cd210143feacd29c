"""Models of every flavour, logged to a real MLflow server and deployed from it by the command. `make test-mlflow`.

MLflow and the libraries are in an environment of their own (`mlflow.lock`), which that target installs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import urllib.request
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest

from inferd.daemon.broker.probe import free_port
from tests.fixtures.workers import Cluster, until

COMMAND = (sys.executable, "-c", "from inferd.daemon.cli import main; main()")
PYTHON = str(Path(__file__).parents[2] / ".venv-mlflow" / "bin" / "python")
HOST = "127.0.0.1"
pytestmark = pytest.mark.timeout(3_600)
LOG_MODELS = """
import json, mlflow, lightgbm, xgboost, catboost, numpy as np, pandas as pd
from mlflow import MlflowClient
from mlflow.models import infer_signature
from skl2onnx import to_onnx
from sklearn.linear_model import LogisticRegression

random = np.random.default_rng(1)
rows = pd.DataFrame(random.normal(size=(200, 3)), columns=["age", "visits", "spend"])
labels = (rows.age + rows.visits > 0).astype(int)
arrays = rows.to_numpy()
cat = catboost.CatBoostClassifier(iterations=5, allow_writing_files=False, logging_level="Silent").fit(arrays, labels)
linear = LogisticRegression().fit(rows, labels)
floats = arrays.astype(np.float32)
graph = to_onnx(LogisticRegression().fit(floats, labels), floats[:1], options={"zipmap": False})
models = {
    "lightgbm": (mlflow.lightgbm, lightgbm.train({"verbose": -1}, lightgbm.Dataset(rows, labels), 5), {}),
    "xgboost": (mlflow.xgboost, xgboost.train({}, xgboost.DMatrix(arrays, labels), 5), {}),
    "catboost": (mlflow.catboost, cat, {}),
    "onnx": (mlflow.onnx, graph, {}),
    "sklearn": (mlflow.sklearn, linear, {"serialization_format": "skops"}),
    "pickled": (mlflow.sklearn, linear, {"serialization_format": "cloudpickle"}),
}
logged = {}
for name, (flavour, model, options) in models.items():
    with mlflow.start_run() as run:
        flavour.log_model(
            model, name="model", signature=infer_signature(rows, labels), registered_model_name=name,
            pip_requirements=[], **options,
        )
    MlflowClient().set_registered_model_alias(name, "champion", "1")
    logged[name] = run.info.run_id
print(json.dumps(logged))
"""


def run(
    *command: str, environ: Mapping[str, str] = MappingProxyType({}), within_s: float = 600
) -> subprocess.CompletedProcess[str]:
    environment = {key: value for key, value in os.environ.items() if not key.startswith(("INFERD_", "PYTHON"))}
    environment |= environ
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=within_s, check=False)


def place_of(cluster: Cluster) -> dict[str, str]:
    return {"INFERD_BROKER": cluster.bootstrap, "INFERD_NAMESPACE": cluster.namespace}


def answers(url: str) -> bool:
    try:
        with urllib.request.urlopen(url, timeout=5) as answer:
            return bool(answer.status == 200)
    except OSError:
        return False


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a server that keeps its artifacts itself."""
    folder, port = tmp_path_factory.mktemp("mlflow-server"), free_port(HOST)
    command = [PYTHON, "-m", "mlflow", "server", "--host", HOST, "--port", str(port), "--workers", "1"]
    command += [
        "--backend-store-uri",
        f"sqlite:///{folder}/mlflow.db",
        "--artifacts-destination",
        str(folder / "files"),
    ]
    log = folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(command, cwd=folder, stdout=output, stderr=output, start_new_session=True)
    try:
        until(lambda: answers(f"http://{HOST}:{port}/health"), 300, f"a server; its log is {log}")
        yield f"http://{HOST}:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.fixture(scope="module")
def logged(server: str) -> dict[str, str]:
    """The run of each model that was logged and registered, by its name."""
    done = run(PYTHON, "-c", LOG_MODELS, environ={"MLFLOW_TRACKING_URI": server})
    assert done.returncode == 0, done.stderr
    runs: dict[str, str] = json.loads(done.stdout.splitlines()[-1])
    return runs


def deploy(cluster: Cluster, server: str, uri: str, name: str) -> subprocess.CompletedProcess[str]:
    command = (*COMMAND, "models", "deploy", uri, "--name", name, "--output", "json")
    return run(*command, environ={"MLFLOW_TRACKING_URI": server, **place_of(cluster)})


def test_every_flavour_by_version_alias_and_run(cluster: Cluster, server: str, logged: dict[str, str]) -> None:
    for name in ("lightgbm", "xgboost", "catboost", "onnx", "sklearn"):
        run_id = logged[name]
        for number, uri in enumerate((f"models:/{name}@champion", f"models:/{name}/1", f"runs:/{run_id}/model"), 1):
            done = deploy(cluster, server, uri, name)
            assert done.returncode == 0, (uri, done.stderr)
            manifest: dict[str, Any] = json.loads(done.stdout)
            assert (manifest["runtime"], manifest["version"]) == (name, number)
            assert [feature["name"] for feature in manifest["features"]] == ["age", "visits", "spend"]
            assert manifest["labels"]["mlflow_run_id"] == run_id
            assert ("mlflow_version" in manifest["labels"]) == uri.startswith("models:")
    listed = run(*COMMAND, "models", "list", environ=place_of(cluster)).stdout
    assert listed.count("champion") == 5


@pytest.mark.usefixtures("logged")
def test_rejected_models(cluster: Cluster, server: str) -> None:
    for uri, message in (
        ("models:/pickled/1", "serialization_format='skops'"),
        ("models:/absent/1", "no registered model 'absent'"),
        ("models:/sklearn/7", "no version 7"),
        ("models:/sklearn@absent", "no alias absent"),
        ("runs:/0123/model", "no run '0123'"),
    ):
        done = deploy(cluster, server, uri, "refused")
        assert done.returncode != 0, uri
        assert message in done.stderr, (uri, done.stderr)
    away = deploy(cluster, f"http://{HOST}:1", "models:/sklearn/1", "refused")
    assert "does not answer" in away.stderr
