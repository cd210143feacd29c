// The actions on models, aliases, rollouts and jobs, each with its dialog.

import {ask, name} from "/page/api.js";
import {pauseOf} from "/page/cluster.js";
import {code, h} from "/page/dom.js";
import {decimal, targetText} from "/page/format.js";
import {choice, dialog, field, toast} from "/page/overlay.js";

const input = (id, value, rest = {}) => h("input", {name: id, value, ...rest});
const lines = text => text.split(/[\n,]/).map(each => each.trim()).filter(Boolean);
const DEPLOY_TIMEOUT_MS = 300_000;

// A button, if the token has one of the roles (separated by blanks).
export const button = (context, roles, text, onclick, kind = "small") => context.may(roles) ? h("button", {class: kind, type: "button", onclick}, text) : null;

// A place to drop a model file on, or to choose one.
export function dropZone(context, known = "") {
  if (!context.may("deploy")) return null;
  const chosen = file => file && deploy(context, file, known);
  const picker = h("input", {type: "file", hidden: true, onchange: event => { chosen(event.target.files[0]); event.target.value = ""; }});
  return h("div", {class: "drop", ondrop: event => { event.preventDefault(); event.currentTarget.classList.remove("over"); chosen(event.dataTransfer.files[0]); },
    ondragover: event => { event.preventDefault(); event.currentTarget.classList.add("over"); }, ondragleave: event => event.currentTarget.classList.remove("over")},
    "Drop a model file here to deploy it, or ", h("button", {type: "button", class: "plain", onclick: event => event.currentTarget.parentNode.querySelector("input").click()}, "choose one"), picker);
}

export function deploy(context, file, known) {
  const guess = known || file.name.replace(/\.[^.]*$/, "").replace(/[^A-Za-z0-9._-]+/g, "-");
  dialog({title: "Deploy a model", about: ["File ", code(file.name), `, ${decimal(file.size / 1024)} KiB. It is loaded and run once before it is stored.`],
    fields: [field("Model", input("model", guess, {required: true, pattern: "[A-Za-z0-9._\\-]+"})),
      field("Version", input("version", "", {inputmode: "numeric", pattern: "[0-9]*"}), "empty: the next one"),
      field("Alias", input("alias", "", {pattern: "[A-Za-z0-9._\\-]*"}), "that shall point at it at once; optional"),
      field("Manifest", h("textarea", {name: "manifest", placeholder: "{}"}), "JSON: fields that the file does not have; optional")],
    action: "Deploy", send: async form => {
      const parts = new FormData(), manifest = form.get("manifest").trim(), alias = form.get("alias");
      parts.append("model", file);
      if (manifest) parts.append("manifest", new Blob([manifest], {type: "application/json"}));
      const version = form.get("version") ? `:${form.get("version")}` : "";
      const said = await context.act(`/models/${name(form.get("model") + version)}${alias ? `?alias=${name(alias)}` : ""}`,
        {method: "PUT", body: parts, timeout: DEPLOY_TIMEOUT_MS});
      location.hash = `#/models/${name(said.model_id)}`;
      return `${said.model_id}:${said.version} is deployed; each worker tests it before it serves it.`;
    }});
}

