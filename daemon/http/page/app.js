// The page: finds the view of the URL, asks for data, and shows both again and again.

import {ask, session} from "/page/api.js";
import {clusterOf, problemsOf, seriesOf, Speeds} from "/page/cluster.js";
import {badge, h, morph} from "/page/dom.js";
import {span} from "/page/format.js";
import {field, dialog, toast} from "/page/overlay.js";
import * as audit from "/page/view_audit.js";
import * as errors from "/page/view_errors.js";
import * as jobs from "/page/view_jobs.js";
import * as model from "/page/view_model.js";
import * as models from "/page/view_models.js";
import * as overview from "/page/view_overview.js";
import * as records from "/page/view_records.js";
import * as rollouts from "/page/view_rollouts.js";
import * as routes from "/page/view_routes.js";
import * as topics from "/page/view_topics.js";
import * as workers from "/page/view_workers.js";

const EVERY_MS = 2000, HIDDEN_EVERY_MS = 20_000, HISTORY_EVERY_MS = 5000, STATUS_TIMEOUT_MS = 8000, HOUR_MS = 3_600_000;
const NAV = [["", "Overview", overview], ["models", "Models", models], ["rollouts", "Rollouts", rollouts], ["jobs", "Jobs", jobs],
  ["topics", "Topics", topics], ["routes", "Routes", routes], ["errors", "Errors", errors], ["workers", "Workers", workers], ["audit", "Audit", audit]];
const at = id => document.getElementById(id);

// What views see. `whole` is of all tenants, `cluster` of the chosen one.
const context = {
  whole: null, cluster: null, series: [], speeds: new Speeds(), problems: [], me: null, minutes: Number(sessionStorage.getItem("inferd-minutes")) || 30,
  may: roles => !context.me?.roles || roles.split(" ").some(role => context.me.roles.includes(role)),
  // Sends a request that changes something, says so, and refreshes the view.
  async act(path, options, done) {
    const said = await ask(path, options);
    if (done) toast(done);
    refresh();
    return said;
  },
  choose(minutes) { context.minutes = minutes; sessionStorage.setItem("inferd-minutes", minutes); draw(); },
  redraw: () => draw(),
};
const histories = new Map();
let shown = null, lostAt = null, lostWhy = "", historyAt = 0, peers = [], asking = false, timer = null, everyMs = EVERY_MS;

// ---- the view of the URL

function parsed() {
  const [path, query] = location.hash.replace(/^#\/?/, "").split("?");
  const parts = path.split("/").filter(Boolean).map(decodeURIComponent);
  return {parts, query: new URLSearchParams(query), key: location.hash};
}

function viewOf(parts) {
  if (parts[0] === "models" && parts.length > 1) return model;
  if (parts[0] === "topics" && parts.length > 1) return records;
  return NAV.find(([name]) => name === (parts[0] ?? ""))?.[2] ?? null;
}

function navigate() {
  const url = parsed(), view = viewOf(url.parts), tenant = url.query.get("tenant");
  if (tenant && tenant !== session.tenant) { session.keep("tenant", tenant); if (context.whole) poll(); }
  if (shown?.url.key !== url.key) shown = {url, view, data: null, problem: null, loading: false, loadedAt: 0};
  at("nav").replaceChildren(...NAV.map(([name, title], i) => h("a", {href: `#/${name}`, "aria-current": name === (url.parts[0] ?? "") ? "page" : null,
    title: `${title} (${i + 1})`}, title)));
  document.querySelector("#nav [aria-current]")?.scrollIntoView({block: "nearest", inline: "nearest"});
  draw();
  header();
  load();
}

async function load() {
  const of = shown;
  if (!of?.view?.load || of.loading || !context.cluster) return;
  of.loading = true;
  try {
    of.data = await of.view.load(of.url, context);
    of.problem = null;
  } catch (error) { of.problem = error; }
  of.loading = false;
  of.loadedAt = Date.now();
  if (of === shown) draw();
}

function refresh() {
  if (shown) shown.loadedAt = 0;
  load();
  poll();
}

function draw() {
  if (!shown || !context.cluster) return;
  const {view, url, data, problem} = shown, next = document.createElement("main");
  const title = view?.title?.(url) ?? "Not found";
  shown.title = title;
  if (problem) next.append(h("p", {class: "problem", role: "alert"}, `${problem.message}${problem.code ? ` (${problem.code})` : ""}`));
  if (!view) next.append(h("p", {}, "There is no such view: ", h("a", {href: "#/"}, "overview")));
  else if (!view.load || data) next.append(...[view.render(url, context, data)].flat(Infinity).filter(Boolean));
  else if (!problem) next.append(h("p", {class: "faint"}, "Loading…"));
  morph(at("main"), next);
}

// ---- data

async function poll() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  try {
    await pollOnce();
    lostAt = null;
  } catch (error) {
    if (error.status === 401) askForToken(error.message);
    else lostAt ??= Date.now();
    lostWhy = error.code === "no_response" || error.status === undefined ? "" : `${error.message} (${error.code}). `;
    if (error.status === undefined) console.error(error);
  }
  asking = false;
  header();
  timer = setTimeout(poll, document.hidden ? HIDDEN_EVERY_MS : lostAt ? EVERY_MS : everyMs);
}

