"""Metrics: collected from the snapshot at each scrape, with documented names and bounded labels."""

from __future__ import annotations

from typing import get_args

import msgspec
from prometheus_client.parser import text_string_to_metric_families

from inferd.daemon.http.core.traffic import Traffic
from inferd.daemon.settings.settings import Settings
from inferd.daemon.telemetry.exposition import Metrics
from inferd.daemon.telemetry.metric_readers import PHASES
from inferd.daemon.telemetry.metrics import METRICS, STEPS
from inferd.daemon.telemetry.status import StatusBoard
from inferd.streams.telemetry.snapshot import (
    DanglingAlias,
    ModelErrors,
    ModelMemorySnapshot,
    PauseSnapshot,
    QuotaSnapshot,
    Step,
    StreamsSnapshot,
)
from tests.unit.daemon.fake_streams import FakeStreams, cache, histogram, jobs, model, partition, snapshot, tenant

Samples = dict[tuple[str, tuple[tuple[str, str], ...]], float]
LABELS_OF_OURS = {
    "feature",
    "kind",
    "name",
    "outcome",
    "reason",
    "step",
    "tenant",
    "code",
    "topic",
    "partition",
    "model",
    "version",
    "state",
    "phase",
    "worker",
    "method",
    "route",
    "status",
}


def scrape(said: StreamsSnapshot | None) -> Samples:
    settings = Settings.from_environment({"INFERD_WORKER_ID": "w1"})
    board = StatusBoard(settings)
    if said is not None:
        streams = FakeStreams(settings.streams(), lambda _reason, _code: None)
        streams.said = said
        board.attach(streams)
        board.enter("running", "")
    board.traffic = traffic = Traffic()
    traffic.count("GET", "/livez", 200, 0.001)
    body, content_type = Metrics(board).exposition("")
    assert content_type.startswith("text/plain")
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(body.decode())
        for sample in family.samples
    }


def test_drift_of_a_version_has_a_gauge_for_each_feature() -> None:
    samples = scrape(snapshot())
    labels = {"tenant": "default", "model": "churn", "version": "4"}
    assert value(samples, "inferd_feature_drift_psi", feature="age", **labels) == 0.25
    assert value(samples, "inferd_prediction_drift_psi", **labels) == 0.125


def test_shadow_versions_are_counted_with_the_reasons_of_drops() -> None:
    samples, labels = scrape(snapshot()), {"tenant": "default", "model": "churn", "version": "4"}
    assert value(samples, "inferd_shadow_requests_total", **labels) == 90
    assert value(samples, "inferd_shadow_compared_rows_total", **labels) == 80
    assert value(samples, "inferd_shadow_differing_rows_total", **labels) == 8
    assert value(samples, "inferd_shadow_predict_seconds_total", **labels) == 0.25
    assert value(samples, "inferd_shadow_dropped_total", reason="busy", **labels) == 2
    assert value(samples, "inferd_shadow_dropped_total", reason="error", **labels) == 5


def value(samples: Samples, name: str, **labels: str) -> float:
    return samples[name, tuple(sorted(labels.items()))]


def test_counters_of_tenants_and_codes() -> None:
    said = snapshot(tenants=(tenant(), tenant("acme", requests_in=7, errors={"internal": 2})))
    samples = scrape(said)
    assert value(samples, "inferd_requests_total", tenant="acme") == 7
    assert value(samples, "inferd_results_total", tenant="default") == 40
    nameless = {"model": "", "version": ""}
    assert value(samples, "inferd_errors_total", tenant="default", code="malformed", **nameless) == 3
    assert value(samples, "inferd_errors_total", tenant="acme", code="internal", **nameless) == 2
    assert value(samples, "inferd_pending_requests", tenant="default") == 6


def test_errors_are_counted_by_deployed_version() -> None:
    of_models = (ModelErrors("churn", 2, "invalid_value", 5), ModelErrors("churn", 3, "invalid_value", 1))
    errors = {"invalid_value": 8, "model_not_found": 4}
    samples = scrape(snapshot(tenants=(tenant("acme", errors=errors, model_errors=of_models),)))
    found = {labels: count for (name, labels), count in samples.items() if name == "inferd_errors_total"}
    counts = {(dict(labels)["model"], dict(labels)["version"], dict(labels)["code"]): n for labels, n in found.items()}
    assert counts == {
        ("churn", "2", "invalid_value"): 5,
        ("churn", "3", "invalid_value"): 1,
        ("", "", "invalid_value"): 2,
        ("", "", "model_not_found"): 4,
    }


