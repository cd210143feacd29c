"""The page of real workers, in a real browser: all views with real data, a deploy by file, and a prediction by form."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path

from tests.fixtures.browser import OpenPage, is_wider_than_the_window, shoot
from tests.fixtures.http_client import ask
from tests.fixtures.workers import Cluster, StartWorker, TrainedModel, Worker, until

VIEWS = {
    "": "2 of 2",
    "models": "demo:1",
    "models/demo": "Versions",
    "rollouts": "No model has had a rollout",
    "jobs": "june",
    "jobs/june": "First results",
    "topics": "requests",
    "routes": "No routes",
    "errors": "model_id",
    "workers": "2 workers",
    "audit": "demo:1",
}
JSON = {"Content_Type": "application/json"}


def is_in_the_group(worker: Worker) -> bool:
    status, said = worker.get("/status")
    return status == 200 and bool(said["generation"])


def test_every_view_of_two_workers(
    cluster: Cluster, model: TrainedModel, start_worker: StartWorker, open_page: OpenPage, tmp_path: Path
) -> None:
    front, other = start_worker(cluster), start_worker(cluster)
    for worker in (front, other):
        until(partial(is_in_the_group, worker), 60, "it is in the group")
    path = tmp_path / "demo.txt"
    path.write_bytes(model.data)

    page = open_page(front.url)
    page.get_by_text("Nothing is deployed yet").wait_for()
    page.locator("input[type=file]").first.set_input_files(path)
    form = page.locator("dialog[open]")
    form.get_by_label("Alias").fill("champion")
    form.get_by_role("button", name="Deploy").click()
    page.locator(".toast").get_by_text("demo:1 is deployed").wait_for(timeout=60_000)
    page.get_by_text("ready", exact=True).first.wait_for(timeout=60_000)

    form_of_features = page.get_by_role("button", name="Try a prediction")
    form_of_features.click()
    form = page.locator("dialog[open]")
    form.get_by_role("button", name="Predict").click()
    form.locator(".big").wait_for()
    form.get_by_role("button", name="Close").click()

    job = {"model_id": "demo", "job_id": "june", "input_batch": [[0.5] * model.n_features] * 10}
    assert ask(front, "POST", "/jobs", json.dumps(job).encode(), **JSON).status == 202
    until(lambda: ask(other, "GET", "/jobs/june").json().get("status") == "completed", 60, "the job is completed")
    producer = cluster.producer()
    producer.produce(cluster.topics.name("requests"), b'{"model_id": 7}', headers={"content-type": b"application/json"})
    assert producer.flush(30) == 0
    until(lambda: len(ask(front, "GET", "/dead-letters").json()["dead_letters"]) == 1, 60, "there is a dead letter")

    for view, text in VIEWS.items():
        page.goto(f"{other.url}/#/{view}")
        page.get_by_text(text).first.wait_for(timeout=60_000)
        shoot(page, f"real-{view.replace('/', '-') or 'overview'}")
        assert not is_wider_than_the_window(page), view
    page.goto(f"{other.url}/#/errors")
    page.get_by_role("row", name="model_id").get_by_role("link").first.click()
    page.get_by_role("heading", name="Value").wait_for(timeout=60_000)
    other.kill()
    page.goto(f"{front.url}/#/workers")
    page.get_by_text("does not respond").or_(page.get_by_text("1 worker", exact=True)).first.wait_for(timeout=60_000)
