// The cluster at a glance: what is wrong, how much flows where, and what runs.

import {ask, name} from "/page/api.js";
import {dropZone} from "/page/actions.js";
import {bar, spark} from "/page/charts.js";
import {sum} from "/page/cluster.js";
import {badge, card, empty, h, link, table} from "/page/dom.js";
import {flow} from "/page/flow.js";
import {bytes, compact, decimal, ms, percent, span, whole} from "/page/format.js";
import {JOB_ENDED, firstSteps, jobState, modelState, problems, progress, reach, rolloutCard, ROLLOUT_ENDED, timeChart} from "/page/parts.js";

export const title = () => "Overview";
export const every = 5000;

export async function load(_url, context) {
  const open = sum(context.cluster.jobs, each => each.open), live = context.cluster.rollouts.length;
  const [running, queued, rollouts] = await Promise.all([
    open ? ask("/jobs?limit=20&status=running").catch(() => null) : null, open ? ask("/jobs?limit=20&status=queued").catch(() => null) : null,
    live ? ask("/rollouts").catch(() => null) : null]);
  return {jobs: [...running?.jobs ?? [], ...queued?.jobs ?? []], rollouts: Object.entries(rollouts?.rollouts ?? {}).filter(([, each]) => each.rollout && !ROLLOUT_ENDED.has(each.rollout.phase))};
}

export function render(_url, context, {jobs, rollouts}) {
  const {cluster} = context;
  return [problems(context.problems), tiles(context), cluster.models.length === 0 ? start(context) : null,
    h("div", {class: "grid2"},
      card([h("span", {}, "Requests and errors per second"), reach(context)], timeChart(context, "Requests and errors per second over time", [["requests/s", each => each.requests, "c0"], ["errors/s", each => each.errors, "bad"]])),
      card(["Latency", h("span", {class: "faint"}, "of the slowest worker")], timeChart(context, "Latency over time", [["p50", each => each.p50, "c2"], ["p99", each => each.p99, "c3"]], ms)),
      card("Lag in records", timeChart(context, "Lag over time", [["lag", each => each.lag, "c4"]], compact)),
      card("Rows per second", timeChart(context, "Rows per second over time", [["rows/s", each => each.rows, "c5"]], compact))),
    card("Flow", flow(context)), quotas(cluster),
    rollouts.map(([modelId, status]) => rolloutCard(context, modelId, status)),
    jobs.length > 0 && card(["Running jobs", link("#/jobs", "all jobs")], table([["job"], ["model"], ["status"], ["progress"]],
      jobs.map(job => [link(`#/jobs/${name(job.job_id)}`, job.job_id), `${job.model_id}:${job.version ?? "?"}`, jobState(job), progress(job)]), "")),
    h("div", {class: "grid2"}, cluster.models.length > 0 && busiest(context), workers(context))];
}

function tiles(context) {
  const {now, lag, workers} = context.whole, recent = context.series.slice(-60), values = of => recent.map(of);
  const share = now.requests ? now.errors / now.requests : 0, ready = workers.filter(each => each.status?.ready).length;
  const last = context.series.at(-1), tile = (title, value, line, level) => h("div", {class: `tile ${level ?? ""}`}, h("span", {class: "faint"}, title), h("b", {}, value), line);
  return h("div", {class: "tiles"},
    tile("Requests/s", decimal(now.requests), spark(values(each => each.requests))), tile("Rows/s", compact(now.rows), spark(values(each => each.rows), "c5")),
    tile(`Errors/s${share ? ` · ${percent(share)}` : ""}`, decimal(now.errors), spark(values(each => each.errors), "bad"), share >= .05 ? "bad" : share >= .01 ? "warn" : ""),
    tile("Lag", compact(lag), spark(values(each => each.lag), "c4")), tile("p50 latency", ms(now.p50 ?? last?.p50), spark(values(each => each.p50), "c2")),
    tile("p99 latency", ms(now.p99 ?? last?.p99), spark(values(each => each.p99), "c3")),
    tile("Workers ready", `${ready} of ${workers.length}`, null, ready < workers.length ? "bad" : ""), tile("Memory", bytes(last?.memory), spark(values(each => each.memory), "c7")));
}

const start = context => card("Nothing is deployed yet", empty("Deploy a first model", dropZone(context), firstSteps()));

function busiest(context) {
  const {cluster, speeds} = context, of = each => speeds.of(`model ${each.tenant} ${each.model_id}:${each.version}`);
  const models = [...cluster.models].sort((a, b) => (b.state === "failed") - (a.state === "failed") || (of(b) ?? 0) - (of(a) ?? 0) || b.requests - a.requests).slice(0, 8);
  return card(["Busiest models", link("#/models", cluster.models.length === 1 ? "its version" : `all ${whole(cluster.models.length)} versions`)], table([["version", "wrap"], ["state"], ["aliases", "wrap"], ["requests/s", "number"], ["requests", "number"]],
    models.map(each => [link(`#/models/${name(each.model_id)}`, `${each.model_id}:${each.version}`), modelState(each), each.aliases.join(", ") || "–", decimal(of(each)), compact(each.requests)]), "none"));
}

function quotas(cluster) {
  const used = (quota, name, show) => quota[name] > 0 ? bar(quota[`used_${name}`] / quota[name], `${show(quota[`used_${name}`])} of ${show(quota[name])}`, quota[`used_${name}`] >= .95 * quota[name] ? "warn" : "c0") : "unlimited";
  return cluster.quotas.length > 0 && card(["Quotas", h("span", {class: "faint"}, "of all workers together")], table([["tenant"], ["requests/s"], ["bytes/s"], ["delayed", "number"], ["refused", "number"]],
    cluster.quotas.map(each => [each.tenant, used(each, "requests_per_s", decimal), used(each, "bytes_per_s", bytes), whole(each.delayed), whole(each.refused)]), ""));
}

function workers(context) {
  return card(["Workers", link("#/workers", "details")], table([["worker"], ["state"], ["requests/s", "number"], ["lag", "number"], ["memory", "number"], ["up", "number"]],
    context.whole.workers.map(({url, status, error}) => status ? [status.worker, status.ready ? badge("good", "ready") : badge("bad", "not ready", status.unready.join("; ")), decimal(status.throughput?.requests_per_s),
      compact(status.lag), bytes(status.memory.resident_bytes), span(status.uptime_s)] : [url, badge("bad", "no answer", error), "–", "–", "–", "–"]), "none"));
}
