"""`METRICS`: the table of all Prometheus metrics."""

from __future__ import annotations

from inferd.daemon.telemetry.metric_readers import (
    MetricInfo,
    by_route,
    counted_jobs,
    dangling_aliases,
    ended_rollouts,
    errors,
    feature_drifts,
    labels,
    live_rollouts,
    model_kernels,
    model_states,
    of_budget,
    of_caches,
    of_capture,
    of_jobs,
    of_models,
    of_partitions,
    of_process,
    of_quotas,
    of_routes,
    of_shadows,
    of_streams,
    of_tenants,
    paused,
    phases,
    prediction_drifts,
    route_errors,
    route_states,
    shadow_drops,
    steps,
)
from inferd.daemon.version import inferd_version
from inferd.streams.telemetry import Step

STEPS: dict[Step, str] = {
    "load": "A model version is tried in a disposable process and loaded.",
    "receive": "Requests of a micro-batch pass through Kafka and wait: the longest time since a record's timestamp.",
    "validate": "Headers, deadlines and envelopes of a micro-batch are checked.",
    "preprocess": "Its rows are validated against the features of their models and converted to matrices.",
    "lookup": "Its rows are looked up in the prediction cache, for models that have one.",
    "predict": "The models predict its rows.",
    "postprocess": "Predictions are converted to outputs, cache entries and encoded results.",
    "respond": "Results of a micro-batch and partition are published and acknowledged by the broker.",
    "queue": "A message of a job waits for its owner, or a chunk waits to be scored: time since its timestamp.",
    "chunk": "Messages of jobs are validated and split into chunks.",
    "process": "Chunks are read, validated, predicted and encoded.",
    "store": "Results of chunks are published and acknowledged by the broker.",
    "retrieve": "The result of one chunk is read back for a client.",
}
"""Meaning of each step of `inferd_step_seconds`: steps of requests, then steps of jobs."""

