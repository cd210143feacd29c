// Errors by code and by version, and dead letters.

import {bar} from "/page/charts.js";
import {sum} from "/page/cluster.js";
import {card, empty, h, link, table} from "/page/dom.js";
import {compact, decimal, whole} from "/page/format.js";
import {reach, timeChart} from "/page/parts.js";

export const title = () => "Errors";

export function render(_url, context) {
  const {cluster, speeds} = context, codes = {};
  for (const tenant of cluster.tenants) for (const [code, n] of Object.entries(tenant.errors)) codes[code] = (codes[code] ?? 0) + n;
  const listed = Object.entries(codes).sort((a, b) => b[1] - a[1]), all = sum(listed, ([, n]) => n);
  const dead = sum(cluster.tenants, each => each.dead_letters);
  const byVersion = cluster.tenants.flatMap(each => each.model_errors), versions = {};
  for (const each of byVersion) versions[`${each.model_id}:${each.version} ${each.code}`] = {...each, count: (versions[`${each.model_id}:${each.version} ${each.code}`]?.count ?? 0) + each.count};
  return [h("h1", {}, "Errors and dead letters"),
    card(["Errors per second", reach(context)], timeChart(context, "Errors per second over time", [["errors/s", each => each.errors, "bad"]])),
    h("div", {class: "grid2"},
      card(["By code", h("span", {class: "faint"}, "since the workers started")], table([["code"], ["requests"]], listed.map(([code, n]) => [h("code", {}, code), bar(n / (all || 1), whole(n), "bad")]), "no request has failed")),
      card(["By version", h("span", {class: "faint"}, "of requests to a deployed version")], table([["version"], ["code"], ["requests", "number"]],
        Object.values(versions).sort((a, b) => b.count - a.count).map(each => [link(`#/models/${encodeURIComponent(each.model_id)}`, `${each.model_id}:${each.version}`), h("code", {}, each.code), whole(each.count)]), "none"))),
    card(["Dead letters", h("span", {class: "faint"}, `${compact(dead)} since the workers started`)], dead ? h("pre", {}, "inferd dead-letters list --last 20") : empty("No dead letters", h("p", {}, "Records that cannot be decoded are copied to the topic dead-letters, with the reason.")))];
}
