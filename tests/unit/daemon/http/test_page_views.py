"""The page in a real browser, on a worker whose backends are in memory: every view, every action, and trouble."""

from __future__ import annotations

import asyncio
import hashlib
import os
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from aiohttp import web

from inferd.daemon.http.core.access import Access
from inferd.daemon.http.core.tokens import TokensFile
from inferd.schemas.audit import AuditRecord
from inferd.schemas.models.model import Alias, AliasRevision, AliasTarget, Feature, Manifest, SplitShare
from inferd.schemas.monitoring import Drift, FeatureDrift, Features, FeatureStats, Predictions, WindowStats
from inferd.schemas.monitoring.drift import Distance
from inferd.schemas.rollouts import Measure, RolloutStatus
from inferd.schemas.rollouts.rollout import Breach, Rollout, RolloutEvent
from inferd.streams.telemetry import DanglingAlias
from inferd.streams.telemetry.snapshot import PauseSnapshot, QuotaSnapshot
from tests.fixtures.browser import OpenPage, is_wider_than_the_window, shoot
from tests.unit.daemon.fake_streams import histogram, jobs, model, partition, route, snapshot, tenant
from tests.unit.daemon.http.fake_http_services import FakeWorker, topic_record

if TYPE_CHECKING:
    from playwright.sync_api import Page

VIEWS = {
    "": "Requests and errors per second",
    "models": "churn:2",
    "models/churn": "Predictions of version 3",
    "rollouts": "Guard breached",
    "jobs": "june",
    "jobs/june": "First results",
    "topics": "inferd.default.requests",
    "topics/inferd.default.results": "neither JSON nor MessagePack",
    "routes": "orders.scored",
    "errors": "malformed",
    "errors/2:17": "model_id: expected a string",
    "workers": "generation 3",
    "audit": "a-model:3",
}
RECORDS: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes]]]] = [
    *((b'{"id": "r%d", "prediction": 0.25, "why": "%s"}' % (n, b"x" * 300), b"r%d" % n, []) for n in range(120)),
    (b"\xc1 garbage", None, [("correlation-id", b"c1")]),
    (None, b"tombstone", []),
]
NOW_S = 1_800_000_000
SIZES = [(1400, False), (420, True)]
if os.environ.get("INFERD_TEST_PAGE_SIZES"):
    SIZES = [(width, dark) for width in (1400, 900, 420) for dark in (False, True)]


