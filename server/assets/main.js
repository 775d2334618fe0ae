// The page: which view is shown of which flow, the token, and the stream of samples that all views live on.

import { listen, setToken } from "./api.js";
import { ask, attribute, byId, h, keyed, text } from "./dom.js";
import { History, idOf } from "./history.js";
import { flowView } from "./graph.js";
import { checkpointsView } from "./checkpoints.js";
import { deploymentsView } from "./deployments.js";
import { logView } from "./log.js";
import { stateView } from "./state.js";

const VIEWS = { flow: flowView, checkpoints: checkpointsView, deployments: deploymentsView, log: logView, state: stateView };
const NEED_A_JOB = ["flow", "checkpoints", "deployments"];
// After a broken connection, in milliseconds: soon at first, then patiently.
const RETRY = [500, 1000, 2000, 5000];

const history = new History();
const views = {};
const main = byId("main");
const select = byId("job");
const waiting = h("p", { class: "empty" }, "Waiting for the first sample.");
let shown = null;

const viewName = () => { const name = location.hash.replace(/^#\//, "").split("?")[0]; return VIEWS[name] ? name : "flow"; };

function show() {
  const name = viewName();
  for (const tab of document.querySelectorAll(".tabs a")) attribute(tab, "aria-current", tab.id === `tab-${name}` ? "page" : null);
  document.title = `${name[0].toUpperCase()}${name.slice(1)} · Rivermark`;
  const isNew = !views[name];
  const view = (views[name] ??= VIEWS[name]());
  const ready = !NEED_A_JOB.includes(name) || history.newest?.jobs.length;
  const wanted = ready ? view.element : waiting;
  if (main.firstElementChild !== wanted || main.childElementCount !== 1) main.replaceChildren(wanted);
  byId("chosen").hidden = !NEED_A_JOB.includes(name) || !history.newest?.jobs.length;
  if (history.newest && !history.newest.jobs.length) text(waiting, "No job runs that this server shows.");
  if (ready && (isNew || shown !== name)) { shown = name; view.enter?.(); }
  update(view);
}

function update(view) {
  const sample = history.newest;
  if (!sample) return;
  const job = history.job(select.value) ?? sample.jobs[0] ?? null;
  if (job || !NEED_A_JOB.includes(viewName())) view.update({ history, sample, job });
}

function labelOf(job, sample) {
  const state = sample.deployments.find((one) => one.flow === job.flow)?.versions.find((one) => one.version === job.version)?.state;
  const version = job.version === null ? "" : `, version ${job.version}`;
  return `${job.flow}${version}${state ? ` (${state.replace("_", " ")})` : ""}`;
}

// The one that is chosen; at first the live version of the first flow.
function choices(sample) {
  const before = select.value;
  keyed(select, sample.jobs, idOf, (job) => h("option", { value: idOf(job) }), (option, job) => text(option, labelOf(job, sample)));
  if (sample.jobs.some((job) => idOf(job) === before)) select.value = before;
  else {
    const lives = new Map(sample.deployments.map((one) => [one.flow, one.live]));
    const live = sample.jobs.find((job) => job.version === null || lives.get(job.flow) === job.version) ?? sample.jobs[0];
    if (live) select.value = idOf(live);
  }
}

function connection(state, words) {
  byId("connection").dataset.state = state;
  text(byId("connection-text"), words);
  document.body.classList.toggle("stale", state === "lost");
}

function onSample(sample) {
  history.add(sample);
  choices(sample);
  connection("live", "Live");
  show();
}

const later = (millis) => new Promise((resolve) => { setTimeout(resolve, millis); });

async function connect() {
  for (let failures = 0; ; failures += 1) {
    try {
      await listen((sample) => { failures = 0; onSample(sample); });
      throw new Error("the server has closed the connection");
    } catch (error) {
      if (error.status === 401) {
        connection("lost", "Token needed");
        const token = await ask({
          title: "This server asks for a token", confirm: "Go on",
          body: h("p", {}, "It is kept until this tab is closed, and sent to this server only."),
          field: { label: "Token", type: "password" },
        });
        if (token) setToken(token);
        failures = 0;
        continue;
      }
      connection("lost", "Disconnected, trying again");
      await later(RETRY[Math.min(failures, RETRY.length - 1)]);
    }
  }
}

addEventListener("hashchange", () => { show(); main.focus({ preventScroll: true }); });
select.addEventListener("change", show);
show();
connect();
