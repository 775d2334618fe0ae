// The flow: its operators as a graph, with rates, watermarks and backpressure; and the same as a table.
//
// Layout, after Sugiyama: an operator's layer is the longest way to it from a source; the order within layers is that of the mean place of what
// an operator is connected to, swept there and back; edges are curves from layer to layer. It is drawn anew when the flow is another one, and only its texts
// change with a sample.

import { attribute, h, svg, table, text } from "./dom.js";
import { compact, count, percent, rate, span, time, MISSING } from "./format.js";
import { idOf } from "./history.js";
import { spark } from "./chart.js";

const GLYPHS = { source: "▸", transform: "ƒ", exchange: "⇄", stateful: "▤", sink: "◂" };
const SIZE = { exchange: [132, 50], other: [176, 76] };
const GAP = { along: 46, across: 22 };
// From there on somebody should know.
const FULL = 0.05;

const sizeOf = (operator) => SIZE[operator.kind] ?? SIZE.other;

export function layersOf(operators) {
  const depth = [];
  operators.forEach((operator, at) => { depth[at] = operator.inputs.reduce((most, input) => Math.max(most, depth[input] + 1), 0); });
  const outputs = operators.map(() => []);
  operators.forEach((operator, at) => operator.inputs.forEach((input) => outputs[input].push(at)));
  const layers = [];
  operators.forEach((_, at) => (layers[depth[at]] ??= []).push(at));
  const place = [];
  const number = () => layers.forEach((layer) => layer.forEach((at, n) => { place[at] = n - (layer.length - 1) / 2; }));
  const sort = (layer, near) => {
    const mean = (at) => (near(at).length ? near(at).reduce((sum, one) => sum + place[one], 0) / near(at).length : place[at]);
    const means = new Map(layer.map((at) => [at, mean(at)]));
    layer.sort((a, b) => means.get(a) - means.get(b) || a - b);
  };
  number();
  for (let sweep = 0; sweep < 4; sweep += 1) {
    layers.forEach((layer) => { sort(layer, (at) => operators[at].inputs); number(); });
    [...layers].reverse().forEach((layer) => { sort(layer, (at) => outputs[at]); number(); });
  }
  return { layers, outputs };
}

// Where each operator is; `down` for narrow screens.
export function layout(operators, down) {
  const { layers, outputs } = layersOf(operators);
  const along = (at) => sizeOf(operators[at])[down ? 1 : 0];
  const across = (at) => sizeOf(operators[at])[down ? 0 : 1];
  const breadth = (layer) => layer.reduce((sum, at) => sum + across(at) + GAP.across, -GAP.across);
  const widest = Math.max(...layers.map(breadth));
  const boxes = [];
  let start = 6;
  for (const layer of layers) {
    const deep = Math.max(...layer.map(along));
    let aside = 6 + (widest - breadth(layer)) / 2;
    for (const at of layer) {
      const [width, height] = sizeOf(operators[at]);
      const main = start + (deep - along(at)) / 2;
      boxes[at] = down ? { x: aside, y: main, width, height } : { x: main, y: aside, width, height };
      aside += across(at) + GAP.across;
    }
    start += deep + GAP.along;
  }
  const length = start - GAP.along + 6;
  return { boxes, outputs, width: down ? widest + 12 : length, height: down ? length : widest + 12 };
}

function curve(from, to, down) {
  if (down) {
    const [x1, y1, x2, y2] = [from.x + from.width / 2, from.y + from.height, to.x + to.width / 2, to.y];
    const bend = Math.max(16, (y2 - y1) / 2);
    return `M${x1} ${y1}C${x1} ${y1 + bend} ${x2} ${y2 - bend} ${x2} ${y2}`;
  }
  const [x1, y1, x2, y2] = [from.x + from.width, from.y + from.height / 2, to.x, to.y + to.height / 2];
  const bend = Math.max(16, (x2 - x1) / 2);
  return `M${x1} ${y1}C${x1 + bend} ${y1} ${x2 - bend} ${y2} ${x2} ${y2}`;
}

const clip = (name, letters) => (name.length > letters ? `${name.slice(0, letters - 1)}…` : name);

class Graph {
  constructor(onChoose) {
    this.onChoose = onChoose;
    this.element = h("div", { class: "graph scroll", tabindex: "-1" });
    this.chosen = null;
    new ResizeObserver(() => this.draw()).observe(this.element);
  }

  update(operators, rates) {
    this.operators = operators;
    this.rates = rates;
    this.draw();
    this.change();
  }

