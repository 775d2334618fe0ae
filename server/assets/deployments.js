// Versions of a flow beside each other: how far each is, what they have written, and which one is to be live.

import { get, post, segment } from "./api.js";
import { ask, attribute, h, keyed, table, text, toast } from "./dom.js";
import { bytes, compact, count, plural, rate, span, time, MISSING } from "./format.js";
import { lines } from "./chart.js";

const STATES = { replaying: "replaying", caught_up: "caught up", live: "live", kept: "kept", retired: "retired", failed: "failed", rolled_back: "rolled back" };
const TONES = { live: "good", caught_up: "accent", replaying: "accent", kept: "plain", failed: "bad", rolled_back: "warn", retired: "plain" };

// What can be asked for in a state, and the question before it.
const ACTIONS = [
  { name: "promote", label: "Promote", when: (one) => one.state === "caught_up", primary: true,
    title: (one) => `Promote version ${one.version}?`,
    body: (one, all) => `Readers of the flow’s outputs go on with its rows from the cut on. Both versions stand still for a moment${all.live ? `; version ${all.live} is kept, so you can roll back` : ""}.` },
  { name: "rollback", label: "Roll back", when: (one, all) => one.state === "live" && all.before !== null, danger: true,
    title: (one) => `Roll back version ${one.version}?`,
    body: (_, all) => `Version ${all.before} becomes live again, with no row missing or twice. This version is stopped.` },
  { name: "pause", label: "Pause", when: (one) => one.status === "running" && one.paused === false,
    title: (one) => `Pause version ${one.version}?`,
    body: (one) => (one.state === "live" ? "It is live: its outputs stand still until it is resumed." : "It reads nothing until it is resumed.") },
  { name: "resume", label: "Resume", when: (one) => one.paused === true },
  { name: "retire", label: "Retire", when: (one) => ["replaying", "caught_up", "kept", "failed", "rolled_back"].includes(one.state), danger: true,
    title: (one) => `Retire version ${one.version}?`,
    body: () => "It is over then: its state, checkpoints and output are removed." },
];

const path = (flow, version, what) => `/v1/flows/${segment(flow)}/deployments/${version}/${what}`;