// A form of the model's features, whose row is scored.
export async function tryOut(context, model, reference) {
  let manifest;
  // A name alone is answered by its champion, or by its newest version.
  const plain = /[:@]/.test(reference) ? reference : model.aliases?.champion ? `${reference}@champion` : `${reference}:${Math.max(...model.versions.map(each => each.version))}`;
  try { manifest = (await ask(`/models/${name(plain)}`)).manifest; } catch (error) { return toast(error.message, "bad"); }
  const order = manifest.preprocess?.order ?? null, features = manifest.features;
  const example = (manifest.warmup ?? [])[0];
  dialog({title: `Try ${reference}`, wide: true, result: true, action: "Predict",
    about: `Scored as any request: by name, with its checks, cache and errors. Empty fields are missing values.${order ? " The model has preprocessing." : ""}`,
    fields: features.map((feature, i) => featureField(feature, Array.isArray(example) ? example[i] : example?.[feature.name])),
    send: async form => {
      const row = {};
      for (const feature of features) row[feature.name] = valueOf(form.get(`f:${feature.name}`), feature);
      const started = performance.now(), said = await ask(`/predict/${name(reference)}`, {method: "POST", body: {input_data: row}});
      const took = performance.now() - started, {prediction, ...rest} = said;
      return [h("p", {}, h("span", {class: "big"}, typeof prediction === "number" ? decimal(prediction) : JSON.stringify(prediction)), " ",
        h("span", {class: "faint"}, `version ${said.version}, ${decimal(took)} ms`)), h("details", {}, h("summary", {}, "Response and request"),
        h("pre", {}, JSON.stringify(said, null, 1)), h("pre", {}, `POST /predict/${reference}\n${JSON.stringify({input_data: row})}`))];
    }});
}

function featureField(feature, example) {
  const id = `f:${feature.name}`, categories = feature.categories ?? feature.file_categories?.values;
  const hint = [feature.dtype, feature.min != null && `from ${feature.min}`, feature.max != null && `to ${feature.max}`, feature.required && "required"].filter(Boolean).join(", ");
  if (categories?.length) return field(feature.name, choice(id, [["", "(missing)"], ...categories.map(each => [String(each), String(each)])], example ?? categories[0]), hint);
  return field(feature.name, input(id, example ?? "", {autocomplete: "off"}), hint);
}

function valueOf(text, feature) {
  if (text === "" || text == null) return null;
  const categories = feature.categories ?? feature.file_categories?.values;
  const known = categories?.find(each => String(each) === text);
  if (known !== undefined) return known;
  if (feature.dtype === "bool" && ["true", "false"].includes(text)) return text === "true";
  if (["text", "string"].includes(feature.dtype)) return text;
  return text.trim() !== "" && Number.isFinite(Number(text)) ? Number(text) : text;
}

export function setAlias(context, model, alias = "", current = null) {
  const versions = model.versions.map(each => each.version).sort((a, b) => b - a);
  const shares = new Map(current?.split?.map(each => [each.version, each.weight]) ?? (current?.version ? [[current.version, 100]] : []));
  dialog({title: alias ? `Change ${model.model_id}@${alias}` : `New alias of ${model.model_id}`,
    about: "Give a version all requests, or several a share each. Requests with the same key get the same version.",
    fields: [field("Alias", input("alias", alias || "champion", {required: true, readonly: Boolean(alias), pattern: "[A-Za-z0-9._\\-]+"})),
      ...versions.map(version => field(`Share of version ${version}`, input(`v:${version}`, shares.get(version) ?? "", {inputmode: "decimal", placeholder: "0"}))),
      field("Shadow versions", input("shadow", (current?.shadow ?? []).join(", "), {placeholder: "none"}), "they score the requests once they are answered; separated by commas")],
    action: "Set alias", send: async form => {
      const split = versions.map(version => ({version, weight: Number(form.get(`v:${version}`) || 0)})).filter(each => each.weight > 0);
      if (!split.length) throw new Error("Give at least one version a share.");
      const shadow = lines(form.get("shadow")).map(Number), target = split.length === 1 ? {version: split[0].version} : {split};
      const revision = current?.revision != null && alias ? `?revision=${current.revision}` : "";
      const said = await context.act(`/models/${name(model.model_id)}/aliases/${name(form.get("alias"))}${revision}`, {method: "PUT", body: shadow.length ? {...target, shadow} : target});
      return `${model.model_id}@${form.get("alias")} points at ${targetText(said.target)}.`;
    }});
}

export function rollback(context, model, alias, current) {
  const earlier = current.history?.find(each => !each.removed);
  dialog({title: `Roll back ${model.model_id}@${alias}`, action: "Roll back", danger: true,
    about: `It points at ${targetText(current)} now, and will point at what it pointed at before its last change${earlier ? `: ${targetText(earlier)}` : ""}.`,
    send: async () => {
      const said = await context.act(`/models/${name(model.model_id)}/aliases/${name(alias)}/rollback?revision=${current.revision}`, {method: "POST"});
      return `${model.model_id}@${alias} points at ${targetText(said.target)} again.`;
    }});
}