  draw() {
    const width = this.element.clientWidth;
    if (!this.operators || !width) return;
    const down = width < 640;
    const signature = `${down} ${this.operators.map(({ name, kind, inputs }) => `${name} ${kind} ${inputs}`).join("|")}`;
    if (signature === this.signature) return;
    this.signature = signature;
    const { boxes, outputs, width: wide, height } = layout(this.operators, down);
    this.outputs = outputs;
    this.edges = this.operators.flatMap((operator, to) => operator.inputs.map((from) => {
      const d = curve(boxes[from], boxes[to], down);
      const moving = svg("path", { class: "moving", d });
      return { from, to, moving, element: svg("g", { class: "edge" }, svg("path", { class: "bed", d }), moving) };
    }));
    this.nodes = this.operators.map((operator, at) => this.node(operator, boxes[at], at));
    // Drawn as large as it is, or as small as can be read; the rest is scrolled to.
    const scale = Math.min(1, Math.max(0.78, (width - 4) / wide));
    this.element.replaceChildren(svg("svg", {
      class: "operators", role: "group", "aria-label": "Operators of the flow; arrow keys follow the records",
      viewBox: `0 0 ${wide} ${height}`, width: Math.round(wide * scale), height: Math.round(height * scale),
    }, this.edges.map((edge) => edge.element), this.nodes.map((node) => node.element)));
    this.choose(Math.min(this.chosen ?? -1, this.nodes.length - 1));
    this.change();
  }

  node(operator, box, at) {
    const small = operator.kind === "exchange";
    const left = 14;
    const name = svg("text", { class: "name", x: left, y: small ? 20 : 24 }, `${GLYPHS[operator.kind] ?? ""} ${clip(operator.name, small ? 11 : 19)}`);
    const first = svg("text", { class: "figure", x: left, y: small ? 38 : 45 });
    const second = small ? null : svg("text", { class: "time", x: left, y: 63 });
    const element = svg("g", {
      class: `node ${operator.kind}`, transform: `translate(${box.x} ${box.y})`, role: "button", tabindex: at === 0 ? "0" : "-1",
      onclick: () => this.choose(at, true),
      onkeydown: (event) => this.key(event, at),
      onfocus: () => this.nodes.forEach((node, n) => attribute(node.element, "tabindex", n === at ? "0" : "-1")),
    }, svg("title", {}, operator.name), svg("rect", { width: box.width, height: box.height, rx: small ? 25 : 10 }), name, first, second);
    return { element, first, second };
  }

  key(event, at) {
    const beside = (step) => {
      const order = this.operators.map((_, n) => n);
      return order[at + step];
    };
    const to = { ArrowRight: this.outputs[at][0], ArrowLeft: this.operators[at].inputs[0], ArrowDown: beside(1), ArrowUp: beside(-1) }[event.key];
    if (event.key === "Enter" || event.key === " ") this.choose(at, true);
    else if (to === undefined) return;
    else this.nodes[to].element.focus();
    event.preventDefault();
  }

  choose(at, told) {
    this.chosen = at >= 0 ? at : null;
    this.nodes.forEach((node, n) => attribute(node.element, "aria-pressed", String(n === this.chosen)));
    if (told) this.onChoose(at);
  }

  change() {
    if (!this.nodes) return;
    this.operators.forEach((operator, at) => {
      const now = this.rates?.operators[at];
      const node = this.nodes[at];
      const flowing = now ? (operator.kind === "source" ? now.out : now.in) : null;
      const figure = operator.kind === "exchange"
        ? (now?.full >= FULL ? `full ${percent(now.full)}` : rate(flowing))
        : operator.kind === "source" ? `out ${rate(now?.out)}`
          : operator.kind === "sink" ? `in ${rate(now?.in)}` : `${rate(now?.in)} → ${rate(now?.out)}`;
      text(node.first, figure);
      if (node.second) text(node.second, operator.watermark_ms === null ? "" : time(operator.watermark_ms).slice(0, 16));
      node.element.classList.toggle("full", operator.kind === "exchange" && now?.full >= FULL);
      node.element.classList.toggle("dead", operator.dead_letters > 0);
      attribute(node.element, "aria-label", `${operator.name}, ${operator.kind}, ${figure.replace("→", "in,")}${operator.kind === "exchange" ? "" : `, event time ${time(operator.watermark_ms)}`}`);
    });
    for (const edge of this.edges) {
      const [from, to] = [this.rates?.operators[edge.from], this.rates?.operators[edge.to]];
      const moving = this.operators[edge.to].inputs.length === 1 ? to?.in : from?.out;
      edge.element.classList.toggle("flows", moving > 0);
      edge.element.classList.toggle("full", this.operators[edge.to].kind === "exchange" && to?.full >= FULL);
      attribute(edge.moving, "stroke-width", (1.5 + Math.min(4, Math.log10(1 + (moving || 0)) * 0.7)).toFixed(1));
    }
  }
}

function tile(label) {
  const value = h("dd", { class: "value" });
  const note = h("dd", { class: "note" });
  const curve = h("dd", { class: "curve", "aria-hidden": "true" });
  return { element: h("div", { class: "tile" }, h("dt", {}, label), value, note, curve), value, note, curve };
}

