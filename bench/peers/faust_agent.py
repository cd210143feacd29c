"""A simple Faust agent, as in Faust's documentation, with Faust's defaults."""

from __future__ import annotations

import sys
from typing import Any

import faust
import lightgbm
import numpy as np

from bench.layouts import LAYOUTS
from bench.peers.task import PeerTask, task_of_arguments


def compose_app(task: PeerTask) -> faust.App:
    """An app with one agent: decode, predict one row, send."""
    booster, layout = lightgbm.Booster(model_file=task.model_path), LAYOUTS[task.layout]
    app = faust.App(
        task.group,
        broker=f"kafka://{task.bootstrap_servers}",
        datadir=f"{task.work_dir}/faust",
        value_serializer="raw",
        key_serializer="raw",
        web_enabled=False,
        topic_disable_leader=True,
    )
    requests = app.topic(task.requests, value_serializer="raw", key_serializer="raw")
    results = app.topic(task.results, value_serializer="raw", key_serializer="raw")

    @app.agent(requests)
    async def score(stream: Any) -> None:
        async for key, value in stream.items():
            request = layout.decode(value)
            matrix = np.array([layout.values(request["input_data"])])
            prediction = float(booster.predict(matrix, num_threads=task.predict_threads)[0])
            result = {
                "id": request["id"],
                "model_id": request["model_id"],
                "version": task.version,
                "digest": task.digest,
                "prediction": prediction,
            }
            await results.send(key=key, value=layout.encode(result))  # type: ignore[unused-awaitable]

    return app


if __name__ == "__main__":
    app = compose_app(task_of_arguments())
    sys.argv = ["faust_agent", "worker", "--loglevel", "warn", "--without-web"]
    app.main()
