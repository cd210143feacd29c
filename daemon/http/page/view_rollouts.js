// The newest rollout of each model.

import {ask} from "/page/api.js";
import {card, empty, h, link} from "/page/dom.js";
import {rolloutCard, ROLLOUT_ENDED} from "/page/parts.js";

export const title = () => "Rollouts";
export const every = 4000;
export const load = () => ask("/rollouts", {timeout: 20_000});

export function render(_url, context, {rollouts}) {
  const found = Object.entries(rollouts).filter(([, each]) => each.rollout);
  found.sort(([, a], [, b]) => ROLLOUT_ENDED.has(a.rollout.phase) - ROLLOUT_ENDED.has(b.rollout.phase) || b.rollout.started_at - a.rollout.started_at);
  return [h("h1", {}, "Rollouts"), found.length ? found.map(([modelId, status]) => rolloutCard(context, modelId, status))
    : card(null, empty("No model has had a rollout", h("p", {}, "A rollout gives a new version requests step by step, and takes them back if a guard is breached. Start one on the page of a ",
      link("#/models", "model"), " with two versions, or:"), h("pre", {}, "inferd rollouts start churn --to 2 --step 5%:10m --step 25%:30m --step 100% --guard 'errors < 1%'")))];
}
