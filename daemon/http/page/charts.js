// Charts in SVG. Colours come from style.css by class, so that they follow light and dark.

import {h, s} from "/page/dom.js";
import {clock, decimal} from "/page/format.js";

const WIDTH = 600, LEFT = 46, RIGHT = 8, TOP = 8, BOTTOM = 20;

// Ticks of an axis from 0 to at least `most`: round numbers.
export function ticks(most, count = 3) {
  if (!(most > 0)) return [0, 1];
  const raw = most / count, power = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find(each => each * power >= raw) * power;
  return Array.from({length: Math.ceil(most / step - 1e-9) + 1}, (_, i) => i * step);
}

// Lines over time. `series`: [{name, points: [[time in ms, value or null]], kind}]; `kind` is a class from c0 to c7 or bad.
// A null interrupts its line. A pointer shows the values of its time.
export function lines({series, from, to, height = 150, show = decimal, label, area = false}) {
  const values = series.flatMap(each => each.points.map(([, value]) => value)).filter(value => value != null);
  const marks = ticks(Math.max(0, ...values)), most = marks.at(-1), bottom = height - BOTTOM;
  const x = at => LEFT + (WIDTH - LEFT - RIGHT) * (at - from) / (to - from || 1);
  const y = value => bottom - (bottom - TOP) * value / most;
  const grid = marks.map(mark => s("g", {class: "grid"},
    s("line", {x1: LEFT, x2: WIDTH - RIGHT, y1: y(mark), y2: y(mark)}),
    s("text", {x: LEFT - 6, y: y(mark) + 4, "text-anchor": "end"}, show(mark))));
  const times = timeTicks(from, to).map(at => s("g", {class: "grid"},
    s("line", {x1: x(at), x2: x(at), y1: bottom, y2: bottom + 4}),
    s("text", {x: x(at), y: height - 4, "text-anchor": "middle"}, clock(at))));
  const drawn = series.map((each, i) => paths(each, i, x, y, bottom, area && series.length === 1));
  const cursor = s("g", {class: "cursor", "data-keep": ""});
  const svg = s("svg", {viewBox: `0 0 ${WIDTH} ${height}`, class: "chart", role: "img", "aria-label": label}, grid, times, drawn, cursor);
  // A refresh keeps the element that is shown and takes only the handlers of the new one.
  svg.onpointermove = event => point(event, event.currentTarget, series, {x, y, from, to, bottom, show});
  svg.onpointerleave = event => event.currentTarget.querySelector(".cursor").replaceChildren();
  const legend = series.length < 2 ? null : h("div", {class: "legend"}, series.map((each, i) =>
    h("span", {}, h("i", {class: each.kind ?? `c${i % 8}`}), each.name)));
  if (!values.length) svg.append(s("text", {x: WIDTH / 2, y: height / 2, "text-anchor": "middle"}, "nothing in this time"));
  return h("figure", {}, svg, legend);
}

function paths(each, i, x, y, bottom, filled) {
  const kind = each.kind ?? `c${i % 8}`, parts = [];
  let run = [];
  for (const [at, value] of [...each.points, [0, null]]) {
    if (value != null) run.push(`${x(at).toFixed(1)},${y(value).toFixed(1)}`);
    else if (run.length) { parts.push(run); run = []; }
  }
  return parts.map(run => [
    filled && run.length > 1 && s("polygon", {class: `area ${kind}`,
      points: `${run[0].split(",")[0]},${bottom} ${run.join(" ")} ${run.at(-1).split(",")[0]},${bottom}`}),
    run.length > 1 ? s("polyline", {class: `line ${kind}`, points: run.join(" ")})
      : s("circle", {class: `dot ${kind}`, cx: run[0].split(",")[0], cy: run[0].split(",")[1], r: 2}),
  ]);
}

function timeTicks(from, to) {
  const step = [1, 5, 10, 15, 30, 60, 120, 360, 720, 1440].map(each => each * 60_000).find(each => (to - from) / each <= 6) ?? 864e5;
  const found = [];
  for (let at = Math.ceil(from / step) * step; at <= to; at += step) found.push(at);
  return found;
}

