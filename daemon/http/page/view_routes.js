// Routes: topics of others that are scored in their own format.

import {ask} from "/page/api.js";
import {pauseButton} from "/page/actions.js";
import {badge, card, code, empty, h, table} from "/page/dom.js";
import {compact, counts, decimal} from "/page/format.js";
import {paused} from "/page/parts.js";

const LEVELS = {running: "good", waiting: "warn", refused: "bad"};
export const title = () => "Routes";
export const every = 10_000;
export const load = () => ask("/routes");

export function render(_url, context, {routes}) {
  const {cluster, speeds} = context;
  if (!routes.length && !cluster.routes.length) return [h("h1", {}, "Routes"), card(null, empty("No routes", h("p", {}, "A route scores a topic of others in its own format, and writes a topic of theirs:"),
    h("pre", {}, "inferd routes create orders --source orders.v1 --sink orders.scored --model churn@champion")))];
  const states = cluster.routes, none = routes.filter(each => !states.some(state => state.route === each.route.name));
  return [h("h1", {}, "Routes"), ...states.map(each => card([each.route, badge(LEVELS[each.state], each.state), paused(cluster, "route", each.route), pauseButton(context, "route", each.route), h("span", {class: "faint"}, `${each.format}, lag ${compact(each.lag)}`)],
      each.reason && h("p", {class: each.state === "running" ? "faint" : "problem"}, each.reason),
      h("p", {}, code(each.sources.join(", ")), " → ", code(each.model), " → ", code(each.sink)),
      table([["records/s", "number"], ["results/s", "number"], ["records", "number"], ["results", "number"], ["dead letters", "number"], ["pending", "number"], ["errors", "wrap"]],
        [[decimal(speeds.of(`route ${each.tenant} ${each.route}`)), decimal(speeds.of(`routed ${each.tenant} ${each.route}`)), compact(each.records_in), compact(each.results), compact(each.dead_letters), compact(each.pending), counts(each.errors)]], ""),
      definition(routes.find(one => one.route.name === each.route)))),
    none.map(each => card([each.route.name, badge("warn", "not read yet")], definition(each)))];
}
const definition = found => found && h("details", {}, h("summary", {}, "Definition"), h("pre", {}, JSON.stringify(found.route, null, 1)));
