// Topics: lag by partition.

import {bar} from "/page/charts.js";
import {ask, name} from "/page/api.js";
import {card, empty, h, link, table} from "/page/dom.js";
import {compact, decimal, plural, whole} from "/page/format.js";
import {reach, timeChart} from "/page/parts.js";

export const title = () => "Topics";
export const every = 30_000;

// Only who may read sees which topics nobody consumes, such as the results, and what is in them.
export async function load(_url, context) {
  return context.may("read") ? ask("/topics").catch(error => ({topics: [], problem: error.message})) : {topics: []};
}

export function render(_url, context, {topics, problem}) {
  const {cluster, speeds} = context, most = Math.max(1, ...cluster.partitions.map(each => each.lag ?? 0));
  if (!cluster.topics.length) return [h("h1", {}, "Topics"), card(null, empty("No partition is assigned", h("p", {}, "The workers read no topic yet: the view of the workers says what they wait for.")))];
  const records = topic => context.may("read") ? link(`#/topics/${name(topic)}`, topic) : topic, consumed = new Set(cluster.topics.map(each => each.topic));
  const missing = cluster.known.reduce((total, status) => total + status.records_missing, 0);
  return [h("h1", {}, "Topics and lag", h("span", {class: "faint"}, `${compact(context.whole.lag)} records behind`)),
    missing > 0 && h("p", {class: "problem"}, `Retention deleted ${plural(missing, "request")} before ${missing === 1 ? "it was" : "they were"} read.`),
    card(["Lag over time", reach(context)], timeChart(context, "Lag over time", [["lag", each => each.lag, "c4"]], compact)),
    [...cluster.topics].sort((a, b) => b.lag - a.lag || a.topic.localeCompare(b.topic)).map(topic => card([records(topic.topic), h("span", {class: "faint"},
        `${plural(topic.partitions.length, "partition")}, ${decimal(speeds.of(`topic ${topic.topic}`))} records/s, lag ${compact(topic.lag)}`)],
      h("details", {open: topic.lag > 0 || topic.topic.endsWith(".requests")}, h("summary", {}, "Partitions"),
        table([["partition"], ["lag"], ["position", "number more"], ["committed", "number more"], ["end", "number more"], ["queued", "number more"], ["in flight", "number more"], ["worker"]],
          topic.partitions.map(each => ({key: `${topic.topic}-${each.partition}`, cells: [String(each.partition), bar((each.lag ?? 0) / most, whole(each.lag), each.lag > 10_000 ? "bad" : each.lag > 1000 ? "warn" : "c0"), whole(each.position), whole(each.committed), whole(each.end),
            whole(each.queued), whole(each.in_flight), each.worker]})), "")))),
    problem && h("p", {class: "problem"}, problem),
    topics.some(each => !consumed.has(each.topic)) && card(["Other topics", h("span", {class: "faint"}, "which workers write, or read as a whole")],
      table([["topic", "wrap"], ["partitions", "number"]], topics.filter(each => !consumed.has(each.topic)).map(each => ({key: each.topic, cells: [records(each.topic), whole(each.partitions)]})), ""))];
}
