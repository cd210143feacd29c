"""What `inferd top` shows of the answer of `GET /cluster`. No I/O."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Json = Mapping[str, Any]
MODELS_MAX, LAGS_MAX = 12, 12
"""Rows of a live table; `--once` shows all."""


@dataclass(frozen=True, slots=True)
class Section:
    """A table, and what is said if it is empty."""

    title: str
    columns: tuple[str, ...]
    rows: list[tuple[object, ...]]
    empty: str = ""


@dataclass(frozen=True, slots=True)
class View:
    """The cluster at one moment."""

    summary: tuple[tuple[str, str], ...]
    """Name and value."""
    trouble: tuple[str, ...]
    """What an operator should look at; empty if all is well."""
    sections: tuple[Section, ...]


def view_of(answer: Json) -> View:
    """The view of an answer; workers that do not answer are trouble."""
    workers = [each["status"] for each in answer["workers"] if each.get("status")]
    return View(
        tuple(_summary(workers, len(answer["workers"]))),
        tuple(dict.fromkeys(_trouble(answer))),
        (_workers(answer), _lags(workers), _models(workers), _jobs(workers), _quotas(workers), _routes(workers)),
    )


def json_of(view: View) -> dict[str, Any]:
    """The view as JSON: by section, its rows by column."""
    return {
        "summary": dict(view.summary),
        "trouble": list(view.trouble),
        **{
            section.title: [dict(zip(section.columns, row, strict=True)) for row in section.rows]
            for section in view.sections
        },
    }


def _summary(workers: Sequence[Json], known: int) -> Iterable[tuple[str, str]]:
    yield "workers", f"{sum(each['ready'] for each in workers)} of {known} ready"
    yield "requests/s", _shown(sum(_rate(each, "requests_per_s") for each in workers))
    yield "rows/s", _shown(sum(_rate(each, "rows_per_s") for each in workers))
    errors = sum(_rate(each, "errors_per_s") for each in workers)
    yield "errors/s", _shown(errors)
    lags = [each["lag"] for each in workers if each.get("lag") is not None]
    yield "lag", _shown(sum(lags) if lags else None)
    p99 = [p for each in workers if (p := _latency(each, "p99_ms")) is not None]
    yield "p99 ms", _shown(max(p99, default=None))
    if workers:
        yield "broker", workers[0]["broker"]
        yield "guarantee", workers[0]["processing_guarantee"]


def _trouble(answer: Json) -> Iterable[str]:
    for each in answer["workers"]:
        status = each.get("status")
        if status is None:
            yield f"{each['url']} does not answer: {each.get('error')}"
            continue
        yield from (f"{status['worker']}: {reason}" for reason in status["unready"])
        if status.get("last_error"):
            yield f"{status['worker']}: {status['last_error']}"
        for model in status.get("models", ()):
            if model["state"] == "failed":
                yield f"{_name(model)} failed: {model['reason']}"
        for alias in status.get("dangling_aliases", ()):
            yield f"{alias['model_id']}@{alias['alias']} points at versions that are not deployed"
        for pause in status.get("pauses", ()):
            yield f"{pause['kind']} {pause['name']} is paused by {pause['by']}{_because(pause)}"


def _because(pause: Json) -> str:
    return f": {pause['reason']}" if pause.get("reason") else ""


def _workers(answer: Json) -> Section:
    rows: list[tuple[object, ...]] = []
    for each in answer["workers"]:
        status = each.get("status")
        if status is None:
            rows.append((each["url"], "unknown", *[None] * 8))
            continue
        memory = status["memory"].get("resident_bytes")
        rows.append((
            status["worker"], "ready" if status["ready"] else status["phase"], len(status["partitions"]),
            _number(_rate(status, "requests_per_s")), _number(_rate(status, "errors_per_s")),
            _number(status.get("lag")), _number(_latency(status, "p50_ms")), _number(_latency(status, "p99_ms")),
            None if memory is None else f"{memory / 1e6:.0f}", f"{1_000 * status['event_loop_lag_s']:.0f}",
        ))  # fmt: skip
    columns = ("worker", "state", "partitions", "requests/s", "errors/s", "lag", "p50 ms", "p99 ms", "MB", "loop ms")
    return Section("workers", columns, sorted(rows, key=lambda row: str(row[0])))


def _lags(workers: Sequence[Json]) -> Section:
    by_topic: dict[str, list[Json]] = defaultdict(list)
    for status in workers:
        for partition in status["partitions"]:
            by_topic[partition["topic"]].append(partition)
    rows = [
        (
            topic, len(partitions), _number(sum(each["lag"] or 0 for each in partitions)),
            max((each["lag"] or 0, -each["partition"]) for each in partitions)[1] * -1,
            _number(sum(each["queued"] for each in partitions)), _number(sum(each["in_flight"] for each in partitions)),
        )
        for topic, partitions in by_topic.items()
    ]  # fmt: skip
    lag = {topic: sum(each["lag"] or 0 for each in partitions) for topic, partitions in by_topic.items()}
    rows.sort(key=lambda row: (-lag[str(row[0])], str(row[0])))
    columns = ("topic", "partitions", "lag", "most in", "queued", "in flight")
    return Section("lag", columns, list(rows), "no partitions are assigned")


def _models(workers: Sequence[Json]) -> Section:
    """Versions, with what all workers scored; states differ while a version spreads."""
    by_version: dict[tuple[str, str, int], list[Json]] = defaultdict(list)
    for status in workers:
        for model in status["models"]:
            by_version[model["tenant"], model["model_id"], model["version"]].append(model)
    rows: list[tuple[object, ...]] = []
    for (tenant, name, version), found in by_version.items():
        states = sorted({each["state"] for each in found})
        scored = sum(each["rows"] for each in found)
        seconds = sum(each["predict_s"] for each in found)
        rows.append((
            tenant, f"{name}:{version}", ", ".join(found[0]["aliases"]) or None, ", ".join(states),
            _number(sum(each["requests"] for each in found)), _number(scored),
            f"{1e6 * seconds / scored:.1f}" if scored else None,
        ))  # fmt: skip
    rows.sort(key=lambda row: (str(row[0]), str(row[1])))
    columns = ("tenant", "model", "aliases", "state", "requests", "rows", "µs/row")
    return Section("models", columns, rows, "no models: inferd models deploy FILE --name NAME")


def _jobs(workers: Sequence[Json]) -> Section:
    by_tenant: dict[str, list[Json]] = defaultdict(list)
    for status in workers:
        for jobs in status["jobs"]:
            by_tenant[jobs["tenant"]].append(jobs)
    rows: list[tuple[object, ...]] = []
    for tenant, found in sorted(by_tenant.items()):
        total = {
            name: sum(each[name] for each in found) for name in ("open", "open_rows", "rows_succeeded", "rows_failed")
        }
        if any(total.values()):
            rows.append((tenant, *map(_number, total.values())))
    return Section("jobs", ("tenant", "open", "open rows", "rows done", "rows failed"), rows)


def _quotas(workers: Sequence[Json]) -> Section:
    by_tenant: dict[str, list[Json]] = defaultdict(list)
    for status in workers:
        for quota in status.get("quotas", ()):
            by_tenant[quota["tenant"]].append(quota)

    def used(found: list[Json], name: str) -> str | None:
        limit = found[0][f"{name}_per_s"]
        return f"{_number(sum(each[f'used_{name}_per_s'] for each in found))} of {_number(limit)}" if limit else None

    rows = [
        (
            tenant, used(found, "requests"), used(found, "bytes"), _number(sum(each["delayed"] for each in found)),
            _number(sum(each["refused"] for each in found)),
        )
        for tenant, found in sorted(by_tenant.items())
    ]  # fmt: skip
    return Section("quotas", ("tenant", "requests/s", "bytes/s", "delayed", "refused"), list(rows))


def _routes(workers: Sequence[Json]) -> Section:
    by_route: dict[tuple[str, str], list[Json]] = defaultdict(list)
    for status in workers:
        for route in status["routes"]:
            by_route[route["tenant"], route["route"]].append(route)
    rows = [
        (
            tenant, name, ", ".join(sorted({each["state"] for each in found})), found[0]["model"],
            _number(sum(each["results"] for each in found)),
            _number(sum(sum(each["errors"].values()) for each in found)),
            _number(sum(each["lag"] or 0 for each in found)),
            next((each["reason"] for each in found if each["reason"]), None),
        )
        for (tenant, name), found in sorted(by_route.items())
    ]  # fmt: skip
    columns = ("tenant", "route", "state", "model", "results", "errors", "lag", "reason")
    return Section("routes", columns, list(rows))


def _rate(status: Json, name: str) -> float:
    throughput = status.get("throughput") or {}
    return float(throughput.get(name, 0.0))


def _latency(status: Json, name: str) -> float | None:
    found = status.get("latency", {}).get("end_to_end")
    value = found["recent"].get(name) if found else None
    return None if value is None else float(value)


def _name(model: Json) -> str:
    return f"{model['model_id']}:{model['version']} of {model['tenant']}"


def _shown(value: float | None) -> str:
    return _number(value) or "-"


def _number(value: float | None) -> str | None:
    """With thousands separators; small ones with a decimal."""
    if value is None:
        return None
    return f"{value:,.1f}" if value != int(value) and abs(value) < 100 else f"{value:,.0f}"
