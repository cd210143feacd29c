// All versions of all models.

import {name} from "/page/api.js";
import {button, dropZone, tryOut} from "/page/actions.js";
import {card, empty, h, link, table} from "/page/dom.js";
import {compact, decimal, digest, whole} from "/page/format.js";
import {firstSteps, modelState, paused} from "/page/parts.js";

const SHOWN_MAX = 200;
let filter = "";
export const title = () => "Models";

export function render(_url, context) {
  const {cluster, speeds} = context;
  if (!cluster.models.length) return [h("h1", {}, "Models"), card(null, empty("No model is deployed yet", dropZone(context), firstSteps()))];
  const found = cluster.models.filter(each => `${each.model_id}:${each.version} ${each.state} ${each.aliases.join(" ")}`.toLowerCase().includes(filter.toLowerCase()));
  const failed = cluster.models.filter(each => each.state === "failed").length;
  return [h("h1", {}, "Models", h("span", {class: "faint"}, `${whole(new Set(cluster.models.map(each => each.model_id)).size)} models, ${whole(cluster.models.length)} versions${failed ? `, ${whole(failed)} failed` : ""}`),
      h("span", {class: "spacer"}), h("input", {type: "search", placeholder: "Filter (/)", "aria-label": "Filter models", oninput: event => { filter = event.target.value; context.redraw(); }})),
    dropZone(context),
    card(null, table([["version"], ["state"], ["aliases", "wrap"], ["requests/s", "number"], ["requests", "number"], ["rows", "number extra"], ["µs per row", "number extra"], ["digest", "extra"], ["reason", "wrap"], ["", "do"]],
      [...found].sort((a, b) => (b.state === "failed") - (a.state === "failed")).slice(0, SHOWN_MAX).map(each => ({key: `${each.model_id}:${each.version}`, cells: [link(`#/models/${name(each.model_id)}`, `${each.model_id}:${each.version}`), [modelState(each), " ", paused(cluster, "model", each.model_id)], each.aliases.join(", ") || "–",
        decimal(speeds.of(`model ${each.tenant} ${each.model_id}:${each.version}`)), compact(each.requests), compact(each.rows), each.rows ? decimal(each.predict_s * 1e6 / each.rows) : "–",
        h("code", {title: each.digest}, digest(each.digest)), each.reason, button(context, "predict", "Try", () => tryOut(context, each, `${each.model_id}:${each.version}`))]})), "no version matches the filter"),
      found.length > SHOWN_MAX && h("p", {class: "faint"}, `the first ${SHOWN_MAX} of ${whole(found.length)}: filter for others`))];
}