function card(view, flow) {
  const parts = Object.fromEntries(["badge", "status", "behind", "eta", "time", "lag", "rate", "size", "reason"].map((name) => [name, h("span")]));
  const bar = h("div", { class: "meter", role: "progressbar", "aria-valuemin": "0", "aria-valuemax": "100" }, h("div"));
  const buttons = h("p", { class: "buttons" });
  const partitions = table("Partitions", [
    { title: "Partition", value: (one) => one.partition },
    { title: "Offset", number: true, value: (one) => count(one.offset) },
    { title: "Live", number: true, value: (one) => count(one.live_offset) },
    { title: "Behind", number: true, value: (one) => count(one.records_behind) },
  ]);
  const heading = h("h2", { tabindex: "-1" });
  const element = h("article", { class: "card" },
    h("div", { class: "card-head" }, heading, parts.badge, parts.status),
    h("p", { class: "reason" }, parts.reason),
    bar,
    h("dl", { class: "facts" },
      h("div", {}, h("dt", {}, "Behind"), h("dd", {}, parts.behind)),
      h("div", { class: "follower" }, h("dt", {}, "Arrives in"), h("dd", {}, parts.eta)),
      h("div", {}, h("dt", {}, "Reads"), h("dd", {}, parts.rate)),
      h("div", {}, h("dt", {}, "Event time (UTC)"), h("dd", {}, parts.time)),
      h("div", { class: "follower" }, h("dt", {}, "Event time behind"), h("dd", {}, parts.lag)),
      h("div", {}, h("dt", {}, "Bytes behind"), h("dd", {}, parts.size))),
    h("details", {}, h("summary", {}, "Partitions"), partitions.element),
    buttons);

  element.change = (one, all, busy) => {
    const progress = one.progress;
    text(heading, `Version ${one.version}`);
    text(parts.badge, STATES[one.state] ?? one.state);
    attribute(parts.badge, "class", `badge ${TONES[one.state] ?? "plain"}`);
    const doing = one.paused ? "paused" : one.status ?? "not running";
    text(parts.status, doing);
    attribute(parts.status, "class", "quiet");
    const why = one.failure ?? one.reason ?? (one.refused ? `Not promoted by itself: ${one.refused}` : one.kept_until_ms ? `Kept until ${new Date(one.kept_until_ms).toLocaleString([], { hour12: false })}` : "");
    text(parts.reason, why);
    parts.reason.parentElement.hidden = !why;
    const behind = progress?.records_behind ?? null;
    for (const fact of element.querySelectorAll(".follower")) fact.hidden = one.state === "live";
    text(parts.behind, behind === null ? MISSING : behind === 0 ? "nothing" : plural(behind, "record"));
    text(parts.eta, !progress ? MISSING : behind === 0 ? "there" : progress.eta_ms === null ? "it stands still" : span(progress.eta_ms));
    text(parts.rate, rate(progress?.records_per_second));
    text(parts.time, time(progress?.event_time_ms));
    text(parts.lag, progress ? span(progress.event_time_behind_ms) : MISSING);
    text(parts.size, bytes(progress?.bytes_behind));
    const goal = progress?.partitions.reduce((sum, partition) => sum + (partition.live_offset ?? 0), 0) ?? 0;
    const left = progress?.partitions.reduce((sum, partition) => sum + partition.records_behind, 0) ?? 0;
    const share = goal > 0 ? Math.round((100 * (goal - left)) / goal) : progress ? 100 : 0;
    bar.hidden = !progress || one.state === "live";
    attribute(bar, "aria-valuenow", share);
    attribute(bar, "aria-label", `Version ${one.version} has read ${share} % of what the live version has`);
    bar.firstElementChild.style.width = `${share}%`;
    partitions.update(progress?.partitions ?? [], (partition) => partition.partition);
    const actions = ACTIONS.filter((action) => action.when(one, all));
    const items = [...actions, ...(all.live !== null && one.version !== all.live && progress && one.status === "running" ? [{ name: "compare", label: `Compare with version ${all.live}` }] : [])];
    keyed(buttons, items, (action) => action.name, (action) => h("button", {
      type: "button", class: action.primary ? "primary" : action.danger ? "danger quiet-button" : "",
      "aria-label": action.name === "compare" ? null : `${action.label} version ${one.version}`,
      onclick: () => (action.name === "compare" ? view.compare(flow, one.version) : view.act(flow, one.version, action, element)),
    }, action.label), (button, action) => { text(button, action.label); attribute(button, "aria-disabled", busy ? "true" : null); });
  };
  return element;
}

function differences(comparison) {
  return [
    h("div", { class: "panel-head" }, h("h2", {}, `Versions ${comparison.old} and ${comparison.new}, at the same offsets`)),
    ...comparison.outputs.flatMap((output) => {
      const differing = output.different + output.only_old + output.only_new;
      const samples = table(`Keys in which ${output.alias} differs`, [
        { title: "Key", value: (one) => h("code", {}, one.key) },
        { title: `Version ${comparison.old}`, value: (one) => (one.old === null ? MISSING : h("code", { class: "old" }, one.old)) },
        { title: `Version ${comparison.new}`, value: (one) => (one.new === null ? MISSING : h("code", { class: "new" }, one.new)) },
      ]);
      samples.update(output.samples, (one) => one.key);
      return [
        h("h3", {}, output.alias),
        h("dl", { class: "facts" }, [["Keys the same", output.same], ["Different", output.different], [`Only in ${comparison.old}`, output.only_old], [`Only in ${comparison.new}`, output.only_new]]
          .map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, count(value))))),
        differing ? [h("p", { class: "hint" }, `${plural(differing, "key differs", "keys differ")}; some of them:`), samples.element] : h("p", { class: "hint" }, "Both have written the same."),
      ];
    }),
  ].flat();
}

