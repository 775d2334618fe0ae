// Checkpoints over time: how long they took, how large they were, and which failed.

import { h, table, text } from "./dom.js";
import { bytes, clock, count, span } from "./format.js";
import { bars } from "./chart.js";

// Whole, or rather long.
const middle = (values) => (values.length ? [...values].sort((a, b) => a - b)[Math.floor(values.length / 2)] : null);

export function checkpointsView() {
  const facts = ["Completed", "Failed", "Newest", "Took (median)", "State"].map((label) => {
    const value = h("dd", { class: "value" });
    const note = h("dd", { class: "note" });
    return { label, value, note, element: h("div", { class: "tile" }, h("dt", {}, label), value, note) };
  });
  const durations = bars("Duration of checkpoints", span);
  const sizes = bars("New bytes of checkpoints", bytes);
  const list = table("Newest checkpoints", [
    { title: "Epoch", value: (one) => String(one.epoch) },
    { title: "At", value: (one) => clock(one.at_ms) },
    { title: "Took", number: true, value: (one) => span(one.duration_ms) },
    { title: "State", number: true, value: (one) => bytes(one.state_bytes) },
    { title: "New", number: true, value: (one) => bytes(one.uploaded_bytes) },
    { title: "Outcome", value: (one) => (one.reason ? h("span", { class: "badge bad" }, "failed") : h("span", { class: "badge good" }, "stored")) },
  ]);
  const failures = h("ul", { class: "failures" });
  const failed = h("section", { class: "panel", hidden: true }, h("h2", {}, "Why some have failed"), failures);
  const element = h("div", { class: "view" },
    h("h1", {}, "Checkpoints"),
    h("dl", { class: "tiles" }, facts.map((fact) => fact.element)),
    h("div", { class: "halves" },
      h("section", { class: "panel" }, h("h2", {}, "Duration"), h("p", { class: "hint" }, "From the barrier until it was stored; red ones failed."), durations.element),
      h("section", { class: "panel" }, h("h2", {}, "New bytes"), h("p", { class: "hint" }, "What each had to write; the rest it shares with those before."), sizes.element)),
    failed,
    h("section", { class: "panel" }, h("h2", {}, "Newest"), list.element));

  function update({ job }) {
    const all = [...job.checkpoints, ...job.failed_checkpoints].sort((a, b) => a.at_ms - b.at_ms || a.epoch - b.epoch);
    const newest = job.checkpoints[job.checkpoints.length - 1];
    const [completed, failing, last, took, state] = facts;
    text(completed.value, count(job.checkpoints_completed));
    text(completed.note, "since the job's start");
    text(failing.value, count(job.checkpoints_failed));
    text(failing.note, job.checkpoints_failed ? "no output is lost by it" : "none");
    text(last.value, newest ? `#${newest.epoch}` : "–");
    text(last.note, newest ? clock(newest.at_ms) : "none yet");
    text(took.value, span(middle(job.checkpoints.map((one) => one.duration_ms))));
    text(took.note, `of the last ${job.checkpoints.length}`);
    text(state.value, bytes(newest?.state_bytes ?? null));
    text(state.note, "of the newest");
    durations.update(all.map((one) => ({ at: one.at_ms, value: one.duration_ms, tone: one.reason ? "bad" : "", title: `#${one.epoch}, ${clock(one.at_ms)}: ${span(one.duration_ms)}${one.reason ? `, failed: ${one.reason}` : ""}` })));
    sizes.update(job.checkpoints.map((one) => ({ at: one.at_ms, value: one.uploaded_bytes, title: `#${one.epoch}, ${clock(one.at_ms)}: ${bytes(one.uploaded_bytes)} new of ${bytes(one.state_bytes)}` })));
    list.update([...all].reverse().slice(0, 20), (one) => `${one.epoch} ${Boolean(one.reason)}`);
    failed.hidden = !job.failed_checkpoints.length;
    failures.replaceChildren(...job.failed_checkpoints.slice(-5).reverse().map((one) => h("li", {}, h("strong", {}, `#${one.epoch}, ${clock(one.at_ms)}`), ` ${one.reason}`)));
  }

  return { element, update };
}