function point(event, svg, series, {x, y, from, to, bottom, show}) {
  const box = svg.getBoundingClientRect(), px = (event.clientX - box.left) * WIDTH / box.width;
  const at = from + (to - from) * (px - LEFT) / (WIDTH - LEFT - RIGHT);
  const near = series.map(each => each.points.reduce((best, one) =>
    one[1] != null && (!best || Math.abs(one[0] - at) < Math.abs(best[0] - at)) ? one : best, null));
  const first = near.find(Boolean);
  if (!first) return;
  const left = px > WIDTH * .6, anchor = left ? "end" : "start", tx = x(first[0]) + (left ? -8 : 8);
  svg.querySelector(".cursor").replaceChildren(
    s("line", {x1: x(first[0]), x2: x(first[0]), y1: TOP, y2: bottom}),
    ...near.flatMap((one, i) => one ? [s("circle", {class: series[i].kind ?? `c${i % 8}`, cx: x(one[0]), cy: y(one[1]), r: 3})] : []),
    s("text", {x: tx, y: TOP + 8, "text-anchor": anchor}, new Date(first[0]).toLocaleTimeString("en-GB")),
    ...near.flatMap((one, i) => one ? [s("text", {x: tx, y: TOP + 22 + 13 * i, "text-anchor": anchor},
      `${series[i].name} ${show(one[1])}`)] : []));
}

// A small line without axes, for tables and tiles.
export function spark(values, kind = "c0") {
  const known = values.map(value => value ?? 0), most = Math.max(1e-9, ...known), n = Math.max(1, known.length - 1);
  const points = known.map((value, i) => `${(100 * i / n).toFixed(1)},${(23 - 21 * value / most).toFixed(1)}`).join(" ");
  return s("svg", {viewBox: "0 0 100 24", class: "spark", preserveAspectRatio: "none", "aria-hidden": "true"},
    known.length > 1 && s("polyline", {class: `line ${kind}`, points}));
}

// A horizontal bar: `share` from 0 to 1, with a text beside it.
export const bar = (share, text, kind = "c0") => h("span", {class: "bar", title: text},
  h("span", {class: "track"}, h("span", {class: `fill ${kind}`, css: {width: `${(100 * Math.min(1, Math.max(0, share || 0))).toFixed(1)}%`}})),
  h("span", {class: "figure"}, text));

// Two histograms over the same bins, as shares: `expected` (the baseline) behind `actual`. `names`: of the bins.
export function histogram({expected, actual, names, height = 150, label}) {
  const share = counts => { const sum = counts.reduce((a, b) => a + b, 0); return counts.map(count => sum ? count / sum : 0); };
  const was = share(expected ?? []), is = share(actual ?? []), n = Math.max(was.length, is.length, 1);
  const most = Math.max(.01, ...was, ...is), width = WIDTH / n, bottom = height - 18;
  const column = (value, i, kind, part) => s("rect", {class: kind, x: (i * width + width * (1 - part) / 2).toFixed(2), width: (width * part).toFixed(2),
    y: (bottom - (bottom - 4) * value / most).toFixed(2), height: ((bottom - 4) * value / most).toFixed(2)});
  const title = i => s("title", {}, `${names?.[i] ?? i}: ${decimal((is[i] ?? 0) * 100)} %` + (was.length ? `, baseline ${decimal((was[i] ?? 0) * 100)} %` : ""));
  return h("figure", {}, s("svg", {viewBox: `0 0 ${WIDTH} ${height}`, class: "chart histogram", role: "img", "aria-label": label},
    s("line", {class: "base", x1: 0, x2: WIDTH, y1: bottom, y2: bottom}),
    Array.from({length: n}, (_, i) => s("g", {}, title(i), was.length ? column(was[i] ?? 0, i, "was", .9) : null,
      column(is[i] ?? 0, i, "is", was.length ? .45 : .9), s("rect", {class: "hit", x: i * width, width, y: 0, height: bottom}))),
    s("text", {x: 1, y: height - 3}, names?.[0] ?? ""), s("text", {x: WIDTH - 1, y: height - 3, "text-anchor": "end"}, names?.at(-1) ?? "")));
}

// One cell for each value, darker for larger ones: [{name, value, text}], `limits` [small, large].
export const heat = (cells, [small, large]) => h("div", {class: "heat"}, cells.map(({name, value, text, href}) =>
  h(href ? "a" : "span", {href, class: value >= large ? "hot" : value >= small ? "warm" : "cool", title: `${name}: ${text}`},
    h("b", {}, name), h("span", {}, text))));