def test_unknown_values_of_partitions_are_omitted() -> None:
    samples = scrape(snapshot(partitions=(partition(), partition(number=1, end=None, lag=None))))
    place = {"topic": "inferd.default.requests"}
    assert value(samples, "inferd_partition_lag_records", partition="0", **place) == 20
    assert ("inferd_partition_lag_records", (("partition", "1"), ("topic", place["topic"]))) not in samples
    assert value(samples, "inferd_partition_position", partition="1", **place) == 110


def test_the_lag_of_our_own_topics_is_a_metric_of_its_own() -> None:
    place = {"topic": "inferd.default.model-stats", "partition": "0"}
    samples = scrape(snapshot(partitions=(partition(place["topic"], lifecycle=True),)))
    assert value(samples, "inferd_lifecycle_lag_records", **place) == 20
    assert "inferd_partition_lag_records" not in {name for name, _ in samples}


def test_models() -> None:
    samples = scrape(snapshot(models=(model(), model("flights", 2, state="failed"))))
    churn = {"tenant": "default", "model": "churn", "version": "1"}
    assert value(samples, "inferd_model_rows_total", **churn) == 50
    assert value(samples, "inferd_model_predict_seconds_total", **churn) == 0.5
    assert value(samples, "inferd_model_state", state="ready", **churn) == 1
    assert value(samples, "inferd_model_state", tenant="default", model="flights", version="2", state="failed") == 1


def test_the_memory_of_models() -> None:
    memory = ModelMemorySnapshot(loaded=2, bytes=80, bytes_max=100, loads=9, unloads=7, load_failures=1, waiting=3)
    samples = scrape(snapshot(model_memory=memory))
    counted = {"models_loaded": 2, "models_loaded_bytes": 80, "models_bytes_max": 100, "models_waited_for": 3}
    counted |= {"model_loads_total": 9, "model_unloads_total": 7, "model_load_failures_total": 1}
    assert {name: value(samples, f"inferd_{name}") for name in counted} == counted
    unbounded = {name for name, _ in scrape(snapshot())}
    assert "inferd_models_loaded" in unbounded
    assert not {"inferd_models_loaded_bytes", "inferd_models_bytes_max"} & unbounded


def test_dangling_aliases_are_counted_by_tenant() -> None:
    nowhere = DanglingAlias("default", "churn", "champion", (2,))
    samples = scrape(snapshot(dangling_aliases=(nowhere, msgspec.structs.replace(nowhere, alias="next"))))
    assert value(samples, "inferd_dangling_aliases", tenant="default") == 2
    assert value(scrape(snapshot()), "inferd_dangling_aliases", tenant="default") == 0


def test_the_cache_of_a_model() -> None:
    samples = scrape(snapshot(cache=(cache(), cache("flights", 2, saved_s=None, hits=0))))
    churn = {"tenant": "default", "model": "churn", "version": "1"}
    counted = {"hits": 300, "misses": 100, "fills": 90, "evictions": 8, "expirations": 7}
    assert {name: value(samples, f"inferd_cache_{name}_total", **churn) for name in counted} == counted
    assert value(samples, "inferd_cache_entries", **churn) == 75
    assert value(samples, "inferd_cache_bytes", **churn) == 7_500
    assert value(samples, "inferd_cache_lookup_seconds_total", **churn) == 0.25
    assert value(samples, "inferd_cache_saved_seconds", **churn) == 1.5
    saved = [dict(labels)["model"] for name, labels in samples if name == "inferd_cache_saved_seconds"]
    assert saved == ["churn"], "unknown values are omitted"


def test_jobs_of_tenants() -> None:
    samples = scrape(snapshot(jobs=(jobs(), jobs("acme", open=0))))
    assert value(samples, "inferd_jobs_open", tenant="default") == 2
    assert value(samples, "inferd_jobs_open", tenant="acme") == 0
    assert value(samples, "inferd_job_rows_total", tenant="default") == 5_000
    assert value(samples, "inferd_job_rows_failed_total", tenant="default") == 100
    assert value(samples, "inferd_jobs_ended_total", tenant="default", status="completed") == 3
    assert value(samples, "inferd_job_messages_refused_total", tenant="default", code="job_closed") == 4
    assert value(samples, "inferd_job_chunk_rows_total", tenant="default") == 6_144


