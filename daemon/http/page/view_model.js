// One model: its aliases, versions, rollout, and how its versions do.

import {ask, name} from "/page/api.js";
import {button, dropZone, promote, remove, rollback, setAlias, startRollout, tryOut} from "/page/actions.js";
import {heat, histogram, lines} from "/page/charts.js";
import {DRIFT_BAD, DRIFT_WARN, group, sum} from "/page/cluster.js";
import {card, h, link, table} from "/page/dom.js";
import {ago, bytes, compact, decimal, digest, ms, percent, targetText, whole} from "/page/format.js";
import {modelState, rolloutCard} from "/page/parts.js";

const SINCE_S = 3600, LEAST_MS = 15 * 60_000, UNIT_BINS = 100;
export const title = url => url.parts[1];
export const every = 8000;

export async function load(url) {
  const path = `/models/${name(url.parts[1])}`, optional = promise => promise.catch(() => null);
  const [model, rollout, windows, drift] = await Promise.all([ask(path), optional(ask(`/rollouts/${name(url.parts[1])}`)), optional(ask(`${path}/windows?since_s=${SINCE_S}`)), optional(ask(`${path}/drift?since_s=${SINCE_S}`))]);
  const {aliases} = await ask(`${path}/aliases`);
  return {model, aliases, rollout: rollout?.rollout ? rollout : null, windows: windows?.windows ?? [], drift: drift?.drift ?? []};
}

export function render(url, context, data) {
  const {model, rollout} = data;
  return [h("h1", {}, link("#/models", "Models"), "/", model.model_id, h("span", {class: "spacer"}), button(context, "predict", "Try a prediction", () => tryOut(context, model, model.model_id), "primary"),
      button(context, "deploy", "Start a rollout", () => startRollout(context, model), "")),
    model.dangling_aliases.map(alias => h("p", {class: "problem"}, `Alias ${alias} points at a version that is not deployed: requests to it fail.`)),
    rollout && rolloutCard(context, model.model_id, rollout), aliases(context, data), versions(context, data),
    behaviour(data), drifted(data), dropZone(context, model.model_id)];
}

function aliases(context, {model, aliases: found}) {
  return card(["Aliases", button(context, "deploy", "New alias", () => setAlias(context, model))], table([["alias"], ["points at", "wrap"], ["revision", "number"], ["changed"], ["by"], ["", "do"]],
    Object.entries(found).filter(([, each]) => !each.removed).map(([alias, each]) => ({key: alias, cells: [alias, [targetText(each), history(each)], String(each.revision ?? 0), each.changed_at ? h("span", {title: each.changed_at}, ago(each.changed_at)) : "–", each.changed_by,
      h("span", {class: "buttons"}, button(context, "predict", "Try", () => tryOut(context, model, `${model.model_id}@${alias}`)), button(context, "deploy", "Change", () => setAlias(context, model, alias, each)),
        button(context, "deploy", "Promote", () => promote(context, model, alias, each)), each.history?.length > 0 && button(context, "deploy operate", "Roll back", () => rollback(context, model, alias, each)),
        button(context, "deploy", "Remove", () => remove(context, `/models/${name(model.model_id)}/aliases/${name(alias)}`, `${model.model_id}@${alias}`)))]})),
    "no alias: requests that name the model only get its champion, or its newest version"));
}

const history = each => each.history?.length ? h("details", {}, h("summary", {}, "history"), h("ul", {}, each.history.map(one =>
  h("li", {}, `revision ${one.revision}: ${targetText(one)}${one.changed_at ? `, ${ago(one.changed_at)}` : ""}${one.changed_by ? ` by ${one.changed_by}` : ""}`)))) : null;

function versions(context, {model}) {
  const states = new Map(context.cluster.models.filter(each => each.model_id === model.model_id).map(each => [each.version, each]));
  return card("Versions", table([["version"], ["state"], ["aliases", "wrap"], ["requests/s", "number"], ["requests", "number"], ["µs per row", "number"], ["size", "number"], ["deployed"], ["digest"], ["reason", "wrap"], ["", "do"]],
    [...model.versions].sort((a, b) => b.version - a.version).map(each => {
      const state = states.get(each.version) ?? {state: each.state, states: {}, reason: each.reason};
      return {key: each.version, cells: [String(each.version), modelState(state), each.aliases.join(", ") || "–", decimal(context.speeds.of(`model ${state.tenant} ${model.model_id}:${each.version}`)), compact(state.requests), state.rows ? decimal(state.predict_s * 1e6 / state.rows) : "–",
        bytes(each.size), each.created_at ? h("span", {title: each.created_at}, ago(each.created_at)) : "–", h("code", {title: each.digest}, digest(each.digest)), state.reason ?? state.kernel_fault,
        h("span", {class: "buttons"}, button(context, "predict", "Try", () => tryOut(context, model, `${model.model_id}:${each.version}`)),
          button(context, "deploy", "Remove", () => remove(context, `/models/${name(model.model_id)}/versions/${each.version}`, `${model.model_id}:${each.version}`)))]};
    }), "none"));
}

