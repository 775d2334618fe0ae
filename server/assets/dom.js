// Elements, made and changed. Texts are always set as texts: nothing that comes from a job is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

export const h = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);

export const svg = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

export const byId = (id) => document.getElementById(id);

// Changes a text only if it is another one: what is selected stays selected, and nothing is read out again.
export function text(element, value) {
  const wanted = String(value);
  if (element.textContent !== wanted) element.textContent = wanted;
}

export function attribute(element, name, value) {
  if (value === null || value === undefined || value === false) element.removeAttribute(name);
  else if (element.getAttribute(name) !== String(value)) element.setAttribute(name, value);
}

// Keeps one child a key, in order. `make` makes one, `change` brings it up to date: focus and scrolling survive.
export function keyed(parent, items, keyOf, make, change) {
  const known = new Map([...parent.children].map((child) => [child.dataset.key, child]));
  let place = parent.firstElementChild;
  for (const item of items) {
    const key = String(keyOf(item));
    let child = known.get(key);
    if (child) known.delete(key);
    else {
      child = make(item);
      child.dataset.key = key;
    }
    if (child === place) place = place.nextElementSibling;
    else parent.insertBefore(child, place);
    change?.(child, item);
  }
  for (const child of known.values()) child.remove();
}

// A table that is kept up to date: columns are `{ title, value, number }`; a value is a text or an element.
export function table(caption, columns) {
  const head = h("tr", {}, columns.map((column) => h("th", { scope: "col", class: column.number && "number" }, column.title)));
  const body = h("tbody");
  const element = h("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": caption },
    h("table", {}, h("caption", { class: "hidden" }, caption), h("thead", {}, head), body));
  const cell = (column, first) => h(first ? "th" : "td", { scope: first && "row", class: column.number && "number" });
  const update = (items, keyOf) => keyed(body, items, keyOf,
    () => h("tr", {}, columns.map((column, at) => cell(column, at === 0))),
    (row, item) => columns.forEach((column, at) => {
      const value = column.value(item);
      const place = row.children[at];
      if (value instanceof Node) place.replaceChildren(value);
      else text(place, value);
    }));
  return { element, update };
}

let hiding;

// Says something for some seconds, also to who listens.
export function toast(message, kind = "good") {
  const element = byId("toast");
  element.hidden = false;
  element.dataset.kind = kind;
  element.textContent = message;
  clearTimeout(hiding);
  hiding = setTimeout(() => { element.hidden = true; }, kind === "bad" ? 12000 : 6000);
}

// Asks in a modal dialog. Answers what was typed in, or null. `act` may do what is asked for, while the dialog shows that it goes on.
export function ask({ title, body, field, confirm, danger }) {
  const dialog = byId("dialog");
  const input = field && h("input", { id: "dialog-field", type: field.type ?? "text", autocomplete: "off", placeholder: field.placeholder });
  const answer = new Promise((resolve) => {
    const done = (value) => { dialog.close(); resolve(value); };
    dialog.oncancel = () => resolve(null);
    dialog.replaceChildren(
      h("form", { method: "dialog", onsubmit: (event) => { event.preventDefault(); done(input ? input.value : ""); } },
        h("h2", { id: "dialog-title" }, title),
        body,
        field && h("p", { class: "field" }, h("label", { for: "dialog-field" }, field.label), input),
        h("p", { class: "buttons" },
          h("button", { type: "button", onclick: () => done(null) }, "Cancel"),
          h("button", { type: "submit", class: danger ? "danger" : "primary" }, confirm))));
  });
  dialog.showModal();
  (input ?? dialog.querySelector("button[type=submit]")).focus();
  return answer;
}
