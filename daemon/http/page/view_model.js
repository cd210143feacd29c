// One model: its aliases, versions, rollout, and how its versions do.

import {ask, name, session} from "/page/api.js";
import {button, dropZone, pauseButton, promote, remove, rollback, setAlias, startRollout, tryOut} from "/page/actions.js";
import {heat, histogram, lines} from "/page/charts.js";
import {DRIFT_BAD, DRIFT_WARN, group, sum} from "/page/cluster.js";
import {card, h, table, titleUnder} from "/page/dom.js";
import {ago, bytes, compact, counts, decimal, digest, ms, percent, targetText, whole} from "/page/format.js";
import {modelState, paused, rolloutCard} from "/page/parts.js";

const SINCE_S = 3600, LEAST_MS = 15 * 60_000, BASELINE_EVERY_MS = 300_000, FEATURES_MAX = 60, UNIT_BINS = 100;
export const title = url => url.parts[1];
export const every = 12_000;

export async function load(url) {
  const path = `/models/${name(url.parts[1])}`, optional = asked => asked.catch(() => null);
  const [model, {aliases}, rollout, windows, drift, quality] = await Promise.all([ask(path), ask(`${path}/aliases`), optional(ask(`/rollouts/${name(url.parts[1])}`)), optional(ask(`${path}/windows?since_s=${SINCE_S}`)),
    optional(ask(`${path}/drift?since_s=${SINCE_S}`)), optional(ask(`${path}/quality?since_s=${SINCE_S}`))]);
  const baselines = new Map(await Promise.all((drift?.drift ?? []).map(async each => [each.version, await optional(baselineOf(path, each.version))])));
  return {model, aliases, rollout: rollout?.rollout ? rollout : null, windows: windows?.windows ?? [], drift: drift?.drift ?? [], quality: quality?.quality ?? [], baselines};
}

// A baseline seldom changes: it is asked for again after some minutes.
const known = new Map();
async function baselineOf(path, version) {
  const key = `${session.tenant} ${path} ${version}`, found = known.get(key);
  if (found && Date.now() - found.at < BASELINE_EVERY_MS) return found.baseline;
  const {baseline} = await ask(`${path}/versions/${version}/baseline`);
  known.set(key, {at: Date.now(), baseline});
  return baseline;
}

export function render(url, context, data) {
  const {model, rollout} = data;
  return [titleUnder("#/models", "Models", model.model_id, paused(context.cluster, "model", model.model_id), h("span", {class: "spacer"}), button(context, "predict", "Try a prediction", () => tryOut(context, model, model.model_id), "primary"),
      button(context, "deploy", "Start a rollout", () => startRollout(context, model), ""), pauseButton(context, "model", model.model_id)),
    model.dangling_aliases.map(alias => h("p", {class: "problem"}, `Alias ${alias} points at a version that is not deployed: requests to it fail.`)),
    rollout && rolloutCard(context, model.model_id, rollout), aliases(context, data), versions(context, data), shadows(context, data),
    behaviour(data), qualities(data), drifted(data), dropZone(context, model.model_id)];
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
  return card("Versions", table([["version"], ["state"], ["aliases", "wrap"], ["requests/s", "number"], ["requests", "number"], ["µs per row", "number extra"], ["size", "number extra"], ["deployed", "extra"], ["digest", "extra"], ["reason", "wrap"], ["", "do"]],
    [...model.versions].sort((a, b) => b.version - a.version).map(each => {
      const state = states.get(each.version) ?? {state: each.state, states: {}, reason: each.reason};
      return {key: each.version, cells: [String(each.version), modelState(state), each.aliases.join(", ") || "–", decimal(context.speeds.of(`model ${state.tenant} ${model.model_id}:${each.version}`)), compact(state.requests), state.rows ? decimal(state.predict_s * 1e6 / state.rows) : "–",
        bytes(each.size), each.created_at ? h("span", {title: each.created_at}, ago(each.created_at)) : "–", h("code", {title: each.digest}, digest(each.digest)), state.reason ?? state.kernel_fault,
        h("span", {class: "buttons"}, button(context, "predict", "Try", () => tryOut(context, model, `${model.model_id}:${each.version}`)),
          button(context, "deploy", "Remove", () => remove(context, `/models/${name(model.model_id)}/versions/${each.version}`, `${model.model_id}:${each.version}`)))]};
    }), "none"));
}