// ---- minute by minute, from the windows of all workers

function behaviour({windows}) {
  if (!windows.length) return card("Minute by minute", h("p", {class: "faint"}, "No requests in the last hour, or the workers do not record windows."));
  const to = Date.now(), first = Math.min(...windows.map(each => each.minute)) * 60_000, from = Math.max(to - SINCE_S * 1000, Math.min(first, to - LEAST_MS)), byVersion = group(windows, each => each.version).sort((a, b) => a[0].version - b[0].version);
  const series = of => byVersion.map(found => ({name: `version ${found[0].version}`, points: minutes(found, from, to, of)}));
  const labelled = windows.some(each => each.compared);
  return h("div", {class: "grid2"},
    card("Requests per minute", lines({label: "Requests per minute by version", from, to, show: compact, series: series(found => sum(found, each => each.requests ?? 0))})),
    card("p99 latency", lines({label: "p99 latency by version", from, to, show: ms, series: series(found => quantile(found.map(each => each.latency ?? {}), .99))})),
    card("Failed requests", lines({label: "Share of failed requests by version", from, to, show: percent, series: series(share)})),
    labelled && card("Shadows that disagree", lines({label: "Share of rows whose shadow disagrees", from, to, show: percent, series: series(found => { const n = sum(found, each => each.compared ?? 0); return n ? sum(found, each => each.differing ?? 0) / n : null; })})),
    byVersion.filter(found => found.some(each => each.predictions?.scale)).map(predictions));
}

const failed = window => sum(Object.values(window.errors ?? {}), n => n);
const share = found => { const n = sum(found, each => each.requests ?? 0); return n ? sum(found, failed) / n : null; };

function minutes(windows, from, to, of) {
  const by = new Map(group(windows, each => each.minute).map(found => [found[0].minute, found])), points = [];
  for (let minute = Math.ceil(from / 60_000); minute * 60_000 <= to - 60_000; minute++) points.push([minute * 60_000, by.has(minute) ? of(by.get(minute)) : null]);
  return points;
}

// The bins of latencies: bin 0 is up to 1 ms, each further one 2 ** 0.25 times the one before.
function quantile(histograms, q) {
  const counts = new Map();
  for (const each of histograms) for (const [bin, n] of Object.entries(each)) counts.set(Number(bin), (counts.get(Number(bin)) ?? 0) + n);
  let left = q * sum([...counts.values()], n => n);
  for (const bin of [...counts.keys()].sort((a, b) => a - b)) if ((left -= counts.get(bin)) <= 0) return 2 ** (bin / 4);
  return null;
}

function predictions(windows) {
  const scale = windows.find(each => each.predictions?.scale).predictions.scale, counts = {};
  for (const each of windows) if (each.predictions?.scale === scale) for (const [bin, n] of Object.entries(each.predictions.counts ?? {})) counts[bin] = (counts[bin] ?? 0) + n;
  const {names, actual} = scale === "unit" ? unitBins(counts) : listedBins(counts, scale);
  return card([`Predictions of version ${windows[0].version}`, h("span", {class: "faint"}, `${whole(sum(actual, n => n))} rows in the last hour`)], histogram({actual, names, label: `Histogram of the predictions of version ${windows[0].version}`}));
}

function unitBins(counts) {
  const actual = Array(20).fill(0);
  for (const [bin, n] of Object.entries(counts)) actual[Math.min(19, Math.floor(Number(bin) * 20 / UNIT_BINS))] += n;
  return {actual, names: actual.map((_, i) => (i / 20).toFixed(2))};
}

const edge = bin => bin === 0 ? 0 : Math.sign(bin) * 2 ** ((Math.abs(bin) - 1) / 8 - 64);
function listedBins(counts, scale) {
  const bins = Object.keys(counts).map(Number).sort((a, b) => a - b);
  return {actual: bins.map(bin => counts[bin]), names: bins.map(bin => scale === "class" ? `class ${bin}` : decimal(edge(bin)))};
}

function drifted({drift}) {
  return drift.map(each => card([`Drift of version ${each.version}`, h("span", {class: "faint"}, `${whole(each.rows)} rows of the last hour against ${whole(each.baseline_rows)} of the ${each.source} baseline; PSI ${DRIFT_WARN} is small, ${DRIFT_BAD} one to look at`)],
    heat([...each.prediction ? [{name: "prediction", value: each.prediction.psi, text: decimal(each.prediction.psi)}] : [], ...(each.features ?? []).slice(0, 40).map(feature => ({name: feature.name, value: feature.psi,
      text: `${decimal(feature.psi)}${feature.missing ? `, ${percent(feature.missing)} missing` : ""}${feature.unknown ? `, ${percent(feature.unknown)} unknown` : ""}`}))], [DRIFT_WARN, DRIFT_BAD])));
}
