"""MLServer with its Kafka server, for the formats that it has: writes its settings, then becomes its process.

It runs in an environment of its own, which `make bench-models` installs: its packages and ours exclude each other.
Settings that differ from the defaults: the model in the server's process, adaptive batching, and no log line for each
message.
"""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

from bench.layouts import version_name
from bench.libraries import load_estimator
from bench.peers.task import PeerTask, task_of_arguments
from inferd.daemon.broker.probe import free_port

PYTHON = Path(__file__).parents[2] / ".venv-mlserver" / "bin" / "python"
HOST = "127.0.0.1"
BATCH_SIZE, BATCH_TIME_S = 16, 0.005
RUNTIMES = {
    "lightgbm": "mlserver_lightgbm.LightGBMModel",
    "xgboost": "mlserver_xgboost.XGBoostModel",
    "catboost": "mlserver_catboost.CatboostModel",
    "sklearn": "mlserver_sklearn.SKLearnModel",
    "sklearn-text": "mlserver_sklearn.SKLearnModel",
}
"""Its class for each kind of model that it has; it has none for ONNX."""


def server_settings(task: PeerTask) -> dict[str, Any]:
    """`settings.json` of the server."""
    ports = {f"{name}_port": free_port(HOST) for name in ("http", "grpc", "metrics")}
    return {
        **ports,
        "host": HOST,
        "parallel_workers": 0,
        "logging_settings": {"version": 1, "incremental": True, "loggers": {"mlserver": {"level": "WARNING"}}},
        "kafka_enabled": True,
        "kafka_servers": task.bootstrap_servers,
        "kafka_topic_input": task.requests,
        "kafka_topic_output": task.results,
    }


def model_settings(task: PeerTask, path: Path) -> dict[str, Any]:
    """`model-settings.json` of the model in a file."""
    return {
        "name": task.model_id,
        "implementation": RUNTIMES[task.library],
        "parameters": {"uri": str(path), "version": version_name(task.version, task.digest)},
        "max_batch_size": BATCH_SIZE,
        "max_batch_time": BATCH_TIME_S,
    }


def write_folder(task: PeerTask) -> Path:
    """The folder of the server: its settings, and one folder with the model."""
    folder = Path(task.work_dir) / f"mlserver-{task.group}"
    model = folder / task.model_id
    model.mkdir(parents=True)
    path = copy_model(task, model)
    (folder / "settings.json").write_text(json.dumps(server_settings(task)))
    (model / "model-settings.json").write_text(json.dumps(model_settings(task, path)))
    return folder


def copy_model(task: PeerTask, folder: Path) -> Path:
    """The model's file as MLServer reads it: scikit-learn's with joblib."""
    source = Path(task.model_path)
    if source.suffix != ".skops":
        return Path(shutil.copy(source, folder))
    import joblib

    path = folder / "model.joblib"
    joblib.dump(load_estimator(task.model_path), path)
    return path


def command(task: PeerTask) -> list[str]:
    """`mlserver start .`, with the library imported first: importing it later would block the connection to Kafka."""
    module = RUNTIMES[task.library].partition(".")[0]
    return [str(PYTHON), "-c", f"import {module}; from mlserver.cli import main; main()", "start", "."]


if __name__ == "__main__":
    task = task_of_arguments()
    os.chdir(write_folder(task))
    os.execv(PYTHON, command(task))  # noqa: S606  (no shell: there is nothing to quote)
