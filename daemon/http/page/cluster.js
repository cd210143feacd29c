// What the statuses of all workers add up to. Pure: no element and no request is made here.

const ERRORS_WARN = .01, ERRORS_BAD = .05, SPEED_S = 10, DRIFT_WARN = .1, MINUTE = 12, QUOTA_WARN = .95;
export const DRIFT_BAD = .2;

const sum = (items, of) => items.reduce((total, item) => total + (of(item) ?? 0), 0);
const most = values => values.reduce((a, b) => b == null ? a : a == null || b > a ? b : a, null);
function group(items, key) {
  const found = new Map();
  for (const item of items) found.set(key(item), [...(found.get(key(item)) ?? []), item]);
  return [...found.values()];
}
function added(counts) {
  const found = {};
  for (const each of counts) for (const [name, n] of Object.entries(each ?? {})) found[name] = (found[name] ?? 0) + n;
  return found;
}

// The cluster from the answer of /cluster. `tenant` (or null: all of them) chooses what is listed.
export function clusterOf(answer, tenant = null) {
  const workers = answer.workers.map(each => ({url: each.url, error: each.error, status: each.status ?? null}));
  const known = workers.filter(each => each.status).map(each => each.status);
  const all = name => known.flatMap(status => (status[name] ?? []).filter(item => !tenant || item.tenant === tenant)
    .map(item => ({...item, worker: status.worker})));
  const partitions = all("partitions").sort((a, b) => a.topic.localeCompare(b.topic) || a.partition - b.partition);
  const tenants = group(all("tenants"), each => each.tenant).map(tenantOf);
  return {
    workers, known, tenants, partitions,
    tenantNames: [...new Set(known.flatMap(status => status.tenants.map(each => each.tenant)))].sort(),
    topics: group(partitions, each => each.topic).map(topicOf),
    models: group(all("models"), each => `${each.tenant} ${each.model_id}:${each.version}`).map(modelOf)
      .sort((a, b) => a.model_id.localeCompare(b.model_id) || b.version - a.version),
    aliases: uniqueBy(all("aliases"), each => `${each.tenant} ${each.model_id}@${each.alias}`, (a, b) => a.revision >= b.revision ? a : b),
    dangling: uniqueBy(all("dangling_aliases"), each => `${each.tenant} ${each.model_id}@${each.alias}`, a => a),
    jobs: group(all("jobs"), each => each.tenant).map(jobsOf),
    routes: group(all("routes"), each => `${each.tenant} ${each.route}`).map(routeOf),
    shadows: group(all("shadows"), each => `${each.tenant} ${each.model_id}:${each.version}`).map(shadowOf),
    drift: all("drift").sort((a, b) => worst(b) - worst(a)),
    rollouts: all("rollouts").flatMap(each => each.live.map(live => ({...live, tenant: each.tenant}))),
    pauses: uniqueBy(all("pauses"), each => `${each.tenant} ${each.kind} ${each.name}`, a => a),
    quotas: group(all("quotas"), each => each.tenant).map(quotaOf),
    waiting: uniqueBy(all("waiting"), each => each.tenant, a => a),
    lag: known.some(status => status.lag != null) ? sum(known, status => status.lag) : null,
    now: nowOf(known),
    at: Date.now(),
  };
}

// The pause of a model or of a route; undefined if it runs.
export const pauseOf = (cluster, kind, name) => cluster.pauses.find(each => each.kind === kind && each.name === name);

const uniqueBy = (items, key, best) => group(items, key).map(each => each.reduce(best));
export const worst = drift => Math.max(drift.prediction_psi ?? 0, ...Object.values(drift.features));

function tenantOf(parts) {
  const add = name => sum(parts, each => each[name]);
  return {tenant: parts[0].tenant, requests_in: add("requests_in"), results: add("results"), pending: add("pending"), direct: add("direct"),
    dead_letters: add("dead_letters"), bytes_out: add("bytes_out"), errors: added(parts.map(each => each.errors)),
    model_errors: parts.flatMap(each => each.model_errors ?? [])};
}

function topicOf(partitions) {
  return {topic: partitions[0].topic, tenant: partitions[0].tenant, partitions, lag: sum(partitions, each => each.lag),
    queued: sum(partitions, each => each.queued), in_flight: sum(partitions, each => each.in_flight)};
}

const ORDER = ["failed", "fetching", "trying", "unloaded", "ready"];
function modelOf(parts) {
  const first = parts[0], states = added(parts.map(each => ({[each.state]: 1})));
  const state = ORDER.find(each => states[each]) ?? first.state;
  return {tenant: first.tenant, model_id: first.model_id, version: first.version, digest: first.digest, aliases: first.aliases, states, state,
    workers: parts.length, reason: parts.find(each => each.state === state)?.reason ?? parts.find(each => each.reason)?.reason ?? null,
    requests: sum(parts, each => each.requests), rows: sum(parts, each => each.rows), predict_s: sum(parts, each => each.predict_s),
    kernel: first.kernel, kernel_fault: first.kernel_fault};
}

