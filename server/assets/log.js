// The log: topics, partitions, and the records from an offset or a time on.

import { get, segment } from "./api.js";
import { attribute, byId, h, keyed, table, text } from "./dom.js";
import { bytes, compact, count, inline, plural, pretty, time } from "./format.js";

const PAGE = 50;

// A key or value: JSON on one line, to be opened; text; or digits.
function written(value, opens) {
  if (value === null) return h("em", { class: "quiet" }, "none");
  if (value.as !== "json") return h("code", { class: value.as }, value.as === "hex" ? `0x${value.value}` : value.value);
  const line = inline(value.value);
  if (!opens || typeof value.value !== "object" || value.value === null || line.length < 60) return h("code", {}, line);
  return h("details", {}, h("summary", {}, h("code", {}, line)), h("pre", {}, pretty(value.value)));
}

export function logView() {
  const topics = h("ul", { class: "choices" });
  const problem = h("p", { class: "banner bad", role: "alert", hidden: true });
  const partition = h("select", { id: "log-partition", onchange: () => { at.partition = Number(partition.value); go({ newest: true }); } });
  const offset = h("input", { id: "log-offset", inputmode: "numeric", pattern: "[0-9]*", autocomplete: "off", placeholder: "0" });
  const when = h("input", { id: "log-time", type: "datetime-local", step: "1" });
  const extent = h("p", { class: "hint" });
  const shown = h("p", { class: "hint", role: "status" });
  const records = table("Records", [
    { title: "Offset", number: true, value: (one) => count(one.offset) },
    { title: "Time (UTC)", value: (one) => time(one.timestamp_ms) },
    { title: "Key", value: (one) => written(one.key) },
    { title: "Value", value: (one) => h("div", {}, written(one.value, true), one.headers.map((header) => h("p", { class: "quiet" }, `${header.name}: `, written(header.value)))) },
  ]);
  const button = (label, to) => h("button", { type: "button", onclick: () => go(to()) }, label);
  const older = button("Older", () => ({ from: Math.max(at.earliest, (at.first ?? at.end) - PAGE) }));
  const newer = button("Newer", () => ({ from: at.next }));
  const place = h("section", { class: "panel", hidden: true, "aria-label": "Records" },
    h("div", { class: "panel-head" }, h("h2", { id: "log-topic" }), extent),
    h("div", { class: "tools" },
      h("p", { class: "field" }, h("label", { for: "log-partition" }, "Partition"), partition),
      h("form", { class: "field", onsubmit: (event) => { event.preventDefault(); go({ from: offset.value || "0" }); } },
        h("label", { for: "log-offset" }, "Offset"), h("span", { class: "joined" }, offset, h("button", { type: "submit", "aria-label": "Go to offset" }, "Go"))),
      h("form", { class: "field", onsubmit: (event) => { event.preventDefault(); if (when.value) go({ time: Date.parse(`${when.value}Z`) }); } },
        h("label", { for: "log-time" }, "Time (UTC)"), h("span", { class: "joined" }, when, h("button", { type: "submit", "aria-label": "Go to time" }, "Go"))),
      h("p", { class: "buttons" }, button("Oldest", () => ({ from: at.earliest })), older, newer, button("Newest", () => ({ newest: true })))),
    shown, h("div", { id: "log-records" }, records.element));
  const empty = h("p", { class: "empty", hidden: true });
  const element = h("div", { class: "view" }, h("h1", {}, "Log"), problem, empty,
    h("div", { class: "aside" }, h("nav", { class: "panel", "aria-label": "Topics" }, h("h2", {}, "Topics"), topics), place));
  let known = [];
  const at = { topic: null, partition: 0, earliest: 0, end: 0, first: null, next: 0 };

  async function tried(work) {
    problem.hidden = true;
    try {
      return await work();
    } catch (error) {
      if (error.status === 404 && !known.length) { empty.hidden = false; place.hidden = true; text(empty, error.message); return null; }
      problem.hidden = false;
      text(problem, error.message);
      return null;
    }
  }

  async function load() {
    const found = await tried(() => get("/v1/log/topics"));
    if (!found) return;
    known = found.topics;
    empty.hidden = known.length > 0;
    text(empty, "The log has no topics yet.");
    keyed(topics, known, (topic) => topic.topic, (topic) => {
      const name = h("span", { class: "name" }, topic.topic);
      return h("li", {}, h("button", { type: "button", onclick: () => choose(topic.topic) }, name, h("span", { class: "quiet" })));
    }, (item, topic) => {
      const sum = (member) => topic.partitions.reduce((all, one) => all + one[member], 0);
      text(item.querySelector(".quiet"), `${compact(sum("records"))} records, ${bytes(sum("bytes"))}, ${plural(topic.partitions.length, "partition")}`);
      attribute(item.querySelector("button"), "aria-current", topic.topic === at.topic ? "true" : null);
    });
    if (!known.some((topic) => topic.topic === at.topic) && known.length) await choose(known[0].topic);
  }

  async function choose(name) {
    Object.assign(at, { topic: name, partition: 0 });
    const topic = known.find((one) => one.topic === name);
    place.hidden = false;
    text(byId("log-topic") ?? place.querySelector("h2"), name);
    partition.replaceChildren(...topic.partitions.map((one) => h("option", { value: one.partition }, `${one.partition} (${compact(one.records)} records)`)));
    for (const item of topics.children) attribute(item.querySelector("button"), "aria-current", item.dataset.key === name ? "true" : null);
    await go({ newest: true });
  }

  async function go(to) {
    const topic = at.topic;
    const base = `/v1/log/topics/${segment(topic)}/partitions/${at.partition}/records`;
    const page = await tried(async () => {
      if (to.newest) {
        // A page's worth before the end; compacted partitions have gaps, and then there are fewer.
        const end = (await get(`${base}?from=18446744073709551615&limit=1`)).end;
        return get(`${base}?from=${Math.max(0, end - PAGE)}&limit=${PAGE}`);
      }
      return get(to.time === undefined ? `${base}?from=${to.from}&limit=${PAGE}` : `${base}?time=${to.time}&limit=${PAGE}`);
    });
    if (!page || page.topic !== at.topic || page.partition !== at.partition) return;
    const [first, last] = [page.records[0], page.records[page.records.length - 1]];
    Object.assign(at, { earliest: page.earliest, end: page.end, first: first?.offset ?? page.next, next: page.next });
    text(extent, `offsets ${count(page.earliest)} to ${count(page.end)}`);
    text(shown, first ? `Offsets ${count(first.offset)} to ${count(last.offset)}, ${plural(page.records.length, "record")}` : "There are no records from there on.");
    records.update(page.records, (one) => `${topic} ${at.partition} ${one.offset}`);
    older.disabled = at.first <= at.earliest;
    newer.disabled = page.next >= page.end;
  }

  return { element, enter: load, update() {} };
}