export function deploymentsView() {
  const cards = h("div", { class: "cards" });
  const curve = lines("Records behind the live version", compact);
  const key = h("ul", { class: "legend" });
  const compared = h("section", { class: "panel", hidden: true, "aria-live": "polite", tabindex: "-1", "aria-label": "Comparison" });
  const empty = h("p", { class: "empty" }, "This flow is not deployed in versions, or the server was not given them (", h("code", {}, "Server::deployments"), ").");
  const filled = h("div", { class: "stack" }, cards,
    h("section", { class: "panel" }, h("div", { class: "panel-head" }, h("h2", {}, "Catching up"), key), h("p", { class: "hint" }, "Records that each version is behind the live one; of the live one, behind the log."), curve.element),
    compared);
  const element = h("div", { class: "view" }, h("h1", {}, "Deployments"), empty, filled);
  let shown = null;
  let busy = false;
  let latest = null;

  async function during(work) {
    busy = true;
    attribute(element, "aria-busy", "true");
    if (latest) update(latest);
    try {
      return await work();
    } catch (error) {
      toast(error.message, "bad");
      return null;
    } finally {
      busy = false;
      attribute(element, "aria-busy", null);
      if (latest) update(latest);
    }
  }

  const view = {
    async act(flow, version, action, card) {
      if (busy || latest.sample.changing.includes(flow)) return;
      const all = latest.sample.deployments.find((one) => one.flow === flow);
      const one = all.versions.find((each) => each.version === version);
      let reason = "";
      if (action.title) {
        reason = await ask({
          title: action.title(one), body: h("p", {}, action.body(one, all)), confirm: action.label, danger: action.danger,
          field: { label: "Reason (kept with the version, or in the log of the program)", placeholder: "optional" },
        });
        if (reason === null) return;
      }
      const done = await during(() => post(path(flow, version, action.name), reason ? { reason } : {}));
      if (done) toast(`Version ${version} is ${action.name === "pause" ? "paused" : STATES[done.state] ?? done.state}.`);
      // The button may not be there any more.
      card.querySelector("h2").focus();
    },
    async compare(flow, version) {
      if (busy || latest.sample.changing.includes(flow)) return;
      compared.hidden = false;
      compared.replaceChildren(h("p", { class: "empty small" }, "Both are brought to the same offsets and compared."));
      const comparison = await during(() => get(path(flow, version, "compare")));
      compared.hidden = !comparison;
      compared.replaceChildren(...(comparison ? differences(comparison) : []));
      if (comparison) compared.focus();
    },
  };

  function update(context) {
    latest = context;
    const flow = context.job?.flow;
    const all = context.sample.deployments.find((one) => one.flow === flow);
    empty.hidden = Boolean(all);
    filled.hidden = !all;
    if (!all) return;
    if (shown !== flow) { cards.replaceChildren(); compared.hidden = true; shown = flow; }
    const changing = busy || context.sample.changing.includes(flow);
    const newestFirst = [...all.versions].sort((a, b) => (b.state !== "retired") - (a.state !== "retired") || a.version - b.version);
    keyed(cards, newestFirst, (one) => one.version, () => card(view, flow), (element, one) => element.change(one, all, changing));
    const running = all.versions.filter((one) => one.progress);
    const series = running.map((one) => ({
      name: `version ${one.version}`, tone: `tone-${(one.version - 1) % 4}`,
      points: context.history.curve((sample) => sample.deployments.find((each) => each.flow === flow)?.versions.find((each) => each.version === one.version)?.progress?.records_behind),
    }));
    curve.update(series);
    keyed(key, series, (one) => one.name, (one) => h("li", { class: one.tone }, h("span", { class: "swatch", "aria-hidden": "true" }), one.name));
  }

  return { element, update };
}