def test_a_restore_and_its_end() -> None:
    assert value(scrape(snapshot(restoring=70, restored_records=30)), "inferd_restore_behind_records") == 70
    samples = scrape(snapshot(restored_records=100))
    assert value(samples, "inferd_restore_behind_records") == 0
    assert value(samples, "inferd_restored_records_total") == 100


def test_steps_are_one_histogram_with_a_label() -> None:
    steps = {"predict": histogram(0, 2, 0, 0, total_s=0.5), "store": histogram(1, 0, 0, 0)}
    samples = scrape(snapshot(steps=steps))
    assert value(samples, "inferd_step_seconds_sum", step="predict") == 0.5
    assert value(samples, "inferd_step_seconds_bucket", step="predict", le="0.01") == 2
    assert value(samples, "inferd_step_seconds_count", step="store") == 1


def test_every_step_is_explained() -> None:
    assert tuple(STEPS) == get_args(Step)


def test_histograms_are_cumulative_and_end_in_infinity() -> None:
    samples = scrape(snapshot(queue=histogram(1, 2, 3, 4, total_s=2.5)))
    buckets = [value(samples, "inferd_queue_seconds_bucket", le=le) for le in ("0.001", "0.01", "0.1", "+Inf")]
    assert buckets == [1, 3, 6, 10]
    assert value(samples, "inferd_queue_seconds_count") == 10
    assert value(samples, "inferd_queue_seconds_sum") == 2.5


def test_exactly_one_phase_is_set() -> None:
    samples = scrape(snapshot(phase="rebalancing", unready=("rebalancing",)))
    assert {name: value(samples, "inferd_phase", phase=name) for name in PHASES if name == "rebalancing"} == {
        "rebalancing": 1
    }
    assert sum(value(samples, "inferd_phase", phase=name) for name in PHASES) == 1
    assert value(samples, "inferd_ready") == 0


def test_before_the_streams_there_are_only_process_metrics() -> None:
    samples = scrape(None)
    assert value(samples, "inferd_ready") == 0
    assert value(samples, "inferd_build_info", version=version_label(samples), worker="w1") == 1
    assert not any(name == "inferd_batches_total" for name, _ in samples)
    assert any(name == "process_resident_memory_bytes" for name, _ in samples)


def version_label(samples: Samples) -> str:
    return next(dict(labels)["version"] for name, labels in samples if name == "inferd_build_info")


def test_every_sample_is_a_documented_metric_with_its_labels() -> None:
    documented = {info.name: set(info.labels) for info in METRICS}
    memory = ModelMemorySnapshot(bytes=80, bytes_max=100)
    found = set()
    partitions = partition(), partition("inferd.default.model-stats", lifecycle=True)
    paused = (PauseSnapshot("default", "model", "churn", 1, "ana"),)
    quotas = (QuotaSnapshot("default", 10, 0, 0.5, 1, 100, 2, 3),)
    given = snapshot(
        queue=histogram(1, 0, 0, 0), model_memory=memory, partitions=partitions, pauses=paused, quotas=quotas
    )
    for name, labels in scrape(given):
        if name.startswith("inferd_"):
            base = name
            for suffix in ("_bucket", "_count", "_sum"):
                base = base if base in documented else base.removesuffix(suffix)
            assert {label for label, _ in labels} - {"le"} == documented[base]
            assert {label for label, _ in labels} - {"le"} <= LABELS_OF_OURS
            found.add(base)
    assert found == set(documented)


def test_openmetrics_on_request() -> None:
    settings = Settings.from_environment({})
    body, content_type = Metrics(StatusBoard(settings)).exposition("application/openmetrics-text; version=1.0.0")
    assert content_type.startswith("application/openmetrics-text")
    assert body.endswith(b"# EOF\n")


def test_names_from_outside_are_escaped() -> None:
    samples = scrape(snapshot(models=(model('x"\n}'),)))
    assert value(samples, "inferd_model_rows_total", tenant="default", model='x"\n}', version="1") == 50
