// Errors by code and by version, and dead letters.

import {ask, name} from "/page/api.js";
import {button, redrive} from "/page/actions.js";
import {bar} from "/page/charts.js";
import {sum} from "/page/cluster.js";
import {badge, card, code, empty, h, link, table, titleUnder} from "/page/dom.js";
import {ago, bytes, compact, counts, moment, whole} from "/page/format.js";
import {reach, timeChart} from "/page/parts.js";

const LISTED = 50;
export const title = url => url.parts[1] ? `Dead letter ${url.parts[1]}` : "Errors";
export const every = 10_000;

export async function load(url) {
  if (url.parts[1]) return {letter: await ask(`/dead-letters/${name(url.parts[1])}`, {timeout: 25_000})};
  const chosen = url.query.get("code");
  return ask(`/dead-letters?last=${LISTED}${chosen ? `&code=${name(chosen)}` : ""}`, {timeout: 25_000}).then(found => ({letters: found.dead_letters}), error => ({letters: [], problem: error.message}));
}

export function render(url, context, {letter, letters, problem}) {
  if (letter) return one(letter);
  const {cluster} = context, codes = Object.entries(cluster.tenants.reduce((all, tenant) => {
    for (const [code, n] of Object.entries(tenant.errors)) all[code] = (all[code] ?? 0) + n;
    return all;
  }, {})).sort((a, b) => b[1] - a[1]), all = sum(codes, ([, n]) => n), versions = new Map();
  for (const each of cluster.tenants.flatMap(tenant => tenant.model_errors)) {
    const key = `${each.model_id}:${each.version}`, found = versions.get(key) ?? {...each, codes: {}};
    found.codes[each.code] = (found.codes[each.code] ?? 0) + each.count;
    versions.set(key, found);
  }
  return [h("h1", {}, "Errors and dead letters"),
    card(["Errors per second", reach(context)], timeChart(context, "Errors per second over time", [["errors/s", each => each.errors, "bad"]])),
    h("div", {class: "grid2"},
      card(["By code", h("span", {class: "faint"}, "since the workers started")], table([["code"], ["requests"]], codes.map(([key, n]) => [code(key), bar(n / (all || 1), whole(n), "bad")]), "no request has failed")),
      card(["By version", h("span", {class: "faint"}, "of requests to a deployed version")], table([["version"], ["errors", "wrap"]],
        [...versions].map(([key, each]) => [link(`#/models/${name(each.model_id)}`, key), counts(each.codes)]), "none"))),
    dead(url, context, letters, problem)];
}

function dead(url, context, letters, problem) {
  const total = sum(context.cluster.tenants, each => each.dead_letters), chosen = url.query.get("code");
  const none = chosen ? `none of the newest has the code ${chosen}` : "no dead letters";
  return card(["Dead letters", h("span", {class: "faint"}, `${compact(total)} since the workers started`), chosen && h("span", {}, code(chosen), " ", link("#/errors", "all codes")),
      button(context, "operate", "Redrive", () => redrive(context, chosen))],
    problem && h("p", {class: "problem"}, problem),
    letters.length || chosen ? table([["record"], ["rejected"], ["code"], ["source", "wrap"], ["size", "number"], ["message", "wrap"]], letters.map(each => ({key: `${each.partition}:${each.offset}`, cells: [
      link(`#/errors/${each.partition}:${each.offset}`, `${each.partition}:${each.offset}`), h("span", {title: moment(each.timestamp)}, ago(each.timestamp)), each.code ? link(`#/errors?code=${name(each.code)}`, each.code) : badge("bad", "unreadable"),
      each.source && `${each.source.topic} ${each.source.partition}:${each.source.offset}`, bytes(each.value_bytes), each.message ?? each.problem]})), none)
      : !problem && empty("No dead letters", h("p", {}, "Records that cannot be decoded are copied to the topic dead-letters, with the reason.")));
}

function one(letter) {
  const fact = (title, value) => value == null ? null : [h("dt", {}, title), h("dd", {}, value)], {source} = letter;
  const shown = letter.value_format === "binary" ? letter.value_base64 : letter.value_format === "empty" ? "(empty)" : JSON.stringify(letter.value, null, 1);
  return [titleUnder("#/errors", "Errors", `Dead letter ${letter.partition}:${letter.offset}`, letter.code && badge("bad", letter.code)),
    card(null, h("p", {class: "problem"}, letter.message ?? letter.problem), h("dl", {class: "facts"}, fact("rejected", `${moment(letter.timestamp)}, by worker ${letter.worker ?? "unknown"}`),
      fact("source", source && `${source.topic}, partition ${source.partition}, offset ${source.offset}`), fact("sent", source && moment(source.timestamp)), fact("key", letter.key), letter.headers.map(([key, value]) => fact(`header ${key}`, value ?? "(null)")),
      (letter.omitted ?? []).map(part => fact("omitted", `${part.part}, ${bytes(part.bytes)}`)))),
    card(["Value", h("span", {class: "faint"}, `${bytes(letter.value_bytes)}, ${letter.value_format === "binary" ? "neither JSON nor MessagePack: base64" : letter.value_format}`)], h("pre", {}, shown))];
}
