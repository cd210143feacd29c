// The flow from topics and HTTP through models to results, with rates on its arrows.

import {sum} from "/page/cluster.js";
import {h, s} from "/page/dom.js";
import {compact, decimal} from "/page/format.js";

const WIDTH = 900, BOX = 230, HIGH = 40, GAP = 12, MODELS_MAX = 6;

export function flow(context) {
  const {cluster, speeds} = context, rate = (kind, items, key = each => each.tenant) => sum(items, each => speeds.of(`${kind} ${key(each)}`));
  const lagOf = stream => sum(cluster.topics.filter(each => each.topic.endsWith(`.${stream}`)), each => each.lag);
  const left = [
    {name: "Kafka: requests", rate: rate("kafka", cluster.tenants), sub: `lag ${compact(lagOf("requests"))}`, href: "#/topics", level: lagOf("requests") > 10_000 ? "bad" : lagOf("requests") > 1000 ? "warn" : ""},
    {name: "HTTP", rate: rate("http", cluster.tenants), sub: "predictions", href: "#/workers"},
    ...cluster.routes.slice(0, 3).map(each => ({name: `route ${each.route}`, rate: speeds.of(`route ${each.tenant} ${each.route}`), sub: each.sources.join(", "), href: "#/routes", level: each.state === "running" ? "" : "bad"})),
    {name: "jobs", rate: rate("jobs", cluster.jobs), unit: "rows/s", sub: `${compact(sum(cluster.jobs, each => each.open))} open`, href: "#/jobs"},
  ];
  const key = each => `${each.tenant} ${each.model_id}:${each.version}`, busy = [...cluster.models].map(each => ({each, rate: speeds.of(`model ${key(each)}`) ?? 0, rows: speeds.of(`rows ${key(each)}`)}))
    .sort((a, b) => b.rate - a.rate || b.each.requests - a.each.requests);
  const middle = busy.slice(0, MODELS_MAX).map(({each, rate: speed, rows}) => ({name: `${each.model_id}:${each.version}`, rate: speed, rows, sub: each.aliases.join(", ") || "no alias", href: `#/models/${encodeURIComponent(each.model_id)}`,
    level: each.state === "failed" ? "bad" : each.state === "ready" || each.state === "unloaded" ? "" : "warn"}));
  if (busy.length > MODELS_MAX) middle.push({name: `${busy.length - MODELS_MAX} more`, rate: sum(busy.slice(MODELS_MAX), each => each.rate), sub: "versions", href: "#/models"});
  const dead = rate("dead", cluster.tenants), failed = rate("errors", cluster.tenants);
  const right = [
    {name: "results", rate: rate("results", cluster.tenants), sub: "predictions", href: "#/topics"},
    ...cluster.routes.slice(0, 3).map(each => ({name: each.sink, rate: speeds.of(`routed ${each.tenant} ${each.route}`), sub: "of a route", href: "#/routes"})),
    {name: "errors", rate: failed, sub: "answered as errors", href: "#/errors", level: failed > 0 ? "warn" : "", bad: failed > 0},
    {name: "dead letters", rate: dead, sub: "rejected records", href: "#/errors", level: dead > 0 ? "warn" : "", bad: dead > 0},
  ];
  const rows = Math.max(left.length, middle.length, right.length), height = rows * (HIGH + GAP) + 8;
  const place = (column, x) => column.map((each, i) => ({...each, x, y: 4 + (i + (rows - column.length) / 2) * (HIGH + GAP)}));
  const [a, b, c] = [place(left, 2), place(middle.length ? middle : [{name: "no model", sub: "deploy one", href: "#/models"}], (WIDTH - BOX) / 2), place(right, WIDTH - BOX - 2)];
  const hub = (x, y1) => ({x, y: y1}), joint = height / 2;
  const top = Math.max(1e-9, ...[...a, ...b, ...c].map(each => each.rate ?? 0)), thick = each => each.rate > 0 ? 1 + 5 * Math.sqrt(each.rate / top) : 1;
  const arrow = (from, to, each) => s("path", {class: each.bad ? "bad" : each.rate > 0 ? "" : "idle", "stroke-width": thick(each).toFixed(1),
    d: `M${from.x},${from.y} C${(from.x + to.x) / 2},${from.y} ${(from.x + to.x) / 2},${to.y} ${to.x},${to.y}`});
  const into = (WIDTH - BOX) / 2 - 46, out = (WIDTH + BOX) / 2 + 46, mid = each => each.y + HIGH / 2;
  return h("div", {class: "scroll"}, s("svg", {viewBox: `0 0 ${WIDTH} ${height}`, class: "chart flow", role: "img", "aria-label": "Flow from topics through models to results"},
    a.map(each => arrow(hub(each.x + BOX, mid(each)), hub(into, joint), each)), b.map(each => arrow(hub(into, joint), hub(each.x, mid(each)), each)),
    b.map(each => arrow(hub(each.x + BOX, mid(each)), hub(out, joint), each)), c.map(each => arrow(hub(out, joint), hub(each.x, mid(each)), each)),
    [...a, ...b, ...c].map(box)));
}

// Shortened in the middle, since names often differ at their ends.
const short = (text, n) => text.length > n ? `${text.slice(0, Math.ceil(n / 2) - 1)}…${text.slice(-Math.floor(n / 2))}` : text;
function box(each) {
  const figure = each.rate == null ? "…" : `${decimal(each.rate)}/s`;
  return s("a", {href: each.href}, s("title", {}, `${each.name}: ${figure}${each.unit ? ` ${each.unit}` : ""}; ${each.sub ?? ""}`),
    s("rect", {x: each.x, y: each.y, width: BOX, height: HIGH, rx: 6, class: each.level ?? ""}),
    s("text", {x: each.x + 10, y: each.y + 17}, short(each.name, 24)), s("text", {x: each.x + 10, y: each.y + 32, class: "sub"}, short(each.sub ?? "", 34)),
    s("text", {x: each.x + BOX - 10, y: each.y + 17, "text-anchor": "end"}, figure));
}