function jobsOf(parts) {
  const add = name => sum(parts, each => each[name]);
  return {tenant: parts[0].tenant, open: add("open"), open_rows: add("open_rows"), rows_in: add("rows_in"), rows_succeeded: add("rows_succeeded"),
    rows_failed: add("rows_failed"), ended: added(parts.map(each => each.ended)), refused: added(parts.map(each => each.refused)),
    chunk_rows: add("chunk_rows"), chunk_s: add("chunk_s")};
}

function routeOf(parts) {
  const add = name => sum(parts, each => each[name]);
  const state = ["refused", "waiting"].find(each => parts.some(part => part.state === each)) ?? "running";
  return {...parts[0], state, reason: parts.find(each => each.state === state)?.reason ?? null, records_in: add("records_in"),
    results: add("results"), dead_letters: add("dead_letters"), tombstones: add("tombstones"), pending: add("pending"),
    errors: added(parts.map(each => each.errors)), lag: parts.some(each => each.lag != null) ? add("lag") : null, partitions: add("partitions")};
}

function shadowOf(parts) {
  const add = name => sum(parts, each => each[name]);
  return {...parts[0], requests: add("requests"), rows: add("rows"), compared: add("compared"), differing: add("differing"),
    predict_s: add("predict_s"), dropped: added(parts.map(each => each.dropped)), last_error: parts.find(each => each.last_error)?.last_error};
}

// Limits are those of all workers together; what was used, delayed and refused is added up.
function quotaOf(parts) {
  const add = name => sum(parts, each => each[name]);
  return {tenant: parts[0].tenant, requests_per_s: parts[0].requests_per_s, bytes_per_s: parts[0].bytes_per_s, used_requests_per_s: add("used_requests_per_s"),
    used_bytes_per_s: add("used_bytes_per_s"), delayed: add("delayed"), refused: add("refused")};
}

function nowOf(known) {
  const rates = known.map(status => status.throughput).filter(Boolean);
  const add = name => rates.length ? sum(rates, each => each[name]) : null;
  const recent = (name, q) => most(known.map(status => status.latency[name]?.recent?.[q]));
  return {requests: add("requests_per_s"), rows: add("rows_per_s"), errors: add("errors_per_s"),
    p50: recent("end_to_end", "p50_ms") ?? recent("direct", "p50_ms"), p99: recent("end_to_end", "p99_ms") ?? recent("direct", "p99_ms")};
}

