"""The dashboard and the alerts in deploy/ use existing metrics and labels, and each alert is documented."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import promql_parser
import pytest
import yaml

from inferd.daemon.http.routes.openapi import ALL_OPERATIONS
from inferd.daemon.telemetry.metrics import METRICS

ROOT = Path(__file__).parents[2]
OF_PROMETHEUS = {"up": set[str](), "process_start_time_seconds": set[str]()}
OF_THE_CLIENT = {"process_cpu_seconds_total": set[str](), "process_resident_memory_bytes": set[str]()}
OF_THE_SCRAPE = {"job", "instance"}
SUBJECTS = ("throughput", "lag", "latency", "errors", "models", "cache", "jobs", "restore", "rebalances")


def known_labels() -> dict[str, set[str]]:
    """The labels of each series in a worker's `/metrics`."""
    known = dict(OF_PROMETHEUS | OF_THE_CLIENT)
    for info in METRICS:
        names = {info.name: set(info.labels)}
        if info.type == "histogram":
            names = {f"{info.name}_bucket": {*info.labels, "le"}}
            names |= {f"{info.name}_{part}": set(info.labels) for part in ("sum", "count")}
        known |= names
    return known


def parts_of(expression: Any) -> Iterator[Any]:
    """The expression and all its subexpressions."""
    yield expression
    for name in ("expr", "lhs", "rhs", "param", "vector_selector"):
        if (part := getattr(expression, name, None)) is not None:
            yield from parts_of(part)
    for part in getattr(expression, "args", None) or ():
        yield from parts_of(part)


def unknown_names(query: str) -> list[str]:
    """Metrics, and labels of them, that no worker exports."""
    # Grafana substitutes its variables before it queries Prometheus.
    query = query.replace("$__rate_interval", "5m").replace("$tenant", ".*")
    known, wrong = known_labels(), []
    labels: set[str] = set()
    asked: set[str] = set()
    for part in parts_of(promql_parser.parse(query)):
        if isinstance(part, promql_parser.VectorSelector):
            wrong += [] if part.name in known else [str(part.name)]
            own = known.get(str(part.name), set()) | OF_THE_SCRAPE
            wrong += [f"{part.name}{{{m.name}}}" for m in part.matchers.matchers if m.name not in own]
            labels |= own
        elif isinstance(part, promql_parser.AggregateExpr) and part.modifier is not None:
            asked |= set(part.modifier.labels)
    return wrong + sorted(asked - labels)


@pytest.fixture(scope="module")
def dashboard() -> dict[str, Any]:
    read: dict[str, Any] = json.loads((ROOT / "deploy/grafana-dashboard.json").read_text(encoding="utf-8"))
    return read


@pytest.fixture(scope="module")
def alerts() -> list[dict[str, Any]]:
    rules = yaml.safe_load((ROOT / "deploy/prometheus-rules.yaml").read_text(encoding="utf-8"))
    assert len({group["name"] for group in rules["groups"]}) == len(rules["groups"])
    return [rule for group in rules["groups"] for rule in group["rules"]]


def test_the_test_finds_names_that_do_not_exist() -> None:
    assert unknown_names("sum by (tenant) (rate(inferd_results_total[5m]))") == []
    assert unknown_names("sum(rate(inferd_result_total[5m])) > up") == ["inferd_result_total"]
    assert unknown_names('inferd_model_state{sate="ready"}') == ["inferd_model_state{sate}"]
    assert unknown_names("sum by (model) (inferd_ready)") == ["model"]
    assert unknown_names("deriv(sum(nothing)[10m:1m])") == ["nothing"]
    assert unknown_names("histogram_quantile(0.9, rate(inferd_queue_seconds[5m]))") == ["inferd_queue_seconds"]


# Alerts


def test_alerts_use_existing_metrics(alerts: list[dict[str, Any]]) -> None:
    assert {rule["alert"]: found for rule in alerts if (found := unknown_names(rule["expr"]))} == {}


def test_alerts_are_complete(alerts: list[dict[str, Any]]) -> None:
    assert len({rule["alert"] for rule in alerts}) == len(alerts)
    for rule in alerts:
        assert set(rule) <= {"alert", "expr", "for", "labels", "annotations"}, rule["alert"]
        assert re.fullmatch(r"Inferd[A-Za-z]+", rule["alert"])
        assert re.fullmatch(r"[0-9]+[smh]", rule.get("for", "0s"))
        assert rule["labels"]["severity"] in ("info", "warning", "critical")
        assert set(rule["annotations"]) == {"summary", "runbook"}


