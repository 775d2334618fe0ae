// The server: requests with the token, and the stream of samples.

const KEY = "rivermark-token";
let token = null;
try { token = sessionStorage.getItem(KEY); } catch { /* A browser that keeps nothing asks again. */ }

export class Refused extends Error {
  constructor(status, detail) {
    super(detail);
    this.status = status;
  }
}

export function setToken(value) {
  token = value;
  try { sessionStorage.setItem(KEY, value); } catch { /* As above. */ }
}

// Numbers that a double cannot hold, such as keys of 64 bits, stay as they were written.
const exact = (_, value, context) =>
  (typeof value === "number" && Number.isInteger(value) && !Number.isSafeInteger(value) && context?.source && JSON.rawJSON
    ? JSON.rawJSON(context.source) : value);

const headers = () => (token ? { Authorization: `Bearer ${token}` } : {});

async function refused(response) {
  let detail = `${response.status} ${response.statusText}`;
  try { detail = (await response.json()).detail ?? detail; } catch { /* It is no problem of ours. */ }
  return new Refused(response.status, detail);
}

export async function get(path) {
  const response = await fetch(path, { headers: headers(), cache: "no-store" });
  if (!response.ok) throw await refused(response);
  return JSON.parse(await response.text(), exact);
}

export async function post(path, body) {
  const response = await fetch(path, { method: "POST", headers: { ...headers(), "Content-Type": "application/json" }, body: JSON.stringify(body) });
  if (!response.ok) throw await refused(response);
  return JSON.parse(await response.text(), exact);
}

// Reads samples until the stream ends. By `fetch`, as an EventSource cannot send the token.
export async function listen(onSample, signal) {
  const response = await fetch("/v1/events", { headers: headers(), cache: "no-store", signal });
  if (!response.ok) throw await refused(response);
  const reader = response.body.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = "";;) {
    const { done, value } = await reader.read();
    if (done) return;
    rest += value;
    for (let end = rest.indexOf("\n\n"); end >= 0; end = rest.indexOf("\n\n")) {
      const data = rest.slice(0, end).split("\n").filter((line) => line.startsWith("data: ")).map((line) => line.slice(6)).join("\n");
      rest = rest.slice(end + 2);
      if (data) onSample(JSON.parse(data));
    }
  }
}

export const segment = encodeURIComponent;
