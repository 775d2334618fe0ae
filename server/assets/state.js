// State: what is at a key, at the newest stored epoch; the first entries; and the open windows of a key.

import { get, segment } from "./api.js";
import { h, table, text } from "./dom.js";
import { count, inline, pretty, time } from "./format.js";

const PAGE = 50;

// Types as the program has them, without their paths.
const plain = (type) => type.replace(/\b(?:[A-Za-z_][A-Za-z0-9_]*::)+/g, "");

export function stateView() {
  const empty = h("p", { class: "empty", hidden: true }, "No state is served. The program names what may be read: ", h("code", {}, "Server::serve"), ".");
  const problem = h("p", { class: "banner bad", role: "alert", hidden: true });
  const what = h("select", { id: "state-what", onchange: () => choose() });
  const key = h("input", { id: "state-key", autocomplete: "off", spellcheck: "false" });
  const types = h("p", { class: "hint" });
  const answer = h("div", { class: "answer", role: "status" });
  const entries = table("Entries", [
    { title: "Key", value: (one) => h("code", {}, inline(one.key)) },
    { title: "Value", value: (one) => h("code", {}, inline(one.value)) },
  ]);
  const more = h("button", { type: "button", onclick: () => list(true) }, "More");
  const prefix = h("input", { id: "state-prefix", autocomplete: "off", spellcheck: "false" });
  const hint = h("p", { class: "hint", role: "status" });
  const listed = h("section", { class: "panel" },
    h("div", { class: "panel-head" }, h("h2", {}, "Entries"),
      h("form", { class: "field row", onsubmit: (event) => { event.preventDefault(); list(false); } },
        h("label", { for: "state-prefix" }, "Keys that begin with"), h("span", { class: "joined" }, prefix, h("button", { type: "submit" }, "List")))),
    hint, entries.element, h("p", { class: "buttons" }, more));
  const filled = h("div", { class: "stack" },
    h("section", { class: "panel" }, h("h2", {}, "Look up"),
      h("form", { class: "tools", onsubmit: (event) => { event.preventDefault(); lookUp(); } },
        h("p", { class: "field" }, h("label", { for: "state-what" }, "State"), what),
        h("p", { class: "field grow" }, h("label", { for: "state-key" }, "Key"), h("span", { class: "joined" }, key, h("button", { type: "submit", class: "primary" }, "Look up")))),
      types, answer),
    listed);
  const element = h("div", { class: "view" }, h("h1", {}, "State"), problem, empty, filled);
  let served = [];
  let shown = [];

  const chosen = () => served[Number(what.value)];
  const base = ({ flow, state }) => `/v1/flows/${segment(flow)}/states/${segment(state)}/entries`;
  const of = ({ operator }) => (operator ? { operator } : {});
  const query = (values) => { const written = new URLSearchParams(values).toString(); return written ? `?${written}` : ""; };
  // With versions of a flow, an answer says of which one it is.
  const moment = (at) => `${at.flow}, version ${at.version}, epoch ${count(at.epoch)}, event time ${time(at.watermark_ms)}`;

  async function tried(work) {
    problem.hidden = true;
    try {
      return await work();
    } catch (error) {
      problem.hidden = false;
      text(problem, error.message);
      return null;
    }
  }

  async function load() {
    const found = await tried(() => get("/v1/flows"));
    if (!found) return;
    served = found.flows.flatMap(({ flow, states, windows }) => [
      ...states.map((one) => ({ flow, ...one })),
      ...windows.map((one) => ({ flow, windows: true, ...one })),
    ]);
    empty.hidden = served.length > 0;
    filled.hidden = !served.length;
    const before = what.value;
    what.replaceChildren(...served.map((one, at) => h("option", { value: at }, one.windows ? `${one.flow}: windows of ${one.operator}` : `${one.flow}: ${one.state}${one.operator ? ` of ${one.operator}` : ""}`)));
    if (before && served[before]) what.value = before;
    if (served.length) await choose();
  }

  async function choose() {
    const one = chosen();
    text(types, `Keys are of type ${plain(one.key)}, values of type ${plain(one.value)}. A key is JSON; what is not is taken as text.`);
    answer.replaceChildren();
    listed.hidden = Boolean(one.windows);
    if (!one.windows) await list(false);
  }

  async function lookUp() {
    const one = chosen();
    answer.replaceChildren();
    if (one.windows) {
      const found = await tried(() => get(`/v1/flows/${segment(one.flow)}/windows/${segment(one.operator)}/${segment(key.value)}`));
      if (!found) return;
      const slices = table("Open windows", [
        { title: "From (UTC)", value: (slice) => time(slice.start_ms) },
        { title: "So far", value: (slice) => h("code", {}, inline(slice.value)) },
      ]);
      slices.update(found.windows, (slice) => slice.start_ms);
      answer.replaceChildren(h("p", { class: "hint" }, found.windows.length ? moment(found.at) : `No window of this key is open: ${moment(found.at)}.`), slices.element);
      return;
    }
    const found = await tried(async () => {
      try {
        return await get(`${base(one)}/${segment(key.value)}${query(of(one))}`);
      } catch (error) {
        if (error.status !== 404) throw error;
        return { nothing: error.message };
      }
    });
    if (!found) return;
    if (found.nothing) answer.replaceChildren(h("p", { class: "nothing" }, found.nothing));
    else answer.replaceChildren(h("pre", { class: "value" }, pretty(found.value)), h("p", { class: "hint" }, `At ${inline(found.key)}: ${moment(found.at)}`));
  }

  async function list(goOn) {
    const one = chosen();
    const last = goOn ? shown[shown.length - 1] : null;
    const asked = { ...of(one), limit: PAGE, ...(prefix.value ? { prefix: prefix.value } : {}), ...(last ? { after: inline(last.key) } : {}) };
    const found = await tried(() => get(`${base(one)}${query(asked)}`));
    if (!found || chosen() !== one) return;
    shown = goOn ? [...shown, ...found.entries] : found.entries;
    entries.update(shown, (entry) => inline(entry.key));
    more.hidden = !found.has_more;
    text(hint, shown.length ? `${count(shown.length)} ${found.has_more ? "of more entries" : "entries"}; ${moment(found.at)}` : "There are none.");
  }

  return { element, enter: load, update() {} };
}