METRICS: tuple[MetricInfo, ...] = (
    of_process(
        "inferd_build_info",
        "Always 1; version and worker are labels.",
        lambda scrape: [((inferd_version(), scrape.board.settings.worker_id), 1)],
        ("version", "worker"),
    ),
    of_process(
        "inferd_uptime_seconds", "Seconds since the process started.", lambda scrape: [((), scrape.board.uptime_s)]
    ),
    of_process(
        "inferd_ready",
        "1 if `/readyz` answers 200, else 0.",
        lambda scrape: [((), int(not scrape.board.unready(scrape.snapshot)))],
    ),
    of_process("inferd_phase", "1 for the current phase of the worker, 0 for the others.", phases, ("phase",)),
    of_process(
        "inferd_phase_seconds",
        "Time in the current phase.",
        lambda scrape: [((), scrape.board.phase(scrape.snapshot)[1])],
    ),
    of_process(
        "inferd_event_loop_lag_seconds",
        "Delay of the event loop's last timer.",
        lambda scrape: [((), scrape.board.event_loop_lag_s)],
    ),
    of_streams("inferd_group_generation", "gauge", "Generation of the consumer group.", lambda s: s.generation),
    of_streams(
        "inferd_rebalances_total", "counter", "Rebalances that this worker took part in.", lambda s: s.rebalances
    ),
    of_tenants(
        "inferd_requests_total", "counter", "Requests taken, from Kafka and over HTTP.", lambda t: t.requests_in
    ),
    of_tenants(
        "inferd_direct_requests_total",
        "counter",
        "Requests taken over HTTP, included in `inferd_requests_total`.",
        lambda t: t.direct,
    ),
    of_tenants(
        "inferd_results_total",
        "counter",
        "Predictions acknowledged by the broker or returned over HTTP.",
        lambda t: t.results,
    ),
    MetricInfo(
        "inferd_errors_total",
        "counter",
        ("tenant", "model", "version", "code"),
        "Error results acknowledged by the broker or returned over HTTP; `model` and `version` are the deployed ones"
        " that the request named, else empty.",
        errors,
    ),
    of_tenants("inferd_dead_letters_total", "counter", "Records copied to dead-letters.", lambda t: t.dead_letters),
    of_tenants("inferd_pending_requests", "gauge", "Requests taken and not yet answered.", lambda t: t.pending),
    of_tenants(
        "inferd_published_bytes_total", "counter", "Bytes of results, dead letters and counts.", lambda t: t.bytes_out
    ),
    of_partitions("inferd_partition_position", "Offset of the next record to take.", lambda p: p.position),
    of_partitions("inferd_partition_committed_offset", "Committed offset.", lambda p: p.committed),
    of_partitions("inferd_partition_end_offset", "Last known end offset.", lambda p: p.end),
    of_partitions(
        "inferd_partition_lag_records",
        "End offset minus committed offset, of requests, jobs and routes.",
        lambda p: None if p.lifecycle else p.lag,
    ),
    of_partitions(
        "inferd_lifecycle_lag_records",
        "End offset minus committed offset, of counts for monitoring, labels and rollouts.",
        lambda p: p.lag if p.lifecycle else None,
    ),
    of_partitions("inferd_partition_queued_records", "Records fetched and not yet scored.", lambda p: p.queued),
    of_partitions(
        "inferd_partition_in_flight_records",
        "Records published and not yet acknowledged.",
        lambda p: p.in_flight,
    ),
    MetricInfo(
        "inferd_model_state",
        "gauge",
        ("tenant", "model", "version", "state"),
        "1 for the current state of the version: fetching, trying, ready, unloaded or failed.",
        model_states,
    ),
    MetricInfo(
        "inferd_model_kernel",
        "gauge",
        ("tenant", "model", "version"),
        "1 if a compiled kernel scores the version, 0 if the library of its format does (`kernel_fault` in `/status`).",
        model_kernels,
    ),
    MetricInfo(
        "inferd_dangling_aliases",
        "gauge",
        ("tenant",),
        "Aliases that point at a version that is not deployed: requests to them fail with `version_not_found`.",
        dangling_aliases,
    ),
    of_quotas(
        "inferd_quota_requests_per_second",
        "gauge",
        "The part of the tenant's quota of requests that this worker may use; 0: unlimited.",
        lambda q: q.requests_per_s * q.share,
    ),
    of_quotas(
        "inferd_quota_bytes_per_second",
        "gauge",
        "The part of the tenant's quota of bytes that this worker may use; 0: unlimited.",
        lambda q: q.bytes_per_s * q.share,
    ),
    of_quotas(
        "inferd_quota_delays_total",
        "counter",
        "How often records were left in their topic for later, because of the tenant's quota.",
        lambda q: q.delayed,
    ),
    of_quotas(
        "inferd_quota_refused_total",
        "counter",
        "Requests over HTTP beyond the tenant's quota.",
        lambda q: q.refused,
    ),
    MetricInfo(
        "inferd_paused",
        "gauge",
        ("tenant", "kind", "name"),
        "1 for each model and route that is paused: its records wait until `inferd resume`.",
        paused,
    ),
    of_streams("inferd_models_loaded", "gauge", "Versions that are loaded.", lambda s: s.model_memory.loaded),
    of_streams(
        "inferd_models_waited_for", "gauge", "Versions that requests wait for.", lambda s: s.model_memory.waiting
    ),
    of_budget(
        "inferd_models_loaded_bytes",
        "Memory that loaded versions take, as measured in their trials; absent without `INFERD_MODELS_BYTES_MAX`.",
        lambda memory: memory.bytes,
    ),
    of_budget(
        "inferd_models_bytes_max",
        "`INFERD_MODELS_BYTES_MAX`; absent if it is 0.",
        lambda memory: memory.bytes_max,
    ),
    of_streams("inferd_model_loads_total", "counter", "Versions loaded.", lambda s: s.model_memory.loads),
    of_streams(
        "inferd_model_unloads_total", "counter", "Versions unloaded for others.", lambda s: s.model_memory.unloads
    ),
    of_streams(
        "inferd_model_load_failures_total",
        "counter",
        "Loads for requests that failed or took longer than `INFERD_MODEL_LOAD_TIMEOUT_S`.",
        lambda s: s.model_memory.load_failures,
    ),
    of_streams(
        "inferd_model_wait_seconds",
        "histogram",
        "From the first request that needs an unloaded version until it is loaded, or fails to be.",
        lambda s: s.model_wait,
    ),
    of_models("inferd_model_requests_total", "Requests answered by the version.", lambda m: m.requests),
    of_models("inferd_model_rows_total", "Rows scored by the version.", lambda m: m.rows),
    of_models("inferd_model_predict_seconds_total", "Time spent predicting with the version.", lambda m: m.predict_s),
    of_shadows("inferd_shadow_requests_total", "Requests that a shadow version scored.", lambda s: s.requests),
    of_shadows(
        "inferd_shadow_compared_rows_total",
        "Rows whose predictions of the shadow version and of the version that answered were compared.",
        lambda s: s.compared,
    ),
    of_shadows(
        "inferd_shadow_differing_rows_total",
        "Rows for which these predictions disagree ([lifecycle.md](lifecycle.md#disagreement)).",
        lambda s: s.differing,
    ),
    of_shadows(
        "inferd_shadow_predict_seconds_total", "Time spent predicting with shadow versions.", lambda s: s.predict_s
    ),
    MetricInfo(
        "inferd_shadow_dropped_total",
        "counter",
        ("tenant", "model", "version", "reason"),
        "Requests without a result of the shadow version, by reason ([lifecycle.md](lifecycle.md#shadow-versions)).",
        shadow_drops,
    ),
    MetricInfo(
        "inferd_feature_drift_psi",
        "gauge",
        ("tenant", "model", "version", "feature"),
        "PSI of a feature in the last hour, from the baseline of the version ([monitoring.md](monitoring.md#drift)):"
        " the 20 features that drifted most. Only the worker that owns the windows of the tenant has it.",
        feature_drifts,
    ),
    MetricInfo(
        "inferd_prediction_drift_psi",
        "gauge",
        ("tenant", "model", "version"),
        "PSI of the predictions in the last hour, from the baseline of the version; as `inferd_feature_drift_psi`.",
        prediction_drifts,
    ),
    MetricInfo(
        "inferd_rollouts",
        "gauge",
        ("tenant", "phase"),
        "Rollouts that this worker owns and that may still change an alias.",
        live_rollouts,
    ),
    MetricInfo(
        "inferd_rollouts_ended_total",
        "counter",
        ("tenant", "phase"),
        "Rollouts that have ended ([lifecycle.md](lifecycle.md#phases)).",
        ended_rollouts,
    ),
    MetricInfo(
        "inferd_http_requests_total",
        "counter",
        ("method", "route", "status"),
        "HTTP requests by status of the response; 499: the client disconnected before its request was complete.",
        lambda scrape: [] if scrape.board.traffic is None else sorted(scrape.board.traffic.responses.items()),
    ),
    MetricInfo(
        "inferd_http_request_seconds",
        "histogram",
        ("route",),
        "From the headers of an HTTP request to its response.",
        lambda scrape: [] if scrape.board.traffic is None else by_route(scrape.board.traffic),
    ),
    of_streams("inferd_batches_total", "counter", "Micro-batches scored.", lambda s: s.batches),
    of_streams("inferd_batch_rows_last", "gauge", "Requests of the last micro-batch.", lambda s: s.batch_rows_last),
    of_streams(
        "inferd_queue_seconds",
        "histogram",
        "From a record's timestamp to the start of its scoring; at most an hour.",
        lambda s: s.queue,
    ),
    of_streams("inferd_infer_seconds", "histogram", "Time to score a micro-batch.", lambda s: s.infer),
    of_streams(
        "inferd_end_to_end_seconds",
        "histogram",
        "From a record's timestamp to the broker's acknowledgement of its result; at most an hour.",
        lambda s: s.end_to_end,
    ),
    of_streams(
        "inferd_direct_seconds",
        "histogram",
        "From a prediction request over HTTP to the lane's result.",
        lambda s: s.direct,
    ),
    MetricInfo(
        "inferd_step_seconds",
        "histogram",
        ("step",),
        "Duration of each step, once per micro-batch, model version, message or chunk; steps are listed below.",
        steps,
    ),
    of_caches("inferd_cache_hits_total", "counter", "Rows found in the prediction cache.", lambda c: c.hits),
    of_caches("inferd_cache_misses_total", "counter", "Rows looked up and not found.", lambda c: c.misses),
    of_caches("inferd_cache_fills_total", "counter", "Entries added from new predictions.", lambda c: c.fills),
    of_caches("inferd_cache_evictions_total", "counter", "Entries evicted for newer ones.", lambda c: c.evictions),
    of_caches("inferd_cache_expirations_total", "counter", "Entries expired.", lambda c: c.expirations),
    of_caches("inferd_cache_entries", "gauge", "Entries in partitions owned by this worker.", lambda c: c.entries),
    of_caches("inferd_cache_bytes", "gauge", "Size of keys and values of these entries.", lambda c: c.n_bytes),
    of_caches("inferd_cache_lookup_seconds_total", "counter", "Time spent on lookups.", lambda c: c.lookup_s),
    of_caches("inferd_cache_fill_seconds_total", "counter", "Time spent on adding entries.", lambda c: c.fill_s),
    of_caches(
        "inferd_cache_saved_seconds",
        "gauge",
        "Time that the model would have needed for the hits, at its mean cost per row, minus the time of lookups and"
        " fills. Negative: the cache costs more than it saves. Absent until 1,000 rows were looked up and 1,000 were"
        " predicted.",
        lambda c: c.saved_s,
    ),
    MetricInfo(
        "inferd_labels_total",
        "counter",
        ("tenant", "outcome"),
        "Labels: joined with a prediction, unmatched, repeated, or invalid for their prediction.",
        labels,
    ),
    of_capture("inferd_captured_total", "Requests captured in `<tenant>.capture`.", lambda c: c.captured),
    of_capture(
        "inferd_capture_refused_total",
        "Requests not captured, because their records are too large for `<tenant>.capture`.",
        lambda c: c.refused,
    ),
    of_jobs("inferd_jobs_open", "gauge", "Open jobs owned by this worker.", lambda j: j.open),
    of_jobs("inferd_jobs_open_rows", "gauge", "Rows of these open jobs.", lambda j: j.open_rows),
    of_jobs("inferd_job_rows_total", "counter", "Rows received for jobs owned by this worker.", lambda j: j.rows_in),
    of_jobs(
        "inferd_job_rows_succeeded_total",
        "counter",
        "Rows of jobs owned by this worker that succeeded.",
        lambda j: j.rows_succeeded,
    ),
    of_jobs(
        "inferd_job_rows_failed_total",
        "counter",
        "Rows of jobs owned by this worker that failed; rows that fail again in a retry are counted again.",
        lambda j: j.rows_failed,
    ),
    counted_jobs(
        "inferd_jobs_ended_total", "status", "Jobs owned by this worker that ended, by status.", lambda j: j.ended
    ),
    counted_jobs(
        "inferd_job_messages_refused_total",
        "code",
        "Job messages rejected; each is copied to dead-letters.",
        lambda j: j.refused,
    ),
    of_jobs(
        "inferd_job_chunks_total", "counter", "Chunks scored by this worker, of jobs of any worker.", lambda j: j.chunks
    ),
    of_jobs("inferd_job_chunk_rows_total", "counter", "Rows scored in these chunks.", lambda j: j.chunk_rows),
    of_jobs("inferd_job_chunk_seconds_total", "counter", "Time spent scoring these chunks.", lambda j: j.chunk_s),
    MetricInfo(
        "inferd_route_state",
        "gauge",
        ("tenant", "route", "state"),
        "1 for the current state of the route: running, waiting or refused; `/status` has the reason.",
        route_states,
    ),
    of_routes("inferd_route_records_total", "counter", "Records of routes taken.", lambda r: r.records_in),
    of_routes("inferd_route_results_total", "counter", "Records written with a prediction.", lambda r: r.results),
    MetricInfo(
        "inferd_route_errors_total",
        "counter",
        ("tenant", "route", "code"),
        "Records of routes without a prediction.",
        route_errors,
    ),
    of_routes(
        "inferd_route_dead_letters_total",
        "counter",
        "Records of routes copied to dead-letters.",
        lambda r: r.dead_letters,
    ),
    of_routes("inferd_route_tombstones_total", "counter", "Records of routes without a value.", lambda r: r.tombstones),
    of_routes(
        "inferd_route_lag_records", "gauge", "Records of owned partitions that are not committed.", lambda r: r.lag
    ),
    of_streams(
        "inferd_route_queue_seconds",
        "histogram",
        "From the timestamp of a route's record to the start of its scoring; at most an hour.",
        lambda s: s.route_queue,
    ),
    of_streams(
        "inferd_route_end_to_end_seconds",
        "histogram",
        "From the timestamp of a route's record to the broker's acknowledgement of its output; at most an hour.",
        lambda s: s.route_end_to_end,
    ),
    of_streams(
        "inferd_restore_behind_records",
        "gauge",
        "Changelog records still to be read before partitions open; 0 if no table is being restored.",
        lambda s: s.restoring or 0,
    ),
    of_streams(
        "inferd_restored_records_total",
        "counter",
        "Changelog records read during restores.",
        lambda s: s.restored_records,
    ),
    of_streams("inferd_queued_bytes", "gauge", "Size of records fetched and not yet scored.", lambda s: s.queued_bytes),
    of_streams(
        "inferd_in_flight_bytes",
        "gauge",
        "Size of results published and not yet acknowledged.",
        lambda s: s.in_flight_bytes,
    ),
    of_streams("inferd_commits_total", "counter", "Successful offset commits.", lambda s: s.commits),
    of_streams("inferd_commit_failures_total", "counter", "Failed offset commits.", lambda s: s.commit_failures),
    of_streams(
        "inferd_records_missing_total",
        "counter",
        "Requests deleted by retention before they were read.",
        lambda s: s.records_missing,
    ),
)
