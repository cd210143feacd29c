// Makes elements, and updates a tree in place, so that focus, scroll positions and open menus outlive a refresh.

const SVG = "http://www.w3.org/2000/svg";

function make(node, properties, children) {
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) node[name] = value;
    else if (name === "css") for (const [key, each] of Object.entries(value)) node.style.setProperty(key, each);
    else if (name === "value" || name === "checked") { node[name] = value; node.setAttribute(name, value); }
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat(Infinity).filter(child => child != null && child !== false));
  return node;
}

// h("a", {href}, "text", node, [nodes]): an element of HTML; `css` sets properties of its style, `on…` its handlers.
export const h = (name, properties, ...children) => make(document.createElement(name), properties, children);
export const s = (name, properties, ...children) => make(document.createElementNS(SVG, name), properties, children);

const HANDLERS = ["onclick", "onchange", "oninput", "onsubmit", "onpointermove", "onpointerleave", "ondrop", "ondragover",
  "ondragleave", "onkeydown"];

// Makes the children of `node` those of `next`. Children of elements with `data-keep` are left as they are.
export function morph(node, next) {
  const wanted = [...next.childNodes];
  for (let i = 0; i < wanted.length; i++) {
    const have = node.childNodes[i], want = wanted[i];
    if (have === undefined) node.append(want);
    else if (!alike(have, want)) node.replaceChild(want, have);
    else if (have.nodeType === Node.ELEMENT_NODE) update(have, want);
    else if (have.data !== want.data) have.data = want.data;
  }
  while (node.childNodes.length > wanted.length) node.lastChild.remove();
}

function alike(a, b) {
  return a.nodeType === b.nodeType && a.nodeName === b.nodeName && (a.dataset?.key === b.dataset?.key);
}

function update(have, want) {
  for (const {name} of [...have.attributes]) if (!want.hasAttribute(name) && name !== "open") have.removeAttribute(name);
  for (const {name, value} of want.attributes) {
    if (have.getAttribute(name) === value) continue;
    // The content security policy allows no attribute `style`, but its properties.
    if (name === "style") have.style.cssText = want.style.cssText;
    else have.setAttribute(name, value);
  }
  for (const name of HANDLERS) if (have[name] !== want[name]) have[name] = want[name];
  if (have.dataset.keep === undefined) morph(have, want);
}

export const empty = (title, ...rest) => h("div", {class: "empty"}, h("h3", {}, title), ...rest);
export const badge = (level, text, title) => h("span", {class: `badge ${level}`, title}, text);
export const code = text => h("code", {}, text);
export const link = (href, ...children) => h("a", {href}, ...children);
// The title of a view of one thing, behind a link to the view of all.
export const titleUnder = (href, all, ...children) => h("h1", {}, link(href, all), h("span", {class: "faint"}, "/"), ...children);
export const card = (title, ...children) => h("section", {class: "card"}, title && h("h2", {}, title), ...children);

// A table: columns are [title, class]; rows are arrays of text, nodes or {sort, show}. An empty one says `none`.
export function table(columns, rows, none) {
  if (!rows.length) return h("p", {class: "faint"}, none);
  return h("div", {class: "scroll"}, h("table", {},
    h("thead", {}, h("tr", {}, columns.map(([title, kind]) => h("th", {class: kind, scope: "col"}, title)))),
    h("tbody", {}, rows.map(row => h("tr", {class: row.class, "data-key": row.key}, (row.cells ?? row).map((cell, i) =>
      h("td", {class: columns[i]?.[1], "data-label": columns[i]?.[0]}, cell ?? "–")))))));
}