// Rates per second of counters, from the clusters of the last `SPEED_S` seconds.
export class Speeds {
  #past = [];
  add(cluster) {
    this.#past.push({at: cluster.at, counted: countersOf(cluster)});
    while (this.#past.length > 2 && cluster.at - this.#past[1].at >= SPEED_S * 1000) this.#past.shift();
  }
  // Of a counter, such as `model default churn:1`; null while it is not known.
  of(key) {
    const first = this.#past[0], last = this.#past.at(-1);
    if (!first || last.at <= first.at || !(key in last.counted)) return null;
    return Math.max(0, last.counted[key] - (first.counted[key] ?? last.counted[key])) / ((last.at - first.at) / 1000);
  }
  clear() { this.#past = []; }
}

function countersOf(cluster) {
  const found = {};
  for (const each of cluster.tenants) {
    found[`kafka ${each.tenant}`] = each.requests_in - each.direct;
    found[`http ${each.tenant}`] = each.direct;
    found[`results ${each.tenant}`] = each.results;
    found[`errors ${each.tenant}`] = sum(Object.values(each.errors), n => n);
    found[`dead ${each.tenant}`] = each.dead_letters;
  }
  for (const each of cluster.models) {
    found[`model ${each.tenant} ${each.model_id}:${each.version}`] = each.requests;
    found[`rows ${each.tenant} ${each.model_id}:${each.version}`] = each.rows;
  }
  for (const each of cluster.jobs) found[`jobs ${each.tenant}`] = each.chunk_rows;
  for (const each of cluster.routes) {
    found[`route ${each.tenant} ${each.route}`] = each.records_in;
    found[`routed ${each.tenant} ${each.route}`] = each.results;
  }
  for (const each of cluster.topics) found[`topic ${each.topic}`] = sum(each.partitions, one => one.committed);
  return found;
}

// Samples of all workers, added up by time: [{at in ms, requests, rows, errors, lag, p50, p99, memory}].
export function seriesOf(histories) {
  const slots = new Map();
  for (const samples of histories) for (const one of samples) {
    const slot = slots.get(one.at) ?? {at: one.at * 1000, requests: 0, rows: 0, errors: 0, lag: null, p50: null, p99: null, memory: null};
    slot.requests += one.requests_per_s; slot.rows += one.rows_per_s; slot.errors += one.errors_per_s;
    if (one.lag != null) slot.lag = (slot.lag ?? 0) + one.lag;
    slot.p50 = most([slot.p50, one.p50_ms ?? one.http_p50_ms]); slot.p99 = most([slot.p99, one.p99_ms ?? one.http_p99_ms]);
    if (one.resident_bytes != null) slot.memory = (slot.memory ?? 0) + one.resident_bytes;
    slots.set(one.at, slot);
  }
  return [...slots.values()].sort((a, b) => a.at - b.at);
}

// Requests and errors of the last minute; of workers that are younger, since their start.
function failures(cluster, series) {
  const recent = series.slice(-MINUTE);
  if (recent.length === MINUTE) return [sum(recent, each => each.requests), sum(recent, each => each.errors), "of the last minute"];
  return [sum(cluster.tenants, each => each.requests_in), sum(cluster.tenants, each => sum(Object.values(each.errors), n => n)), "since the start"];
}

// The share of a quota that is used, of requests or of bytes, whichever is more.
export const quotaUsed = quota => Math.max(0, ...["requests_per_s", "bytes_per_s"].map(name => quota[name] > 0 ? quota[`used_${name}`] / quota[name] : 0));

// What is wrong, worst first: [{level: bad or warn, text, href}]. With several tenants, text and link name the one.
export function problemsOf(cluster, series = []) {
  const found = [], several = cluster.tenantNames.length > 1;
  const add = level => (text, href, tenant) => found.push(several && tenant ? {level, text: `${tenant}: ${text}`, href: `${href}?tenant=${encodeURIComponent(tenant)}`} : {level, text, href});
  const bad = add("bad"), warn = add("warn");
  for (const each of cluster.workers) {
    const name = each.status?.worker ?? each.url;
    if (each.error) bad(`worker ${name} does not answer: ${each.error}`, "#/workers");
    else for (const reason of each.status.unready) (cluster.models.length ? bad : warn)(`worker ${name} is not ready: ${reason}`, "#/workers");
    if (each.status?.last_error && !each.status.unready.includes(each.status.last_error)) warn(`worker ${name}: ${each.status.last_error}`, "#/workers");
  }
  for (const each of cluster.dangling) bad(`alias ${each.model_id}@${each.alias} points at version ${each.missing.join(", ")}, which is not deployed`, `#/models/${each.model_id}`, each.tenant);
  for (const each of cluster.models) {
    if (each.state !== "failed") continue;
    const used = each.aliases.length > 0;
    (used ? bad : warn)(`model ${each.model_id}:${each.version} failed${used ? `, and ${each.aliases.join(", ")} points at it` : ""}: ${each.reason ?? "no reason known"}`, `#/models/${each.model_id}`, each.tenant);
  }
  for (const each of cluster.waiting) warn(`tenant ${each.tenant} waits: ${each.reason}`, "#/workers");
  for (const each of cluster.quotas) if (quotaUsed(each) >= QUOTA_WARN) warn(`tenant ${each.tenant} uses ${Math.round(quotaUsed(each) * 100)} % of its quota: what is beyond waits, or is refused over HTTP`, "#/");
  for (const each of cluster.pauses) warn(`${each.kind} ${each.name} is paused since ${new Date(each.at).toLocaleString("en-GB")} by ${each.by}${each.reason ? `: ${each.reason}` : ""}`, each.kind === "model" ? `#/models/${each.name}` : "#/routes", each.tenant);
  for (const each of cluster.routes) if (each.state !== "running") (each.state === "refused" ? bad : warn)(`route ${each.route} is ${each.state}: ${each.reason ?? ""}`, "#/routes", each.tenant);
  const [requests, errors, when] = failures(cluster, series), share = requests > 0 ? errors / requests : 0;
  if (share >= ERRORS_WARN) (share >= ERRORS_BAD ? bad : warn)(`${(share * 100).toFixed(1)} % of the requests ${when} failed`, "#/errors");
  const lags = series.slice(-24).map(each => each.lag).filter(each => each != null);
  if (lags.length >= 12 && lags.at(-1) > 1000 && lags.at(-1) > 1.5 * lags[0]) warn(`the lag grows: ${Math.round(lags.at(-1))} records`, "#/topics");
  for (const each of cluster.drift) if (worst(each) >= DRIFT_BAD) warn(`${each.model_id}:${each.version} has drifted from its baseline (PSI ${worst(each).toFixed(2)})`, `#/models/${each.model_id}`, each.tenant);
  for (const each of cluster.shadows) if (each.last_error) warn(`shadow ${each.model_id}:${each.version} fails: ${each.last_error}`, `#/models/${each.model_id}`, each.tenant);
  const versions = [...new Set(cluster.known.map(status => status.version))];
  if (versions.length > 1) warn(`workers have different versions of inferd: ${versions.join(", ")}`, "#/workers");
  return found.sort((a, b) => (a.level === "bad" ? 0 : 1) - (b.level === "bad" ? 0 : 1));
}
export {sum, group, DRIFT_WARN};
