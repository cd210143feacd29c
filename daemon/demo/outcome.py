"""Tables and checks of the demo's results."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray
from rich.text import Text

from inferd.daemon.demo.flights import FlightSet
from inferd.daemon.demo.narration import Narrator
from inferd.daemon.demo.quality import Latency, accuracy, auc
from inferd.daemon.demo.traffic import Burst, Rejection
from inferd.schemas.requests import Prediction, Result
from inferd.schemas.topics import Stream

SHOWN_FLIGHTS = 10
MESSAGE_CHARS = 56
TENANT_FIELDS = ("requests_in", "results", "dead_letters", "pending")
MODEL_FIELDS = ("state", "requests", "rows", "predict_s")
STATUS_FIELDS = ("worker", "ready", "phase", "lag", "generation", "batches")


def show_one_request(narrator: Narrator, names: Sequence[str], row: Sequence[Any], result: Result) -> None:
    """Shows the first request (with feature names) and its result, as JSON."""
    narrator.heading("A request and its result (here as JSON; MessagePack and positional values work too)")
    request = {"model_id": result.model_id, "input_data": dict(zip(names, row, strict=True))}
    narrator.text(f"  → {msgspec.json.encode(request).decode()}")
    shown: dict[str, Any] = {"id": result.id, "model_id": result.model_id}
    if isinstance(result, Prediction):
        shown |= {"version": result.version, "digest": f"{result.digest[:12]}…", **result.outputs}
    narrator.text(f"  ← {msgspec.json.encode(shown).decode()}")


def show_flights(narrator: Narrator, flights: FlightSet, scores: NDArray[np.float64]) -> None:
    """Shows an even sample of the flights, with predictions and true outcomes."""
    rows = []
    for place in np.linspace(0, len(flights) - 1, min(SHOWN_FLIGHTS, len(flights)), dtype=int):
        predicted, late = bool(scores[place] >= 0.5), bool(flights.late[place])
        right = predicted == late
        rows.append(
            (
                flights.titles[place],
                f"{flights.features.departure_delay_min.iloc[place]:+.0f} min",
                f"{scores[place]:.3f}",
                "late" if predicted else "on time",
                "late" if late else "on time",
                Text("✓", "green") if right else Text("✗", "red"),
            )
        )
    columns = ("flight", ">departure", ">P(late)", "predicted", "truth", "")
    narrator.table(f"{len(rows)} of {len(flights):,} flights", columns, rows)


def show_quality(narrator: Narrator, flights: FlightSet, scores: NDArray[np.float64]) -> float:
    """Shows AUC and accuracy; returns the AUC."""
    area = auc(scores, flights.late)
    majority = 1 - flights.late.mean()
    rows = [
        ("AUC", f"{area:.4f}"),
        ("accuracy", f"{accuracy(scores, flights.late):.4f}"),
        ("accuracy of always predicting “on time”", f"{majority:.4f}"),
    ]
    narrator.table("Quality", ("", ">"), rows)
    return area


def show_speed(narrator: Narrator, results: Burst, latency: Latency, rate: float) -> None:
    """Shows the throughput of the burst, and the latency of the steady stream."""
    rows = [
        (
            "all at once",
            f"{results.requests_per_s:,.0f} requests/s: {len(results.results):,} in {results.seconds:.1f} s",
        ),
        (
            f"at {rate:,.0f} requests/s",
            f"latency p50 {latency.p50_ms:.1f} ms, p99 {latency.p99_ms:.1f} ms, max {latency.max_ms:.1f} ms,"
            " measured from the scheduled time of each request",
        ),
    ]
    title = f"Speed, with client, broker and worker on the {os.cpu_count()} cores of this machine"
    narrator.table(title, ("", ""), rows)


def show_rejections(narrator: Narrator, rejections: Sequence[Rejection]) -> None:
    """Shows the errors of bad requests, and checks their codes."""
    rows = [(rejection.what, rejection.code or "-", _cut(rejection.message)) for rejection in rejections]
    narrator.table("Bad requests", ("request", "code", "message"), rows)
    right = sum(rejection.code == rejection.expected_code for rejection in rejections)
    narrator.check(f"each bad request got its typed error: {right} of {len(rejections)}", right == len(rejections))


def show_status(narrator: Narrator, url: str, status: Mapping[str, Any]) -> None:
    """Shows an excerpt of `/status`."""
    narrator.heading(f"GET {url}/status (excerpt)")
    for field in STATUS_FIELDS:
        narrator.text(f"  {_json(field)}: {_json(status.get(field))}")
    for tenant in status.get("tenants", ()):
        narrator.text(f'  "tenants.{tenant["tenant"]}": {_json(_fields(tenant, TENANT_FIELDS))}')
        narrator.text(f'  "tenants.{tenant["tenant"]}.errors": {_json(tenant["errors"])}')
    for model in status.get("models", ()):
        narrator.text(f'  "models.{model["model_id"]}:{model["version"]}": {_json(_fields(model, MODEL_FIELDS))}')
    for name, latency in status.get("latency", {}).items():
        narrator.text(f'  "latency.{name}": {_json(latency.get("since_start"))}')


def check_counts(narrator: Narrator, counts: Mapping[Stream, int], status: Mapping[str, Any]) -> None:
    """Checks that every request has exactly one result, in the topics and in the worker's counters."""
    requests, results = counts["requests"], counts["results"]
    narrator.check(
        f"the topics have one result per request: {requests:,} requests, {results:,} results", requests == results
    )
    for tenant in status["tenants"]:
        received, predicted, pending = tenant["requests_in"], tenant["results"], tenant["pending"]
        errors = sum(tenant["errors"].values())
        narrator.check(
            f"the worker counts the same: {received:,} requests = {predicted:,} results + {errors} errors"
            f" + {pending} pending",
            received == predicted + errors + pending == requests,
        )
    narrator.check(
        f"the undecodable record is in the dead-letter topic: {counts['dead-letters']}", counts["dead-letters"] == 1
    )


def _fields(item: Mapping[str, Any], names: Sequence[str]) -> dict[str, Any]:
    return {name: item.get(name) for name in names}


def _json(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _cut(text: str, chars: int = MESSAGE_CHARS) -> str:
    return text if len(text) <= chars else f"{text[: chars - 1]}…"