export function promote(context, model, alias, current) {
  dialog({title: `Promote ${model.model_id}@${alias}`, action: "Promote", about: `Another alias shall point at ${targetText({...current, shadow: null})} too.`,
    fields: field("Alias to change", input("to", alias === "champion" ? "" : "champion", {required: true})),
    send: async form => {
      const said = await context.act(`/models/${name(model.model_id)}/aliases/${name(alias)}/promote?to=${name(form.get("to"))}`, {method: "POST"});
      return `${model.model_id}@${form.get("to")} points at ${targetText(said.target)}.`;
    }});
}

export function remove(context, path, what, after) {
  dialog({title: `Remove ${what}`, action: "Remove", danger: true, about: "Requests to it will fail. A version can be deployed again from its file, under the same number only with the same content.",
    send: async () => { await context.act(path, {method: "DELETE"}); if (after) location.hash = after; return `${what} is removed.`; }});
}

export function startRollout(context, model) {
  const versions = model.versions.map(each => each.version).sort((a, b) => b - a);
  const aliases = Object.keys(model.aliases ?? {});
  dialog({title: `Roll out a version of ${model.model_id}`, action: "Start",
    about: "The alias gives the new version more and more requests, and returns to what it was if a guard is breached.",
    fields: [field("New version", choice("to", versions, versions[0])),
      field("Alias", input("alias", aliases.includes("champion") || !aliases.length ? "champion" : aliases[0], {required: true})),
      field("Steps", h("textarea", {name: "steps"}, "5%:10m\n25%:30m\n100%"), "one per line: share, and how long it lasts"),
      field("Guards", h("textarea", {name: "guards"}, "errors < 1%\np99 < 2x"), "one per line; the rollout ends when one is breached"),
      field("Requests that a guard needs", input("least", 100, {inputmode: "numeric", pattern: "[0-9]+"}))],
    send: async form => {
      await context.act(`/rollouts/${name(model.model_id)}`, {method: "POST", timeout: 20_000, body: {to: Number(form.get("to")), alias: form.get("alias"),
        steps: lines(form.get("steps")), guards: lines(form.get("guards")), guard_requests_min: Number(form.get("least"))}});
      return `The rollout of ${model.model_id}:${form.get("to")} has started.`;
    }});
}

const STEERED = {pause: "stays in its step; guards still roll back", resume: "goes on", promote: "gives all requests to the new version now, and ends",
  abort: "returns the alias to what it was before, and ends"};
export function steer(context, modelId, action) {
  dialog({title: `${action[0].toUpperCase()}${action.slice(1)} the rollout of ${modelId}`, action: action[0].toUpperCase() + action.slice(1), danger: action === "abort",
    about: `The rollout ${STEERED[action]}.`,
    send: async () => { await context.act(`/rollouts/${name(modelId)}/${action}`, {method: "POST", timeout: 20_000}); return `The rollout of ${modelId}: ${action} is done.`; }});
}

// A button that pauses a model or a route, or resumes it.
export function pauseButton(context, kind, id) {
  const path = `/pauses/${kind}/${name(id)}`;
  return pauseOf(context.cluster, kind, id)
    ? button(context, "operate", "Resume", () => dialog({title: `Resume ${kind} ${id}`, action: "Resume", about: "Its records are taken up where they were left.",
      send: async () => { await context.act(path, {method: "DELETE"}); return `${id} is resumed.`; }}), "")
    : button(context, "operate", "Pause", () => dialog({title: `Pause ${kind} ${id}`, action: "Pause", danger: true, about: "Its records wait, and those after them in their partitions; none is lost. It stays paused until it is resumed, also after restarts.",
      fields: field("Reason", input("reason", "", {maxlength: 500}), "for others who look; optional"),
      send: async form => { await context.act(`${path}${form.get("reason") ? `?reason=${name(form.get("reason"))}` : ""}`, {method: "POST"}); return `${id} is paused.`; }}), "");
}

