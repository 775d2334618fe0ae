// Charts, drawn by hand as SVG: lines over time, and bars. Each says in words what it shows.

import { h, svg } from "./dom.js";
import { clock } from "./format.js";

const LEFT = 58, RIGHT = 12, TOP = 10, BOTTOM = 24;

// Three or four round numbers from 0 to the greatest.
export function ticks(most) {
  if (!(most > 0)) return [0, 1];
  const rough = most / 3;
  const unit = 10 ** Math.floor(Math.log10(rough));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * unit).find((one) => one >= rough);
  const found = [];
  for (let at = 0; at < most + step * 0.999; at += step) found.push(Number(at.toPrecision(6)));
  return found;
}

function frame(width, height, most, written) {
  const marks = ticks(most);
  const top = marks[marks.length - 1];
  const y = (value) => height - BOTTOM - (Math.min(value, top) / top) * (height - TOP - BOTTOM);
  const lines = marks.map((mark) => svg("g", { class: "mark" },
    svg("line", { x1: LEFT, x2: width - RIGHT, y1: y(mark), y2: y(mark) }),
    svg("text", { x: LEFT - 8, y: y(mark) + 4, "text-anchor": "end" }, written(mark))));
  return { y, lines };
}

function picture(label, width, height, children) {
  return svg("svg", { class: "chart", viewBox: `0 0 ${width} ${height}`, role: "img", "aria-label": label, preserveAspectRatio: "none" }, children);
}

// Redraws in the width that there is.
export function chart(draw, height = 190) {
  const element = h("div", { class: "chart-frame" });
  let last = null;
  const redraw = () => {
    const width = Math.round(element.clientWidth);
    if (!width || !last) return;
    element.replaceChildren(draw(width, height, last));
  };
  new ResizeObserver(redraw).observe(element);
  return { element, update: (data) => { last = data; redraw(); } };
}

// `series` are `{ name, points: [[ms, value]], tone }`, all over the same time.
export function lines(label, written) {
  return chart((width, height, series) => {
    const all = series.flatMap((one) => one.points);
    if (all.length < 2) return h("p", { class: "empty small" }, "The curve begins with the next samples.");
    const [from, to] = [Math.min(...all.map(([at]) => at)), Math.max(...all.map(([at]) => at))];
    const x = (at) => LEFT + ((at - from) / Math.max(1, to - from)) * (width - LEFT - RIGHT);
    const { y, lines: marks } = frame(width, height, Math.max(...all.map(([, value]) => value)), written);
    const path = (points) => points.map(([at, value], n) => `${n ? "L" : "M"}${x(at).toFixed(1)} ${y(value).toFixed(1)}`).join("");
    const area = (points) => `${path(points)}L${x(points[points.length - 1][0]).toFixed(1)} ${height - BOTTOM}L${x(points[0][0]).toFixed(1)} ${height - BOTTOM}Z`;
    const newest = series.filter((one) => one.points.length).map((one) => `${one.name} ${written(one.points[one.points.length - 1][1])}`);
    return picture(`${label}: ${newest.join(", ")}`, width, height, [
      marks,
      svg("text", { class: "axis", x: LEFT, y: height - 6 }, clock(from)),
      svg("text", { class: "axis", x: width - RIGHT, y: height - 6, "text-anchor": "end" }, clock(to)),
      series.filter((one) => one.points.length > 1).map((one) => svg("g", { class: `series ${one.tone}` },
        svg("path", { class: "area", d: area(one.points) }),
        svg("path", { class: "line", d: path(one.points) }),
        svg("circle", { cx: x(one.points[one.points.length - 1][0]), cy: y(one.points[one.points.length - 1][1]), r: 3.5 }))),
    ]);
  });
}

// `bars` are `{ at, value, title, tone }`, one beside the other.
export function bars(label, written, height) {
  return chart((width, tall, items) => {
    if (!items.length) return h("p", { class: "empty small" }, "None yet.");
    const { y, lines: marks } = frame(width, tall, Math.max(...items.map((item) => item.value)), written);
    const room = (width - LEFT - RIGHT) / Math.max(items.length, 30);
    const wide = Math.max(1.5, Math.min(18, room - 2));
    const newest = items[items.length - 1];
    return picture(`${label}: ${items.length} bars, the newest ${written(newest.value)}`, width, tall, [
      marks,
      svg("text", { class: "axis", x: LEFT, y: tall - 6 }, clock(items[0].at)),
      items.length > 5 && svg("text", { class: "axis", x: LEFT + (items.length - 1) * room + wide, y: tall - 6, "text-anchor": "end" }, clock(newest.at)),
      items.map((item, n) => {
        const top = y(item.value);
        return svg("rect", { class: `bar ${item.tone ?? ""}`, x: LEFT + n * room, width: wide, y: Math.min(top, tall - BOTTOM - 2), height: Math.max(2, tall - BOTTOM - top), rx: Math.min(2, wide / 2) },
          svg("title", {}, item.title));
      }),
    ]);
  }, height);
}

// A small curve without axes, beside a number that says the same.
export function spark(points) {
  if (points.length < 2) return svg("svg", { class: "spark", viewBox: "0 0 100 24", "aria-hidden": "true" });
  const most = Math.max(...points.map(([, value]) => value), 1e-9);
  const [from, to] = [points[0][0], points[points.length - 1][0]];
  const d = points.map(([at, value], n) =>
    `${n ? "L" : "M"}${(((at - from) / Math.max(1, to - from)) * 100).toFixed(1)} ${(22 - (value / most) * 20).toFixed(1)}`).join("");
  return svg("svg", { class: "spark", viewBox: "0 0 100 24", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("path", { d }));
}