class Served:
    """A worker that is served by a thread of its own."""

    def __init__(self, worker: FakeWorker) -> None:
        self.worker = worker
        self.url = ""
        self._loop = asyncio.new_event_loop()
        self._runner = web.AppRunner(worker.app)
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def start(self, port: int = 0) -> None:
        self._thread.start()
        self.run(self._start(port))

    def stop(self) -> None:
        self.run(self._runner.cleanup())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def run(self, what: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(what, self._loop).result(10)

    async def _start(self, port: int) -> None:
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", port).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"


@contextmanager
def serving(worker: FakeWorker) -> Iterator[Served]:
    served = Served(worker)
    served.start()
    try:
        yield served
    finally:
        served.stop()


def manifest(version: int) -> Manifest:
    features = [
        Feature("age", min=0, max=120),
        Feature("plan", "category", categories=["basic", "pro"]),
        Feature("visits"),
    ]
    return Manifest(
        "churn", version, "lightgbm", f"{version}" * 64, 90_000, features, created_at="2026-11-01T10:00:00Z"
    )


def rollout(phase: Any, **changes: Any) -> Rollout:
    return Rollout(
        id="0" * 32, model_id="churn", alias="champion", version=3, base=AliasTarget(version=2), base_revision=4,
        steps=["5%:10m", "50%:30m", "100%"], guards=["errors < 1%", "p99 < 2x"], requests_min=100,
        guard_requests_min=100, started_at=NOW_S * 1000, started_by="ana", phase=phase, step=1,
        events=[RolloutEvent(NOW_S * 1000, "started", 5, "ana")], **changes,
    )  # fmt: skip


def fill(worker: FakeWorker) -> None:
    """Two models, a rollout that was rolled back, jobs, a route, drift, and an hour of samples."""
    worker.models.versions["default"] = {("churn", number): manifest(number) for number in (1, 2, 3)}
    earlier = [AliasRevision(version=1, revision=3, changed_at="2026-11-01T10:00:00Z", changed_by="ana")]
    changed: dict[str, Any] = {"revision": 4, "changed_at": "2026-11-02T10:00:00Z", "changed_by": "bob"}
    worker.models.aliases_of["default"] = {
        ("churn", "champion"): Alias(split=[SplitShare(2, 95), SplitShare(3, 5)], **changed, history=earlier)
    }
    breach = Breach("errors < 1%", 0.031, 0.01, 640, "5%:10m", NOW_S * 1000)
    worker.rollouts.statuses["default", "churn"] = RolloutStatus(
        rollout=rollout("rolled_back", breach=breach), requests=640, measures=[Measure("p99 < 2x", 12.5, 30.0, 640)]
    )
    worker.jobs.messages["default", "june"] = b""
    worker.topics.held = [topic_record(number, *content) for number, content in enumerate(RECORDS)]
    by_ana = AuditRecord(at=NOW_S * 1000, action="deploy", subject="a-model:3", by="ana", origin="http 10.0.0.7")
    worker.operating.records = [by_ana]
    minute = int(worker.board.ring._clock()) // 60
    worker.monitoring.windows = windows(minute)  # type: ignore[method-assign]
    worker.monitoring.drift = drift  # type: ignore[method-assign,assignment]
    worker.streams.said = full_snapshot()
    samples(worker, 720)


def windows(minute: int) -> Any:
    async def found(*_asked: Any) -> list[WindowStats]:
        return [
            WindowStats(
                model_id="churn", version=version, minute=minute - ago, requests=100 + ago, rows=100,
                errors={"invalid_value": version}, latency={8: 90, 16: 10},
                predictions=Predictions("unit", {5: 40, 50: 20, 99: 10}), compared=50, differing=ago % 5,
                features=Features(5, 100, {"age": FeatureStats([5, 20, 60, 10], missing=5)}),
            )
            for version in (2, 3) for ago in range(1, 40)
        ]  # fmt: skip

    return found


async def drift(*_asked: Any) -> list[Drift]:
    features = [FeatureDrift("age", 900, 0.31, 0.2, 0.2), FeatureDrift("plan", 900, 0.12, 0.1, unknown=0.05)]
    return [Drift("churn", 3, "given", 5_000, 900, features, Distance(0.02, 0.01))]


def full_snapshot(**changes: Any) -> Any:
    values = {
        "models": (
            model(version=1, aliases=(), state="failed", reason="the trial ended with signal 11: the file is damaged"),
            model(version=2, aliases=("champion (95 %)",)),
            model(version=3, aliases=("champion (5 %)",), state="trying"),
        ),
        "partitions": tuple(partition(number=number, lag=number * 400) for number in (10, 9, 2, 1, 0)),
        "tenants": (tenant(requests_in=100_000, results=99_000, direct=2_000),),
        "jobs": (jobs(open=0),),
        "end_to_end": histogram(10, 80, 10, 0, total_s=0.5),
        "shadows": (),
        "rollouts": (),
    }
    return snapshot(**values | changes)


def samples(worker: FakeWorker, count: int) -> None:
    """Fills the ring with samples of the time before now, with about 1.5 % errors."""
    ring, said = worker.board.ring, worker.streams.said
    real = ring._clock
    start = real() - 5 * count
    for number in range(count):
        ring._clock = lambda at=start + 5 * number: at  # type: ignore[misc]
        requests = number * 500 + 200 * (number % 7)
        counted = tenant(requests_in=requests, results=requests, errors={"malformed": number * 8})
        ring.observe(msgspec.structs.replace(said, tenants=(counted,)), 120_000_000 + number * 10_000)
    ring._clock = real


@pytest.fixture
def full(worker: FakeWorker) -> Iterator[Served]:
    fill(worker)
    with serving(worker) as served:
        yield served


def show(page: Page, view: str, text: str) -> None:
    page.goto(page.url.partition("#")[0] + f"#/{view}")
    page.get_by_text(text).first.wait_for()


@pytest.mark.parametrize(("width", "dark"), SIZES)
def test_every_view(full: Served, open_page: OpenPage, width: int, *, dark: bool) -> None:
    page = open_page(full.url, width=width, dark=dark)
    for view, text in VIEWS.items():
        show(page, view, text)
        shoot(page, f"{view.replace('/', '-') or 'overview'}-{width}-{'dark' if dark else 'light'}")
        assert not is_wider_than_the_window(page), view
        current = page.locator("nav [aria-current]").inner_text()
        assert current.lower() == (view.split("/")[0] or "overview")


def test_the_overview_begins_with_an_hour_of_samples_and_says_what_is_wrong(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url)
    page.get_by_role("button", name="1 h").click()
    chart = page.get_by_role("img", name="Requests and errors per second over time")
    chart.wait_for()
    points = chart.locator("polyline.c0").first.get_attribute("points") or ""
    assert len(points.split()) > 150
    problems = page.get_by_label("Problems").inner_text()
    assert "churn:1 failed: the trial ended with signal 11" in problems
    assert re.search(r"1\.\d % of the requests of the last minute failed", problems)
    assert "route orders is waiting: topic orders.scored does not exist" in problems
    assert "4 warnings" in page.locator("#health").inner_text()
    chart.hover(position={"x": 300, "y": 60})
    assert "requests/s" in chart.locator(".cursor").inner_html()


def test_partitions_are_sorted_by_number(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/topics")
    page.get_by_text("inferd.default.requests").wait_for()
    rows = page.locator("tbody tr")
    assert [rows.nth(number).locator("td").first.inner_text() for number in range(5)] == ["0", "1", "2", "9", "10"]


def test_records_of_a_topic_page_by_page(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/topics")
    page.get_by_role("link", name="inferd.default.results").click()
    page.get_by_text("neither JSON nor MessagePack").wait_for()
    offsets = page.locator("tbody tr td:first-child")
    assert offsets.all_inner_texts() == [str(number) for number in range(121, 71, -1)]
    page.get_by_text("neither JSON nor MessagePack").click()
    page.get_by_text("header correlation-id").wait_for()
    page.get_by_text("wSBnYXJiYWdl").wait_for()
    page.get_by_role("button", name="Older").click()
    page.get_by_text("r22").first.wait_for()
    assert offsets.first.inner_text() == "71"
    page.get_by_label("From offset").fill("5")
    page.get_by_role("button", name="Show").click()
    page.locator("tbody").get_by_text("54", exact=True).wait_for()
    assert offsets.last.inner_text() == "5"
    page.get_by_label("Partition").select_option("1")
    page.get_by_text("No records here").wait_for()
    show(page, "topics/unknown", "tenant default has no topic 'unknown'")


def test_a_refresh_moves_the_bars(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/topics")
    bar = page.locator("tr", has=page.get_by_text("9", exact=True)).locator(".fill").first
    assert bar.evaluate("bar => bar.style.width") == "90%"
    lags = (partition(number=9, lag=100), partition(number=10, lag=400))
    full.worker.streams.said = full_snapshot(partitions=lags)
    page.locator('.fill[style*="25%"]').first.wait_for()


def test_keys_choose_views_and_the_filter(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url)
    page.get_by_text("Flow").wait_for()
    page.keyboard.press("2")
    page.get_by_text("churn:3").first.wait_for()
    page.keyboard.press("/")
    page.keyboard.type("failed")
    page.get_by_text("churn:3").first.wait_for(state="detached")
    assert page.locator("tbody tr").count() == 1
    page.keyboard.press("Escape")
    page.keyboard.press("8")
    page.get_by_text("generation 3").wait_for()
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.tagName") in {"A", "BUTTON", "SUMMARY"}


def test_a_refresh_keeps_what_is_open_and_where_the_focus_is(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/workers")
    page.get_by_text("Latency and steps").click()
    page.get_by_text("Latency and steps").focus()
    with page.expect_response("**/cluster"):
        pass
    with page.expect_response("**/cluster"):
        pass
    page.get_by_text("end to end, over Kafka").wait_for()
    assert page.evaluate("document.activeElement.innerText") == "Latency and steps"


def test_features_are_drawn_against_the_baseline(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/models/churn")
    page.get_by_text("Features against the baseline").click()
    chart = page.get_by_role("img", name="Values of age against the baseline")
    chart.wait_for()
    assert "30 to 50: 60 %, baseline 40 %" in chart.inner_html()
    assert "missing: 5 %, baseline 0 %" in chart.inner_html()
    shoot(page, "features")


# ------------------------------------------------------------------------------------------------------------- actions


def dialog(page: Page, button: str, *, first: bool = True) -> Any:
    found = page.get_by_role("button", name=button, exact=True)
    (found.first if first else found.last).click()
    return page.locator("dialog[open]")


def done(page: Page, text: str) -> None:
    page.locator(".toast").get_by_text(text).wait_for()


def test_a_prediction_from_a_form_of_the_features(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/models/churn")
    form = dialog(page, "Try a prediction")
    form.get_by_label("age").fill("41")
    form.get_by_label("plan").select_option("pro")
    form.get_by_role("button", name="Predict").click()
    form.locator(".big").get_by_text("0.25").wait_for()
    shoot(page, "try-a-prediction")
    _, value, _ = full.worker.predictions.asked[0]
    assert msgspec.json.decode(value)["input_data"] == {"age": 41, "plan": "pro", "visits": None}


def test_a_model_is_deployed_from_a_file(worker: FakeWorker, open_page: OpenPage, tmp_path: Path) -> None:
    worker.streams.said = snapshot(models=(), routes=(), shadows=(), drift=(), rollouts=())
    path = tmp_path / "late flights.txt"
    path.write_bytes(b"tree\nversion=v4\n")
    with serving(worker) as served:
        page = open_page(served.url)
        page.get_by_text("Nothing is deployed yet").wait_for()
        shoot(page, "empty")
        page.locator("input[type=file]").first.set_input_files(path)
        form = page.locator("dialog[open]")
        assert form.get_by_label("Model").input_value() == "late-flights"
        form.get_by_label("Alias").fill("champion")
        form.get_by_label("Manifest").fill('{"labels": {"team": "sky"}}')
        form.get_by_role("button", name="Deploy").click()
        done(page, "late-flights:1 is deployed")
        page.get_by_role("heading", name="late-flights").wait_for()
    (deployed,) = worker.models.versions["default"].values()
    assert deployed.labels == {"team": "sky"}
    assert deployed.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert ("late-flights", "champion") in worker.models.aliases_of["default"]


def test_a_rejected_deploy_says_why(full: Served, open_page: OpenPage, tmp_path: Path) -> None:
    path = tmp_path / "m.txt"
    path.write_bytes(b"x")
    page = open_page(full.url + "/#/models")
    page.get_by_text("Drop a model file").wait_for()
    page.locator("input[type=file]").first.set_input_files(path)
    form = page.locator("dialog[open]")
    form.get_by_label("Manifest").fill("{")
    form.get_by_role("button", name="Deploy").click()
    form.get_by_role("alert").get_by_text("malformed").wait_for()


def test_aliases_are_changed_promoted_rolled_back_and_removed(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/models/churn")
    aliases = full.worker.models.aliases_of["default"]
    form = dialog(page, "Change")
    assert form.get_by_label("Share of version 2").input_value() == "95"
    form.get_by_label("Share of version 3").fill("")
    form.get_by_role("button", name="Set alias").click()
    done(page, "churn@champion points at 2.")
    assert (aliases["churn", "champion"].version, aliases["churn", "champion"].revision) == (2, 5)
    form = dialog(page, "Promote")
    form.get_by_label("Alias to change").fill("stable")
    form.get_by_role("button", name="Promote").click()
    done(page, "churn@stable points at 2.")
    form = dialog(page, "Roll back")
    form.get_by_role("button", name="Roll back").click()
    done(page, "points at 2 (95 %), 3 (5 %) again")
    page.locator("tr[data-key=stable]").get_by_role("button", name="Remove").click()
    page.locator("dialog[open]").get_by_role("button", name="Remove").click()
    done(page, "churn@stable is removed.")
    assert ("churn", "stable") not in aliases


def test_an_alias_that_somebody_else_changed_is_not_overwritten(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/models/churn")
    form = dialog(page, "Change")
    aliases = full.worker.models.aliases_of["default"]
    aliases["churn", "champion"] = msgspec.structs.replace(aliases["churn", "champion"], revision=9)
    form.get_by_role("button", name="Set alias").click()
    form.get_by_role("alert").get_by_text("alias_changed").wait_for()


def test_a_rollout_is_started_and_steered(full: Served, open_page: OpenPage) -> None:
    statuses = full.worker.rollouts.statuses
    del statuses["default", "churn"]
    page = open_page(full.url + "/#/models/churn")
    form = dialog(page, "Start a rollout")
    shoot(page, "start-a-rollout")
    form.get_by_role("button", name="Start").click()
    done(page, "The rollout of churn:3 has started.")
    for action in ("Pause", "Promote", "Abort"):
        page.locator(".card", has=page.locator(".steps")).get_by_role("button", name=action, exact=True).click()
        page.locator("dialog[open]").get_by_role("button", name=action).click()
        done(page, f"The rollout of churn: {action.lower()} is done.")
    assert [action for action, _ in full.worker.rollouts.steered] == ["pause", "promote", "abort"]


def test_a_model_is_paused_and_resumed(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/models/churn")
    form = dialog(page, "Pause")
    form.get_by_label("Reason").fill("bad data")
    form.get_by_role("button", name="Pause").click()
    done(page, "churn is paused.")
    (pause,) = full.worker.operating.paused
    assert (pause.kind, pause.name, pause.reason) == ("model", "churn", "bad data")
    known = PauseSnapshot("default", "model", "churn", NOW_S * 1000, "ana", "bad data")
    full.worker.streams.said = full_snapshot(pauses=(known,))
    form = dialog(page, "Resume")
    form.get_by_role("button", name="Resume").click()
    done(page, "churn is resumed.")
    assert not full.worker.operating.paused
    show(page, "", "model churn is paused since")
    show(page, "models", "paused")


def test_jobs_are_submitted_cancelled_and_retried(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/jobs")
    form = dialog(page, "Submit a job")
    form.get_by_label("Job id").fill("july")
    form.get_by_label("or rows").fill('[41, "pro", 2]\n[42, "pro", 3]')
    form.get_by_role("button", name="Submit").click()
    done(page, "Job july is completed.")
    asked: list[tuple[str, str]] = []
    services = full.worker.jobs

    async def note(tenant: str, job_id: str, action: str) -> bytes:
        asked.append((action, job_id))
        return services._status(job_id)

    services.cancel = lambda tenant, job_id: note(tenant, job_id, "cancel")  # type: ignore[method-assign]
    services.retry = lambda tenant, job_id: note(tenant, job_id, "retry")  # type: ignore[method-assign]
    plain = services._status
    for status, button in (("running", "Cancel"), ("completed_with_errors", "Retry")):
        changed = status.encode()
        services._status = lambda job_id, now=changed: plain(job_id).replace(b'"completed"', b'"%s"' % now)  # type: ignore[method-assign, misc]
        page.locator("tr[data-key=july]").get_by_role("button", name=button).click()
        page.locator("dialog[open] .actions button").last.click()
        done(page, f"Job july: {button.lower()} is accepted.")
    assert asked == [("cancel", "july"), ("retry", "july")]


def test_dead_letters_are_redriven_after_a_dry_run(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url + "/#/errors")
    page.get_by_role("link", name="malformed", exact=True).click()
    page.get_by_text("all codes").wait_for()
    form = dialog(page, "Redrive")
    assert form.get_by_label("Error code").input_value() == "malformed"
    form.get_by_role("button", name="Next").click()
    form.get_by_text("2 of 3 dead letters would be sent again").wait_for()
    form.get_by_role("button", name="Send 2 again").click()
    form.get_by_text("2 of 3 dead letters were sent again").wait_for()
    (_, first), (_, second) = full.worker.operating.redriven
    assert (first.dry_run, second.dry_run) == (True, False)
    assert (second.code, second.since_s, second.limit) == ("malformed", 86_400, 1_000)


# ------------------------------------------------------------------------------------------------------------- trouble


def test_a_lost_connection_is_said_and_found_again(full: Served, open_page: OpenPage) -> None:
    page = open_page(full.url)
    page.get_by_text("Flow").wait_for()
    page.context.set_offline(True)
    page.get_by_text("No connection to the worker").wait_for()
    assert "what you see is old".lower() in page.locator("#banner").inner_text().lower()
    assert page.title().startswith("✗")
    shoot(page, "no-connection")
    page.context.set_offline(False)
    page.locator("#banner").wait_for(state="hidden")


def test_failures_of_the_first_seconds_make_the_badge_red(worker: FakeWorker, open_page: OpenPage) -> None:
    fill(worker)
    worker.board.ring._ring.clear()
    worker.streams.said = full_snapshot(tenants=(tenant(requests_in=40, results=40, errors={"malformed": 20}),))
    with serving(worker) as served:
        page = open_page(served.url)
        page.get_by_text("50.0 % of the requests since the start failed").wait_for()
        assert page.locator("#health .bad").count() == 1


def test_quotas_show_what_is_used_of_them(full: Served, open_page: OpenPage) -> None:
    quota = QuotaSnapshot("default", 100.0, 0.0, 0.5, 97.0, 5_000.0, 12, 3)
    full.worker.streams.said = full_snapshot(quotas=(quota,))
    page = open_page(full.url)
    page.get_by_text("tenant default uses 97 % of its quota").wait_for()
    row = page.locator("tr", has=page.get_by_text("97 of 100")).inner_text()
    assert row.split() == ["default", "97", "of", "100", "unlimited", "12", "3"]
    shoot(page, "quotas")


def test_trouble_makes_the_badge_red(full: Served, open_page: OpenPage) -> None:
    full.worker.streams.said = full_snapshot(
        unready=("waiting for the broker",), last_error="the broker refused a commit",
        dangling_aliases=(DanglingAlias("default", "churn", "stable", (9,)),),
        routes=(route(state="refused", reason="topic orders.v1 is not allowed"),),
    )  # fmt: skip
    page = open_page(full.url)
    page.get_by_text("alias churn@stable points at version 9").wait_for()
    page.get_by_text("worker w1 is not ready: waiting for the broker").wait_for()
    assert page.locator("#health .bad").inner_text() == "3 problems"
    shoot(page, "trouble")


def test_an_empty_system_says_what_to_do_first(worker: FakeWorker, open_page: OpenPage) -> None:
    worker.streams.said = snapshot(
        models=(), partitions=(), routes=(), shadows=(), drift=(), rollouts=(), cache=(),
        tenants=(tenant(requests_in=0, results=0, errors={}, dead_letters=0, pending=0),), jobs=(jobs(open=0),),
    )  # fmt: skip
    expected = {
        "": "Deploy a first model", "models": "inferd models deploy", "rollouts": "inferd rollouts start",
        "jobs": "inferd jobs submit", "topics": "No partition is assigned", "routes": "inferd routes create",
        "audit": "Nothing was changed",
        "errors": "No dead letters", "models/none": "model_not_found", "nothing": "There is no such view",
    }  # fmt: skip
    worker.dead_letters.letters.clear()
    with serving(worker) as served:
        page = open_page(served.url)
        for view, text in expected.items():
            show(page, view, text)


def test_a_thousand_versions_and_hundreds_of_partitions(full: Served, open_page: OpenPage) -> None:
    full.worker.streams.said = full_snapshot(
        models=tuple(model(f"model-with-a-rather-long-name-{number}", 1) for number in range(1_000)),
        partitions=tuple(partition(f"inferd.default.topic-{number % 8}", number // 8) for number in range(400)),
    )
    for width in (1400, 420):
        page = open_page(full.url + "/#/models", width=width)
        page.get_by_text("the first 200 of 1,000").wait_for()
        assert not is_wider_than_the_window(page)
        show(page, "topics", "topic-7")
        assert not is_wider_than_the_window(page)
        show(page, "", "Flow")
        page.locator(".flow").get_by_text("994 more").last.wait_for(state="attached")
        shoot(page, f"much-{width}")


# -------------------------------------------------------------------------------------------------------------- access


@pytest.fixture
def guarded(tmp_path: Path) -> Iterator[Callable[[str], Served]]:
    """Serves two tenants with a token `t` with the given roles."""
    started: list[Served] = []

    def made(line: str) -> Served:
        path = tmp_path / "tokens"
        path.write_text(line.replace("SHA", hashlib.sha256(b"t").hexdigest()) + "\n")
        path.chmod(0o600)
        worker = FakeWorker(tmp_path / "uploads", access=Access(("default", "other"), TokensFile(path)))
        fill(worker)
        worker.streams.said = full_snapshot(
            tenants=(tenant(), tenant("other")), models=(model(), model("secret", tenant="other"))
        )
        started.append(Served(worker))
        started[-1].start()
        return started[-1]

    yield made
    for served in started:
        served.stop()


def log_in(page: Page) -> None:
    form = page.locator("dialog[open]")
    form.get_by_label("Bearer token").fill("t")
    form.get_by_role("button", name="Use token").click()
    page.get_by_text("Flow").wait_for()


def test_a_tenants_token_shows_its_tenant_alone(guarded: Any, open_page: OpenPage) -> None:
    page = open_page(guarded("default:SHA:ana:read").url)
    log_in(page)
    show(page, "models", "churn:1")
    page.get_by_text("ana", exact=True).wait_for()
    assert "secret" not in page.content()
    show(page, "topics", "inferd.default.results")
    for button in ("Try", "Remove", "Start a rollout", "Submit a job"):
        assert page.get_by_role("button", name=button, exact=True).count() == 0
    show(page, "models/churn", "champion")
    assert page.get_by_role("button", name="Change").count() == 0
    page.reload()
    page.get_by_text("champion").first.wait_for()
    page.get_by_role("button", name="Forget token").click()
    page.locator("dialog[open]").get_by_text("requires a bearer token").wait_for()


def test_who_may_only_monitor_sees_no_records(guarded: Any, open_page: OpenPage) -> None:
    page = open_page(guarded("default:SHA:ana:monitor").url)
    log_in(page)
    show(page, "topics", "inferd.default.requests")
    assert page.get_by_role("link", name="inferd.default.requests").count() == 0
    show(page, "topics/inferd.default.requests", "forbidden")


def test_an_operator_chooses_the_tenant(guarded: Any, open_page: OpenPage) -> None:
    page = open_page(guarded("*:SHA:root:read,predict,deploy,operate").url)
    log_in(page)
    show(page, "models", "churn:1")
    page.get_by_label("Tenant").select_option("other")
    page.get_by_text("secret:1").first.wait_for()
    assert page.get_by_text("churn:1").count() == 0


def test_a_problem_of_another_tenant_leads_to_that_tenant(guarded: Any, open_page: OpenPage) -> None:
    served = guarded("*:SHA:root:read,predict,deploy,operate")
    said = served.worker.streams.said
    dangling = (DanglingAlias("other", "secret", "stable", (9,)),)
    served.worker.streams.said = msgspec.structs.replace(said, dangling_aliases=dangling)
    page = open_page(served.url)
    log_in(page)
    assert page.get_by_label("Tenant").input_value() == "default"
    page.get_by_text("other: alias secret@stable points at version 9").click()
    page.locator("option[value=other]:checked").wait_for(state="attached")
    assert page.url.endswith("#/models/secret?tenant=other")


def test_a_wrong_token_is_asked_for_again(guarded: Any, open_page: OpenPage) -> None:
    page = open_page(guarded("default:SHA:ana:read").url)
    form = page.locator("dialog[open]")
    form.get_by_label("Bearer token").fill("wrong")
    form.get_by_role("button", name="Use token").click()
    page.locator("dialog[open]").get_by_text("the bearer token is unknown").wait_for()
