// Workers: what each of them holds and does.

import {spark} from "/page/charts.js";
import {badge, card, h, link, table} from "/page/dom.js";
import {ago, bytes, compact, decimal, ms, plural, span, whole} from "/page/format.js";

const NAMES = {queue: "waiting to be scored", infer: "scoring a micro-batch", end_to_end: "end to end, over Kafka", direct: "over HTTP", model_wait: "waiting for a model to be loaded"};
export const title = () => "Workers";

export function render(_url, context) {
  return [h("h1", {}, "Workers", h("span", {class: "faint"}, plural(context.whole.workers.length, "worker"))), context.whole.workers.map(each => worker(context, each))];
}

function worker(context, {url, status, error}) {
  if (!status) return card([url, badge("bad", "no answer")], h("p", {class: "problem"}, error));
  const samples = context.histories?.get(url) ?? [], recent = samples.slice(-120), memory = status.model_memory;
  const fact = (title, value) => value == null ? null : [h("dt", {}, title), h("dd", {}, value)];
  return h("section", {class: "card", "data-key": status.worker}, h("h2", {}, status.worker, status.ready ? badge("good", "ready") : badge("bad", "not ready"), h("span", {class: "faint"}, `${status.phase} for ${span(status.phase_for_s)}`), url && link(`${url}/`, url)),
    status.unready.map(reason => h("p", {class: "problem"}, reason)), status.last_error && !status.unready.includes(status.last_error) && h("p", {class: "problem"}, status.last_error),
    status.waiting.map(each => h("p", {class: "problem"}, `tenant ${each.tenant} waits: ${each.reason}`)),
    h("div", {class: "grid3"},
      h("div", {}, h("p", {}, `${decimal(status.throughput?.requests_per_s)} requests/s`), spark(recent.map(each => each.requests_per_s)), h("p", {}, `p99 ${ms(status.latency.end_to_end?.recent?.p99_ms ?? status.latency.direct?.recent?.p99_ms)}`),
        spark(recent.map(each => each.p99_ms ?? each.http_p99_ms), "c3"), h("p", {}, `memory ${bytes(status.memory.resident_bytes)}, peak ${bytes(status.memory.peak_bytes)}`), spark(recent.map(each => each.resident_bytes), "c7")),
      h("dl", {class: "facts"}, fact("version", status.version), fact("started", `${ago(status.started_at)}`), fact("group", `${status.group_id}, generation ${status.generation ?? "–"}`), fact("rebalances", whole(status.rebalances)), fact("guarantee", status.processing_guarantee.replaceAll("_", " ")),
        fact("broker", status.broker), fact("namespace", status.namespace)),
      h("dl", {class: "facts"}, fact("partitions", whole(status.partitions.length)), fact("lag", compact(status.lag)), fact("buffers", `${bytes(status.queued_bytes)} queued, ${bytes(status.in_flight_bytes)} in flight`), fact("micro-batches", `${compact(status.batches)}, the last with ${whole(status.batch_rows_last)} requests`),
        fact("commits", `${compact(status.commits)}, ${whole(status.commit_failures)} failed`), fact("models", `${whole(memory.loaded)} loaded${memory.bytes_max ? `, ${bytes(memory.bytes)} of ${bytes(memory.bytes_max)}` : ""}${memory.waiting ? `, ${whole(memory.waiting)} waited for` : ""}`),
        fact("event loop lag", ms(status.event_loop_lag_s * 1000)), fact("to restore", status.restoring == null ? null : `${whole(status.restoring)} records`))),
    h("details", {}, h("summary", {}, "Latency and steps"), times(status.latency, NAMES), times(status.steps, {})),
    status.cache.length > 0 && h("details", {}, h("summary", {}, "Prediction cache"), table([["version"], ["hit ratio", "number"], ["hits", "number"], ["misses", "number"], ["entries", "number"], ["size", "number"], ["saved", "number"]],
      status.cache.map(each => [`${each.model_id}:${each.version}`, each.hit_ratio == null ? "–" : `${decimal(each.hit_ratio * 100)} %`, compact(each.hits), compact(each.misses), compact(each.entries), bytes(each.n_bytes), each.saved_s == null ? "–" : span(each.saved_s)]), "")));
}

const times = (all, names) => table([["what"], ["last 10 s", "number"], ["p50", "number"], ["p99", "number"], ["since start", "number"], ["p50", "number"], ["p99", "number"]],
  Object.entries(all).map(([key, {recent, since_start: whole_}]) => [names[key] ?? key, compact(recent.count), ms(recent.p50_ms), ms(recent.p99_ms), compact(whole_.count), ms(whole_.p50_ms), ms(whole_.p99_ms)]), "nothing observed yet");
