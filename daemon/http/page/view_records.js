// The records of one partition of a topic: the newest, or from an offset.

import {ask, name} from "/page/api.js";
import {badge, card, empty, h, table, titleUnder} from "/page/dom.js";
import {ago, bytes, moment, whole} from "/page/format.js";

const LISTED = 50, SUMMARY = 160;
export const title = url => url.parts[1];
export const every = 10_000;

export function load(url) {
  const from = url.query.get("from"), partition = url.query.get("partition") ?? 0;
  return ask(`/topics/${name(url.parts[1])}/records?partition=${name(partition)}&limit=${LISTED}${from == null ? "" : `&from=${name(from)}`}`, {timeout: 25_000});
}

const at = (topic, partition, from) => `#/topics/${name(topic)}?partition=${partition}${from == null ? "" : `&from=${from}`}`;

export function render(url, context, page) {
  const {topic, partition, partitions, first, end, records, next} = page, go = from => { location.hash = at(topic, partition, from); };
  const start = records[0]?.offset ?? Math.min(Number(url.query.get("from") ?? end), end);
  const turn = (text, from, possible) => h("button", {type: "button", disabled: !possible, onclick: () => go(from)}, text);
  return [titleUnder("#/topics", "Topics", topic, h("span", {class: "faint"}, end > first ? `partition ${partition} has offsets ${whole(first)} to ${whole(end - 1)}` : `partition ${partition} is empty`)),
    card(null,
      h("form", {class: "records", onsubmit: event => { event.preventDefault(); const from = event.target.from.value.trim(); location.hash = at(topic, event.target.partition.value, from === "" ? null : from); }},
        h("label", {}, "Partition ", h("select", {name: "partition", onchange: event => { location.hash = at(topic, event.target.value); }}, [...Array(partitions).keys()].map(n => h("option", {value: n, selected: n === partition}, n)))),
        h("label", {}, "From offset ", h("input", {name: "from", inputmode: "numeric", pattern: "[0-9]{1,18}", placeholder: "newest", size: 12})), h("button", {type: "submit"}, "Show"), h("span", {class: "spacer"}),
        h("span", {class: "buttons"}, turn("Oldest", first, start > first), turn("Older", Math.max(first, start - LISTED), start > first), turn("Newer", next, next < end), turn("Newest", null, next < end || url.query.has("from")))),
      records.length ? table([["offset"], ["time"], ["key", "wrap"], ["value", "wrap"], ["size", "number"]], [...records].reverse().map(each => ({key: `${topic} ${partition} ${each.offset}`, cells: [
        String(each.offset), h("span", {title: moment(each.timestamp)}, ago(each.timestamp)), each.key, value(each), bytes(each.value_bytes)]})), "")
        : empty("No records here", h("p", {}, end > first ? "The offsets from here on have no record: they are beyond the end, were compacted, or belong to transactions that were aborted." : "Nothing was written to this partition, or it is no longer kept.")))];
}

function value(record) {
  const decoded = record.value_format === "json" || record.value_format === "msgpack", text = decoded ? JSON.stringify(record.value ?? null) : null;
  const short = decoded ? (text.length > SUMMARY ? `${text.slice(0, SUMMARY)}…` : text) : record.value_format === "empty" ? "(empty)" : [badge("warn", record.value_format), ` ${record.problem}`];
  return h("details", {}, h("summary", {}, short), h("dl", {class: "facts"}, fact("written", moment(record.timestamp)), fact("format", record.value_format), (record.headers ?? []).map(([key, each]) => fact(`header ${key}`, each ?? "(null)"))),
    decoded ? h("pre", {}, JSON.stringify(record.value ?? null, null, 1)) : record.value_base64 && h("pre", {}, `${record.value_base64}${record.value_bytes > 1024 ? "…" : ""}`));
}

const fact = (title, text) => [h("dt", {}, title), h("dd", {}, text)];