export function flowView() {
  const tiles = Object.fromEntries([
    ["read", "Records read"], ["backlog", "Waiting to be read"], ["time", "Event time reached"], ["late", "Late records"], ["dead", "Dead letters"], ["restarts", "Restarts"],
  ].map(([key, label]) => [key, tile(label)]));
  const details = h("section", { class: "details", "aria-label": "Chosen operator", hidden: true });
  const detailList = h("dl", { class: "facts" });
  const detailName = h("h3");
  details.append(detailName, detailList);
  const failure = h("p", { class: "banner bad", role: "alert", hidden: true });
  let context = null;
  const graph = new Graph(() => show());
  const operators = table("Operators", [
    { title: "Operator", value: ([operator]) => operator.name },
    { title: "Kind", value: ([operator]) => operator.kind },
    { title: "In", number: true, value: ([operator, now]) => (operator.kind === "source" ? MISSING : rate(now?.in)) },
    { title: "Out", number: true, value: ([operator, now]) => (["sink", "exchange"].includes(operator.kind) ? MISSING : rate(now?.out)) },
    { title: "Full", number: true, value: ([operator, now]) => (operator.kind === "exchange" ? percent(now?.full) : MISSING) },
    { title: "Late", number: true, value: ([operator]) => count(operator.late) },
    { title: "Event time (UTC)", value: ([operator]) => time(operator.watermark_ms) },
  ]);
  const [name, version, status] = [h("span"), h("span", { class: "badge accent" }), h("span", { class: "badge" })];
  const element = h("div", { class: "view" },
    h("h1", {}, name, version, status), failure,
    h("dl", { class: "tiles" }, Object.values(tiles).map((one) => one.element)),
    h("section", { class: "panel" },
      h("div", { class: "panel-head" }, h("h2", {}, "Operators"),
        h("ul", { class: "legend", "aria-hidden": "true" }, Object.entries(GLYPHS).map(([kind, glyph]) => h("li", {}, `${glyph} ${kind}`)))),
      graph.element, details),
    h("section", { class: "panel" }, h("h2", {}, "In figures"), operators.element));

  function show() {
    const operator = graph.chosen === null ? null : context?.job.operators[graph.chosen];
    details.hidden = !operator;
    if (!operator) return;
    const now = context.rates?.operators[graph.chosen];
    text(detailName, operator.name);
    const facts = [
      ["Kind", operator.kind], ["Records in", `${count(operator.records_in)} (${rate(now?.in)})`], operator.kind !== "exchange" && ["Records out", `${count(operator.records_out)} (${rate(now?.out)})`],
      ["Event time (UTC)", time(operator.watermark_ms)], ["Late records", count(operator.late)], ["Dead letters", count(operator.dead_letters)],
      operator.bytes > 0 && ["Bytes outside", compact(operator.bytes)],
      operator.kind === "exchange" && ["Full", `${percent(now?.full)} of the last seconds, ${span(operator.backpressured_ms)} of all workers' time so far`],
    ].filter(Boolean);
    detailList.replaceChildren(...facts.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, value))));
  }

  function update({ history, job }) {
    const id = idOf(job);
    const rates = history.rates(id);
    context = { job, rates };
    text(name, job.flow);
    version.hidden = job.version === null;
    text(version, `version ${job.version}`);
    text(status, job.status);
    attribute(status, "class", `badge ${{ running: "good", finished: "good", failed: "bad", restarting: "warn" }[job.status] ?? ""}`);
    failure.hidden = !job.failure;
    text(failure, job.failure ? `${job.status === "failed" ? "The job has failed" : "The job is started again after a failure"}: ${job.failure}` : "");
    text(tiles.read.value, rate(rates?.read));
    text(tiles.read.note, `${count(job.records_read)} so far`);
    tiles.read.curve.replaceChildren(spark(history.throughput(id).slice(-60)));
    text(tiles.backlog.value, compact(job.backlog));
    text(tiles.backlog.note, job.backlog === null ? "the sources cannot tell" : job.backlog === 0 ? "caught up" : "records");
    tiles.backlog.curve.replaceChildren(spark(history.curve((sample) => sample.jobs.find((one) => idOf(one) === id)?.backlog).slice(-60)));
    text(tiles.time.value, time(job.watermark_ms).slice(0, 10));
    const behind = history.newest.at_ms - job.watermark_ms;
    const ago = behind >= 0 && behind < 30 * 86_400_000 ? `, ${span(behind)} ago` : "";
    text(tiles.time.note, job.watermark_ms === null ? (job.status === "finished" ? "all sources have ended" : "none yet") : `${time(job.watermark_ms).slice(11)} UTC${ago}`);
    text(tiles.late.value, count(job.late_records));
    text(tiles.late.note, rates?.late > 0 ? rate(rates.late) : "none lately");
    text(tiles.dead.value, count(job.dead_letters));
    text(tiles.dead.note, job.dead_letters ? "a function has failed on them" : "no function has failed");
    text(tiles.restarts.value, count(job.restarts));
    text(tiles.restarts.note, `in ${span(job.running_ms)}, ${job.workers === 1 ? "1 worker" : `${job.workers} workers`}`);
    graph.update(job.operators, rates);
    operators.update(job.operators.map((operator, at) => [operator, rates?.operators[at]]), ([operator]) => operator.name);
    show();
  }

  return { element, update };
}
