// Numbers, times and names for people.

export const NONE = "–";
export const whole = n => n == null ? NONE : Math.round(n).toLocaleString("en");
export const decimal = n => n == null ? NONE : n !== 0 && Math.abs(n) < 1 ? n.toLocaleString("en", {maximumSignificantDigits: 2})
  : n.toLocaleString("en", {maximumFractionDigits: Math.abs(n) < 10 ? 2 : Math.abs(n) < 100 ? 1 : 0});
export const percent = n => n == null ? NONE : decimal(n * 100) + " %";
export const ms = n => n == null ? NONE : n < 1000 ? decimal(n) + " ms" : decimal(n / 1000) + " s";

export function compact(n) {
  if (n == null) return NONE;
  for (const [unit, name] of [[1e9, "G"], [1e6, "M"], [1e3, "k"]]) if (Math.abs(n) >= unit) return decimal(n / unit) + " " + name;
  return decimal(n);
}

export function bytes(n) {
  if (n == null) return NONE;
  for (const [unit, name] of [[2 ** 30, "GiB"], [2 ** 20, "MiB"], [2 ** 10, "KiB"]]) if (n >= unit) return decimal(n / unit) + " " + name;
  return n + " B";
}

export function span(seconds) {
  if (seconds == null) return NONE;
  const s = Math.max(0, Math.floor(seconds)), units = [[86400, "d"], [3600, "h"], [60, "min"], [1, "s"]];
  const first = units.findIndex(([unit]) => s >= unit);
  if (first < 0) return "0 s";
  return units.slice(first, first + 2).map(([unit, name], i) => Math.floor((i ? s % units[first][0] : s) / unit) + " " + name)
    .filter((text, i) => !i || !text.startsWith("0 ")).join(" ");
}

// `at`: Unix milliseconds, or an ISO 8601 text.
export const millis = at => typeof at === "number" ? at : at ? Date.parse(at) : null;
export const ago = (at, now = Date.now()) => millis(at) == null ? NONE : span((now - millis(at)) / 1000) + " ago";
export const clock = at => new Date(at).toLocaleTimeString("en-GB", {hour: "2-digit", minute: "2-digit"});
export const moment = at => millis(at) == null ? NONE
  : new Date(millis(at)).toLocaleString("en-GB", {day: "2-digit", month: "short", hour: "2-digit", minute: "2-digit", second: "2-digit"});
export const digest = text => (text ?? "").replace("sha256:", "").slice(0, 12);
export const plural = (n, one, many = one + "s") => `${whole(n)} ${n === 1 ? one : many}`;
export const counts = of => Object.entries(of ?? {}).filter(([, n]) => n).sort((a, b) => b[1] - a[1])
  .map(([name, n]) => `${name} ${whole(n)}`).join(", ") || NONE;
export const targetText = target => !target ? NONE : target.removed ? "removed"
  : (target.version != null ? String(target.version)
    : (target.split ?? []).map(share => `${share.version} (${percent(share.weight / total(target.split))})`).join(", "))
  + (target.shadow?.length ? `, shadow ${target.shadow.join(", ")}` : "");
const total = split => split.reduce((sum, share) => sum + share.weight, 0);
