// Parts that several views show.

import {bar, lines} from "/page/charts.js";
import {pauseOf, sum} from "/page/cluster.js";
import {badge, card, h, link} from "/page/dom.js";
import {compact, counts, decimal, digest, moment, percent, span, targetText, whole} from "/page/format.js";
import {button, steer} from "/page/actions.js";

const MODEL_LEVELS = {ready: "good", failed: "bad", fetching: "warn", trying: "warn", unloaded: ""};
const JOB_LEVELS = {completed: "good", running: "run", queued: "", completed_with_errors: "warn", failed: "bad", cancelled: "", incomplete: "bad", expired: ""};
const ROLLOUT_LEVELS = {running: "run", paused: "warn", rolled_back: "bad", promoted: "good", aborted: "", superseded: "warn"};

// The state of a version on all workers: `ready`, or `ready 2, failed 1`.
export function modelState(model) {
  const states = Object.entries(model.states ?? {}), text = states.length > 1 ? states.map(([state, n]) => `${state} ${n}`).join(", ") : model.state;
  return badge(MODEL_LEVELS[model.state] ?? "", text ?? "unknown", model.reason);
}
export const jobState = job => badge(JOB_LEVELS[job.status] ?? "", job.status.replaceAll("_", " "));
export const rolloutState = rollout => badge(ROLLOUT_LEVELS[rollout.phase] ?? "", rollout.phase.replaceAll("_", " "));

export const problems = list => list.length ? h("ul", {class: "problems", "aria-label": "Problems"}, list.slice(0, 12).map(each =>
  h("li", {class: each.level}, link(each.href, each.text))), list.length > 12 && h("li", {class: "warn"}, `and ${list.length - 12} more`)) : null;

// Whether a model or a route is paused.
export const paused = (cluster, kind, name) => { const pause = pauseOf(cluster, kind, name); return pause ? badge("warn", "paused", `since ${moment(pause.at)} by ${pause.by}${pause.reason ? `: ${pause.reason}` : ""}`) : null; };

// How long charts reach back.
export const reach = context => h("span", {class: "toggle", role: "group", "aria-label": "Time shown"}, [5, 15, 30, 60].map(minutes =>
  h("button", {type: "button", "aria-pressed": String(context.minutes === minutes), onclick: () => context.choose(minutes)}, minutes === 60 ? "1 h" : `${minutes} min`)));

// A chart of the cluster's samples: `of` is [[name, sample => value, class]].
export function timeChart(context, label, of, show = decimal) {
  const to = Date.now(), from = to - context.minutes * 60_000, samples = thinned(context.series.filter(each => each.at >= from));
  return lines({label, from, to, show, area: true, series: of.map(([name, value, kind]) => ({name, kind, points: samples.map(each => [each.at, value(each)])}))});
}

// At most about 240 points, each the mean of its neighbours, so that an hour is readable.
function thinned(samples) {
  const size = Math.ceil(samples.length / 240);
  if (size <= 1) return samples;
  const found = [];
  for (let i = 0; i < samples.length; i += size) {
    const part = samples.slice(i, i + size), mean = key => { const known = part.map(each => each[key]).filter(each => each != null); return known.length ? sum(known, each => each) / known.length : null; };
    const peak = key => { const known = part.map(each => each[key]).filter(each => each != null); return known.length ? Math.max(...known) : null; };
    found.push({at: part[0].at, requests: mean("requests"), rows: mean("rows"), errors: mean("errors"), lag: peak("lag"), p50: mean("p50"), p99: peak("p99"), memory: mean("memory")});
  }
  return found;
}

export function progress(job) {
  const share = job.input_count ? job.processed / job.input_count : 0, left = timeLeft(job);
  return bar(share, `${compact(job.processed)} of ${compact(job.input_count)}${left ? `, ${left} left` : ""}`, job.status === "completed" ? "good" : job.failed ? "warn" : "c0");
}

// Rows per second of a job since its start.
export function jobSpeed(job, now = Date.now()) {
  const seconds = job.started_at ? ((job.finished_at ?? now) - job.started_at) / 1000 : 0;
  return seconds > 0 ? job.processed / seconds : null;
}

function timeLeft(job) {
  const speed = jobSpeed(job);
  return job.status === "running" && speed && job.input_count > job.processed ? span((job.input_count - job.processed) / speed) : null;
}

export const JOB_ENDED = new Set(["completed", "completed_with_errors", "failed", "cancelled", "incomplete", "expired"]);
export const ROLLOUT_ENDED = new Set(["rolled_back", "promoted", "aborted", "superseded"]);

// A rollout: its steps, its guards with what was measured, its events, and what can be done.
export function rolloutCard(context, modelId, status) {
  const rollout = status.rollout, ended = ROLLOUT_ENDED.has(rollout.phase);
  const does = ended ? (rollout.phase === "promoted" ? ["abort"] : []) : [rollout.phase === "paused" ? "resume" : "pause", "promote", "abort"];
  return card([link(`#/models/${encodeURIComponent(modelId)}`, `${modelId}@${rollout.alias}`), ` ${targetText(rollout.base)} → ${rollout.version}`, rolloutState(rollout),
      h("span", {class: "buttons"}, does.map(action => button(context, action === "pause" || action === "abort" ? "deploy operate" : "deploy", action[0].toUpperCase() + action.slice(1), () => steer(context, modelId, action))))],
    h("div", {class: "steps"}, rollout.steps.map((step, i) => h("span", {class: i < rollout.step || rollout.phase === "promoted" ? "done" : i === rollout.step && !ended ? "now" : null}, step))),
    rollout.breach && h("p", {class: "problem"}, `Guard breached in step ${rollout.breach.step}: ${rollout.breach.guard} — was ${decimal(rollout.breach.value)}, limit ${decimal(rollout.breach.limit)}`
      + (rollout.breach.champion != null ? `, champion ${decimal(rollout.breach.champion)}` : "") + `, of ${whole(rollout.breach.requests)} requests`),
    h("p", {class: "faint"}, `started ${new Date(rollout.started_at).toLocaleString("en-GB")} by ${rollout.started_by ?? "unknown"}; ${whole(status.requests)} requests of version ${rollout.version} in ${ended ? "the last" : "this"} step`),
    !ended && status.measures?.length > 0 && h("div", {}, status.measures.map(measure => guardBar(measure))),
    h("details", {}, h("summary", {}, "Events"), h("ul", {}, rollout.events.map(event =>
      h("li", {}, `${new Date(event.at).toLocaleString("en-GB")}: ${event.what}${event.by ? ` (${event.by})` : ""}`)))));
}

function guardBar(measure) {
  const known = measure.value != null && measure.limit != null, least = measure.guard.includes(">");
  const share = !known ? 0 : least ? measure.limit / (measure.value || 1e-9) : measure.value / (measure.limit || 1e-9);
  const text = known ? `${measure.guard}: ${decimal(measure.value)} (limit ${decimal(measure.limit)}), ${whole(measure.requests)} requests`
    : `${measure.guard}: not measured yet, ${whole(measure.requests)} requests`;
  return bar(share, text, share >= 1 ? "bad" : share > .7 ? "warn" : "good");
}

export const firstSteps = () => h("div", {}, h("p", {}, "or, in a shell:"),
  h("pre", {}, "inferd models deploy model.txt --name churn\ninferd predict churn '[1.5, 2, 3]'"), h("p", {}, link("/openapi.json", "All operations over HTTP")));
export {counts, digest, percent};