def test_summaries_name_labels_that_the_alert_has(alerts: list[dict[str, Any]]) -> None:
    known = known_labels()
    for rule in alerts:
        asked = set(re.findall(r"\$labels\.(\w+)", rule["annotations"]["summary"]))
        parts = list(parts_of(promql_parser.parse(rule["expr"])))
        grouped = [
            set(p.modifier.labels) for p in parts if getattr(p, "modifier", None) and hasattr(p.modifier, "labels")
        ]
        names = [str(part.name) for part in parts if isinstance(part, promql_parser.VectorSelector)]
        have = set.union(*grouped) if grouped else set.union(*(known[name] for name in names)) | OF_THE_SCRAPE
        assert asked <= have, rule["alert"]


def test_each_alert_is_explained(alerts: list[dict[str, Any]]) -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    explained = re.findall(r"^### (Inferd\w+)$", page, re.MULTILINE)
    assert explained == [rule["alert"] for rule in alerts], "in the order of the file"
    for rule in alerts:
        assert rule["annotations"]["runbook"] == f"docs/operations.md#{rule['alert'].lower()}"


# Dashboard


def targets(dashboard: dict[str, Any]) -> list[tuple[str, str]]:
    return [(panel["title"], target["expr"]) for panel in dashboard["panels"] for target in panel.get("targets", ())]


def test_panels_use_existing_metrics(dashboard: dict[str, Any]) -> None:
    asked = targets(dashboard)
    assert len(asked) > 50
    assert {title: found for title, query in asked if (found := unknown_names(query))} == {}


def test_legends_name_labels_that_the_query_keeps(dashboard: dict[str, Any]) -> None:
    for panel in dashboard["panels"]:
        for target in panel.get("targets", ()):
            asked = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
            kept = re.search(r"by \(([^)]*)\)", target["expr"])
            have = set(re.split(r", ", kept[1])) if kept else OF_THE_SCRAPE
            assert asked <= have, panel["title"]


def test_the_dashboard_shows_every_subject(dashboard: dict[str, Any]) -> None:
    titles = " ".join(panel["title"].lower() for panel in dashboard["panels"])
    assert [subject for subject in SUBJECTS if subject not in titles] == []


def test_panels_have_unique_ids_and_do_not_overlap(dashboard: dict[str, Any]) -> None:
    panels = dashboard["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        assert at["x"] + at["w"] <= 24
        cells = {(x, y) for x in range(at["x"], at["x"] + at["w"]) for y in range(at["y"], at["y"] + at["h"])}
        assert not cells & taken, panel["title"]
        taken |= cells


def test_variables_of_the_dashboard_are_defined(dashboard: dict[str, Any]) -> None:
    defined = {variable["name"] for variable in dashboard["templating"]["list"]} | {"__rate_interval"}
    text = json.dumps(dashboard["panels"])
    assert set(re.findall(r"\$\{?(\w+)", text)) <= defined


# Texts for operators


def test_links_of_the_page_exist() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    anchors = {
        re.sub(r"[^a-z0-9 -]", "", title.lower()).replace(" ", "-")
        for title in re.findall(r"^#+ (.+)$", page, re.MULTILINE)
    }
    for link in re.findall(r"\]\(((?!http)[^)]+)\)", page):
        path, _, anchor = link.partition("#")
        assert (ROOT / "docs" / path).exists(), link
        assert path or anchor in anchors, link


def test_metrics_that_the_page_names_exist() -> None:
    page = (ROOT / "docs/operations.md").read_text(encoding="utf-8")
    names = set(re.findall(r"\binferd_[a-z_]+[a-z]\b", page))
    assert names
    assert names <= known_labels().keys()


def test_the_alert_on_http_errors_leaves_out_the_routes_that_answer_503_by_design(alerts: list[dict[str, Any]]) -> None:
    (rule,) = (rule for rule in alerts if rule["alert"] == "InferdHttpErrors")
    parts = parts_of(promql_parser.parse(rule["expr"]))
    selectors = [part for part in parts if isinstance(part, promql_parser.VectorSelector)]
    assert len(selectors) == 2
    by_design = {operation.path for operation in ALL_OPERATIONS if 503 in operation.answers}
    assert by_design == {"/readyz", "/health", "/v2/health/ready"}
    for selector in selectors:
        (matcher,) = (each for each in selector.matchers.matchers if each.name == "route")
        assert matcher.op == promql_parser.MatchOp.NotRe
        left_out = {each.path for each in ALL_OPERATIONS if re.fullmatch(matcher.value, each.path)}
        assert left_out == by_design