function shadows({cluster}, {model}) {
  const found = cluster.shadows.filter(each => each.model_id === model.model_id);
  return found.length ? card(["Shadow versions", h("span", {class: "faint"}, "score requests once they are answered")], table([["version"], ["requests", "number"], ["compared rows", "number"], ["disagree", "number"], ["µs per row", "number extra"], ["dropped", "wrap"], ["last error", "wrap"]],
    found.map(each => [String(each.version), compact(each.requests), compact(each.compared), each.compared ? percent(each.differing / each.compared) : "–", each.rows ? decimal(each.predict_s * 1e6 / each.rows) : "–", counts(each.dropped), each.last_error]), "")) : null;
}

// ---- minute by minute, from the windows of all workers

function behaviour({windows, baselines}) {
  if (!windows.length) return card("Minute by minute", h("p", {class: "faint"}, "No requests in the last hour, or the workers do not record windows."));
  const to = Date.now(), first = Math.min(...windows.map(each => each.minute)) * 60_000, from = Math.max(to - SINCE_S * 1000, Math.min(first, to - LEAST_MS)), byVersion = group(windows, each => each.version).sort((a, b) => a[0].version - b[0].version);
  const series = of => byVersion.map(found => ({name: `version ${found[0].version}`, points: minutes(found, from, to, of)}));
  const labelled = windows.some(each => each.compared);
  return h("div", {class: "grid2"},
    card("Requests per minute", lines({label: "Requests per minute by version", from, to, show: compact, series: series(found => sum(found, each => each.requests ?? 0))})),
    card("p99 latency", lines({label: "p99 latency by version", from, to, show: ms, series: series(found => quantile(found.map(each => each.latency ?? {}), .99))})),
    card("Failed requests", lines({label: "Share of failed requests by version", from, to, show: percent, series: series(share)})),
    labelled && card("Shadows that disagree", lines({label: "Share of rows whose shadow disagrees", from, to, show: percent, series: series(found => { const n = sum(found, each => each.compared ?? 0); return n ? sum(found, each => each.differing ?? 0) / n : null; })})),
    byVersion.filter(found => found.some(each => each.predictions?.scale)).map(found => predictions(found, baselines.get(found[0].version))));
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

function predictions(windows, baseline) {
  const scale = windows.find(each => each.predictions?.scale).predictions.scale, counts = added(windows.filter(each => each.predictions?.scale === scale).map(each => each.predictions.counts));
  const was = baseline?.predictions?.scale === scale ? baseline.predictions.counts : null, {names, actual, expected} = scale === "unit" ? unitBins(counts, was) : listedBins(counts, was, scale);
  return card([`Predictions of version ${windows[0].version}`, h("span", {class: "faint"}, `${whole(sum(actual, n => n))} rows in the last hour`), was && key()],
    histogram({actual, expected, names, label: `Histogram of the predictions of version ${windows[0].version}`}));
}

const key = () => h("span", {class: "legend"}, h("span", {}, h("i", {class: "is"}), "last hour"), h("span", {}, h("i", {class: "was"}), "baseline"));

function added(counts) {
  const found = {};
  for (const each of counts) for (const [bin, n] of Object.entries(each ?? {})) found[bin] = (found[bin] ?? 0) + n;
  return found;
}

function unitBins(counts, was) {
  const binned = of => {
    const found = Array(20).fill(0);
    for (const [bin, n] of Object.entries(of ?? {})) found[Math.min(19, Math.floor(Number(bin) * 20 / UNIT_BINS))] += n;
    return found;
  };
  return {actual: binned(counts), expected: was && binned(was), names: Array.from({length: 20}, (_, i) => `${(i / 20).toFixed(2)} to ${((i + 1) / 20).toFixed(2)}`)};
}

const edge = bin => bin === 0 ? 0 : Math.sign(bin) * 2 ** ((Math.abs(bin) - 1) / 8 - 64);
function listedBins(counts, was, scale) {
  const bins = [...new Set([...Object.keys(counts), ...Object.keys(was ?? {})])].map(Number).sort((a, b) => a - b);
  return {actual: bins.map(bin => counts[bin] ?? 0), expected: was && bins.map(bin => was[bin] ?? 0), names: bins.map(bin => scale === "class" ? `class ${bin}` : decimal(edge(bin)))};
}

function qualities({quality}) {
  const measures = [["accuracy", percent], ["auc", decimal], ["log_loss", decimal], ["brier", decimal], ["rmse", decimal], ["mae", decimal]].filter(([measure]) => quality.some(each => each[measure] != null));
  return quality.length ? card(["Quality", h("span", {class: "faint"}, "by the labels that came for the last hour")], table([["version"], ["alias"], ["variant"], ["labelled rows", "number"], ...measures.map(([measure]) => [measure.replace("_", " "), "number"])],
    quality.map(each => [String(each.version), each.alias ?? "–", each.variant ?? "–", `${whole(each.labelled_rows)} of ${whole(each.rows)}`, ...measures.map(([measure, show]) => show(each[measure]))]), "")) : null;
}

function drifted({drift, windows, baselines}) {
  return drift.map(each => {
    const baseline = baselines.get(each.version), found = baseline && windows.filter(window => window.version === each.version && window.features?.baseline === baseline.revision);
    return card([`Drift of version ${each.version}`, h("span", {class: "faint"}, `${whole(each.rows)} rows of the last hour against ${whole(each.baseline_rows)} of the ${each.source} baseline; a PSI of ${DRIFT_WARN} is a small shift, ${DRIFT_BAD} one to look at`)],
      heat([...each.prediction ? [{name: "prediction", value: each.prediction.psi, text: decimal(each.prediction.psi)}] : [], ...(each.features ?? []).slice(0, FEATURES_MAX).map(feature => ({name: feature.name, value: feature.psi,
        text: `${decimal(feature.psi)}${feature.missing ? `, ${percent(feature.missing)} missing` : ""}${feature.unknown ? `, ${percent(feature.unknown)} unknown` : ""}`}))], [DRIFT_WARN, DRIFT_BAD]),
      found?.length > 0 && h("details", {}, h("summary", {}, "Features against the baseline"), key(), h("div", {class: "grid3"}, (each.features ?? []).slice(0, FEATURES_MAX).map(feature => featureChart(feature, baseline.features[feature.name], found)))));
  });
}

// Of a feature, windows have [counts by bin of the baseline, missing, out of range, unknown].
function featureChart(feature, baseline, windows) {
  if (!baseline) return null;
  const bins = baseline.counts.length, actual = Array(bins + 2).fill(0);
  for (const window of windows) {
    const [counts = [], missing = 0, , unknown = 0] = window.features.by_name?.[feature.name] ?? [];
    counts.forEach((n, i) => { actual[i] += n; });
    actual[bins] += missing;
    actual[bins + 1] += unknown;
  }
  const edges = baseline.edges ?? [], names = [...baseline.categories?.map(String) ?? Array.from({length: bins}, (_, i) => i === 0 ? (edges.length ? `below ${decimal(edges[0])}` : "all") : i === bins - 1 ? `${decimal(edges[i - 1])} and above` : `${decimal(edges[i - 1])} to ${decimal(edges[i])}`), "missing", "unknown"];
  return h("div", {}, h("h3", {}, feature.name, h("span", {class: "faint"}, ` PSI ${decimal(feature.psi)}`)), histogram({actual, expected: [...baseline.counts, baseline.missing ?? 0, baseline.other ?? 0], names, label: `Values of ${feature.name} against the baseline`}));
}