async function pollOnce() {
  const began = performance.now();
  let size = 0;
  const answer = await ask("/cluster", {timeout: STATUS_TIMEOUT_MS, sized: n => { size = n; }});
  // A large or slow cluster is asked less often: at most a tenth of the time, and 50 kB a second.
  everyMs = Math.min(HIDDEN_EVERY_MS, Math.max(EVERY_MS, 10 * (performance.now() - began), size / 50));
  context.me ??= await ask("/whoami").catch(() => ({}));
  context.whole = clusterOf(answer);
  const names = context.whole.tenantNames;
  if (!names.includes(session.tenant)) session.keep("tenant", names.length < 2 ? null : names.includes("default") ? "default" : names[0]);
  context.cluster = names.length > 1 ? clusterOf(answer, session.tenant) : context.whole;
  context.speeds.add(context.whole);
  peers = answer.workers.slice(1).map(each => each.url);
  if (Date.now() - historyAt >= HISTORY_EVERY_MS) await readHistory();
  context.problems = problemsOf(context.whole, context.series);
  const first = shown?.view?.load && !shown.data && !shown.loading;
  if (first || (shown && Date.now() - shown.loadedAt >= (shown.view?.every ?? 5000))) load();
  draw();
}

async function readHistory() {
  historyAt = Date.now();
  const after = Math.max(0, Math.min(...[...histories.values()].map(samples => samples.at(-1)?.at ?? 0), Infinity));
  const answer = await ask(`/cluster/history?after=${Number.isFinite(after) ? after : 0}`);
  const from = (Date.now() - HOUR_MS) / 1000;
  for (const {url, history} of answer.workers) {
    if (!history) continue;
    const known = histories.get(url) ?? [], last = known.at(-1)?.at ?? 0;
    histories.set(url, [...known, ...history.samples.filter(each => each.at > last)].filter(each => each.at > from));
  }
  for (const url of histories.keys()) if (!answer.workers.some(each => each.url === url)) histories.delete(url);
  context.histories = histories;
  context.series = seriesOf([...histories.values()]);
}

// ---- what surrounds the view

function header() {
  const bad = context.problems.filter(each => each.level === "bad").length, warn = context.problems.length - bad;
  const [level, text] = lostAt ? ["bad", lostWhy ? "no answer" : "no connection"] : !context.whole ? ["", "…"] : bad ? ["bad", `${bad} ${bad === 1 ? "problem" : "problems"}`]
    : warn ? ["warn", `${warn} ${warn === 1 ? "warning" : "warnings"}`] : ["good", "healthy"];
  morph(at("health"), h("span", {}, h("a", {href: "#/", class: `badge ${level}`}, text)));
  document.title = `${bad || lostAt ? "✗ " : ""}${shown?.title ?? "inferd"} · inferd`;
  const names = context.whole?.tenantNames ?? [];
  morph(at("who"), h("span", {},
    names.length > 1 && h("select", {"aria-label": "Tenant", onchange: event => choose(event.target.value)},
      names.map(name => h("option", {value: name, selected: name === session.tenant}, name))),
    context.me?.name && h("span", {class: "faint"}, context.me.name),
    session.token && h("button", {class: "plain", onclick: () => { session.keep("token", null); location.reload(); }}, "Forget token")));
  at("banner").hidden = !lostAt;
  at("main").classList.toggle("stale", Boolean(lostAt));
  if (lostAt) morph(at("banner"), h("div", {}, (lostWhy || `No connection to the worker at ${location.host} for ${span((Date.now() - lostAt) / 1000)}. `)
    + (context.whole ? "What you see is old; it is asked again every 2 s. " : "It is asked again every 2 s. "),
    peers.length > 0 && ["Other workers: ", peers.map(url => [h("a", {href: `${url}/${location.hash}`}, new URL(url).host), " "])]));
  if (lostAt && !context.whole) morph(at("main"), h("main", {}));
  const known = context.whole?.known[0];
  at("fresh").textContent = known ? `${known.worker} · inferd ${known.version} · broker ${known.broker} · ${known.processing_guarantee.replaceAll("_", " ")}` : "";
}

// The view of another tenant; its URL can be kept and sent.
function choose(tenant) {
  history.replaceState(null, "", `#/${parsed().parts.map(encodeURIComponent).join("/")}?tenant=${encodeURIComponent(tenant)}`);
  session.keep("tenant", tenant);
  shown = null;
  navigate();
  poll();
}

let askingToken = null;
function askForToken(reason) {
  if (askingToken?.open) return;
  askingToken = dialog({title: "Token", about: `This worker requires a bearer token: ${reason}. It is kept in this browser tab only.`,
    fields: field("Bearer token", h("input", {name: "token", type: "password", autocomplete: "off", spellcheck: "false", required: true})),
    action: "Use token", send: async form => { session.keep("token", form.get("token").trim()); context.me = null; poll(); }});
}

document.addEventListener("keydown", event => {
  if (event.ctrlKey || event.metaKey || event.altKey || document.querySelector("dialog[open]")) return;
  if (["INPUT", "SELECT", "TEXTAREA"].includes(event.target.tagName)) { if (event.key === "Escape") event.target.blur(); return; }
  const number = Number(event.key);
  if (number >= 1 && number <= NAV.length) location.hash = `#/${NAV[number - 1][0]}`;
  else if (event.key === "/") { event.preventDefault(); document.querySelector("main input[type=search]")?.focus(); }
});
at("skip").onclick = event => { event.preventDefault(); at("main").focus(); };
for (const kind of ["dragover", "drop"]) document.addEventListener(kind, event => event.preventDefault());
document.addEventListener("visibilitychange", () => { if (!document.hidden) poll(); });
addEventListener("hashchange", () => { navigate(); scrollTo(0, 0); });
navigate();
poll();
