// Dialogs and short messages, outside of the tree that is refreshed.

import {h} from "/page/dom.js";

const at = id => document.getElementById(id);

// Shows a short message; an error stays until it is closed.
export function toast(text, level = "good") {
  const shown = h("div", {class: `toast ${level}`}, h("span", {}, text),
    h("button", {class: "plain", "aria-label": "Close", onclick: () => shown.remove()}, "×"));
  at("toasts").append(shown);
  if (level === "good") setTimeout(() => shown.remove(), 6000);
}

// Opens a dialog with a form. `send(form data)` may return a text, which is shown; if it throws, the dialog stays open.
// With `result`, what `send` returns is shown inside the dialog, which stays open.
export function dialog({title, about, fields = [], action, danger = false, send, result = false, wide = false}) {
  const problem = h("p", {class: "problem", role: "alert", hidden: true}), outcome = h("div", {class: "outcome", "aria-live": "polite"});
  const go = h("button", {class: danger ? "danger" : "primary"}, action);
  const form = h("form", {method: "dialog"}, h("h2", {}, title), about && h("div", {class: "about"}, about), h("div", {class: "fields"}, fields), problem, outcome,
    h("div", {class: "actions"}, h("button", {type: "button", onclick: () => shown.close()}, result ? "Close" : "Cancel"), go));
  const shown = h("dialog", {class: wide ? "wide" : null, "aria-label": title}, form);
  form.onsubmit = async event => {
    event.preventDefault();
    go.disabled = true;
    problem.hidden = true;
    try {
      const said = await send(new FormData(form), form);
      if (result) outcome.replaceChildren(...[said].flat());
      else { shown.close(); if (said) toast(said); }
    } catch (error) {
      problem.textContent = error.code ? `${error.message} (${error.code})` : String(error);
      problem.hidden = false;
      outcome.replaceChildren();
    } finally { go.disabled = false; }
  };
  shown.addEventListener("close", () => shown.remove());
  shown.addEventListener("click", event => { if (event.target === shown) shown.close(); });
  at("overlay").append(shown);
  shown.showModal();
  return shown;
}

export const field = (label, input, hint) => h("label", {class: "field"}, h("span", {}, label), input, hint && h("small", {}, hint));
export const choice = (name, options, chosen) => h("select", {name}, options.map(each => {
  const [value, text] = Array.isArray(each) ? each : [each, each];
  return h("option", {value, selected: String(value) === String(chosen)}, text);
}));
