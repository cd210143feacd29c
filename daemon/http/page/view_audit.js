// Who changed what.

import {ask} from "/page/api.js";
import {card, code, empty, h, table} from "/page/dom.js";
import {ago, digest, moment, plural} from "/page/format.js";

const DAYS = 30, LIMIT = 500;
let filter = "";
export const title = () => "Audit";
export const every = 10_000;
export const load = () => ask(`/audit?since_s=${DAYS * 86_400}&limit=${LIMIT}`, {timeout: 20_000});

const details = of => Object.entries(of ?? {}).map(([key, value]) => `${key} ${key === "sha256" ? digest(value) : value}`).join(", ") || null;

export function render(_url, context, {records}) {
  if (!records.length) return [h("h1", {}, "Audit"), card(null, empty(`Nothing was changed in the last ${DAYS} days`, h("p", {}, "Deploys, aliases, rollouts, removals, cancelled jobs, redrives and the like are listed here: who, what, when and from where.")))];
  const found = records.filter(each => `${each.by} ${each.action} ${each.subject} ${each.origin}`.toLowerCase().includes(filter.toLowerCase()));
  return [h("h1", {}, "Audit", h("span", {class: "faint"}, `${plural(records.length, "change")} of the last ${DAYS} days`), h("span", {class: "spacer"}),
      h("input", {type: "search", placeholder: "Filter (/)", "aria-label": "Filter changes", oninput: event => { filter = event.target.value; context.redraw(); }})),
    card(null, table([["when"], ["who"], ["action"], ["subject", "wrap"], ["from", "wrap"], ["details", "wrap"]], found.map(each => [h("span", {title: moment(each.at)}, ago(each.at)), each.by ?? "–", code(each.action), each.subject, each.origin ?? "–",
      details(each.details)]), "no change matches the filter"))];
}