export function jobAction(context, job, action) {
  const about = action === "cancel" ? `${decimal(job.processed)} of ${decimal(job.input_count)} rows are scored; the rest is dropped.` : `${decimal(job.failed)} rows failed; they are scored again.`;
  dialog({title: `${action === "cancel" ? "Cancel" : "Retry"} job ${job.job_id}`, action: action === "cancel" ? "Cancel the job" : "Retry", danger: action === "cancel", about,
    send: async () => { await context.act(`/jobs/${name(job.job_id)}/${action}`, {method: "POST"}); return `Job ${job.job_id}: ${action} is accepted.`; }});
}

export function submitJob(context, models) {
  dialog({title: "Submit a job", action: "Submit", about: "Each line is a row: a JSON array or object. Large files: inferd jobs submit.",
    fields: [field("Model", input("model", models[0] ?? "", {required: true, list: "known-models"}), h("datalist", {id: "known-models"}, models.map(each => h("option", {value: each})))),
      field("Job id", input("job", "", {pattern: "[A-Za-z0-9._\\-]*"}), "empty: a new one"),
      field("File of rows (NDJSON)", h("input", {type: "file", name: "file"})), field("or rows", h("textarea", {name: "rows", placeholder: "[41, \"pro\", 2]"}))],
    send: async form => {
      const file = form.get("file"), body = file?.size ? await file.text() : form.get("rows");
      const id = form.get("job") ? `&job_id=${name(form.get("job"))}` : "";
      const said = await context.act(`/jobs?model=${name(form.get("model"))}${id}`, {method: "POST", body, type: "application/x-ndjson", timeout: DEPLOY_TIMEOUT_MS});
      return `Job ${said.job_id} is ${said.status}.`;
    }});
}

// Sends dead letters again; the first answer only says how many there are.
export function redrive(context, chosen) {
  const routes = context.cluster.routes.map(each => each.route);
  dialog({title: "Redrive dead letters", action: "Next", result: true,
    about: "They are sent again to the partition that they were read from, each once. Do it when what rejected them is mended: a record that is rejected again becomes a new dead letter.",
    fields: [field("Error code", input("code", chosen ?? ""), "empty: all"), field("Rejected in the last hours", input("hours", "24", {inputmode: "decimal", pattern: "[0-9.]*"}), "empty: all"),
      field("At most", input("limit", "1000", {inputmode: "numeric", pattern: "[0-9]+"})), routes.length > 0 && field("Of route", choice("route", [["", "the tenant's own topics"], ...routes]))],
    send: async (form, element) => {
      const query = new URLSearchParams({limit: form.get("limit") || "1000"}), hours = Number(form.get("hours"));
      if (form.get("code")) query.set("code", form.get("code"));
      if (hours > 0) query.set("since_s", Math.ceil(hours * 3600));
      if (form.get("route")) query.set("route", form.get("route"));
      const send = dry => context.act(`/dead-letters/redrive?${query}&dry_run=${dry}`, {method: "POST", timeout: 120_000}), found = await send(true);
      const told = report => [h("p", {}, `${decimal(report.redriven)} of ${decimal(report.read)} dead letters ${report.dry_run ? "would be sent again" : "were sent again"}${report.done ? "" : "; there are more"}.`),
        Object.entries(report.skipped).map(([why, n]) => h("p", {class: "faint"}, `skipped ${decimal(n)}: ${why}`))];
      const outcome = element.querySelector(".outcome"), go = h("button", {type: "button", class: "danger", onclick: async () => {
        go.disabled = true;
        try { outcome.replaceChildren(...told(await send(false)).flat()); } catch (error) { outcome.replaceChildren(h("p", {class: "problem"}, `${error.message} (${error.code})`)); }
      }}, `Send ${decimal(found.redriven)} again`);
      return [...told(found).flat(), found.redriven ? go : ""];
    }});
}
