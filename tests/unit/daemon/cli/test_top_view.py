"""What `inferd top` shows."""

from __future__ import annotations

from typing import Any

import msgspec
from click.testing import CliRunner

from inferd.daemon.cli.top import _screen, top
from inferd.daemon.cli.top_view import json_of, view_of
from inferd.daemon.settings.settings import Settings
from inferd.daemon.telemetry.status import StatusBoard
from inferd.streams.telemetry.snapshot import PauseSnapshot, QuotaSnapshot
from tests.unit.daemon.fake_streams import FakeStreams, jobs, model, partition, snapshot, tenant


def status(worker: str, **fields: Any) -> dict[str, Any]:
    settings = Settings.from_environment({"INFERD_WORKER_ID": worker})
    board, streams = StatusBoard(settings), FakeStreams(settings.streams(), lambda _reason, _code: None)
    board.attach(streams)
    board.enter("running", "")
    given = snapshot(**fields)
    streams.snapshot = lambda: given  # type: ignore[method-assign]
    found: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(board.status()))
    return found


def answer(*workers: dict[str, Any]) -> dict[str, Any]:
    found = [{"url": f"http://{each['worker']}", "status": each} for each in workers]
    return {"workers": [*found, {"url": "http://lost", "error": "timed out"}]}


def test_workers_add_up_and_trouble_is_said() -> None:
    paused = (PauseSnapshot("default", "model", "churn", 1, "ana", "why not"),)
    first = status(
        "w1", partitions=(partition(),), models=(model(),), jobs=(jobs(),), tenants=(tenant(),), pauses=paused
    )
    second = status("w2", partitions=(partition(),), models=(model(),), jobs=(jobs(),))
    view = view_of(answer(first, second))
    found = json_of(view)
    assert found["summary"]["workers"] == "2 of 3 ready"
    assert [each["worker"] for each in found["workers"]] == ["http://lost", "w1", "w2"]
    one = json_of(view_of(answer(first)))
    for section in ("models", "lag"):
        assert len(found[section]) == 1
    assert found["lag"][0]["partitions"] == 2 * one["lag"][0]["partitions"]
    requests = [int(each["models"][0]["requests"].replace(",", "")) for each in (found, one)]
    assert requests[0] == 2 * requests[1]
    assert "http://lost does not answer: timed out" in view.trouble
    assert "model churn is paused by ana: why not" in view.trouble
    assert _screen(view, "gone") is not None


def test_an_empty_cluster_says_what_to_do() -> None:
    view = view_of({"workers": [{"url": "http://w1", "status": status("w1", models=())}]})
    assert any("inferd models deploy" in section.empty for section in view.sections if not section.rows)


def test_a_worker_that_is_not_there_is_an_error_with_its_address() -> None:
    done = CliRunner().invoke(top, ["--once", "--url", "http://127.0.0.1:1"])
    assert done.exit_code == 1
    assert "http://127.0.0.1:1 does not answer" in str(done.exception)
    wrong = CliRunner().invoke(top, ["--once", "--url", "file:///etc/passwd"])
    assert wrong.exit_code == 2


def test_quotas_add_up_over_the_workers() -> None:
    quota = QuotaSnapshot("acme", 100, 0, 0.5, 20, 1_000, 3, 4)
    found = json_of(view_of(answer(status("w1", quotas=(quota,)), status("w2", quotas=(quota,)))))
    assert found["quotas"] == [
        {"tenant": "acme", "requests/s": "40 of 100", "bytes/s": None, "delayed": "6", "refused": "8"}
    ]
