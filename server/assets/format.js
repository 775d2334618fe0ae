// Numbers, sizes and times as people read them.

export const MISSING = "–";

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });

const has = (value) => typeof value === "number" && Number.isFinite(value);

// What is too large for a number is as it was written; see api.js.
export const count = (value) => (has(value) ? whole.format(value) : value?.rawJSON ?? MISSING);

// At most four letters of a number, and its unit: 999, 1.23 k, 45.6 M.
export function compact(value) {
  if (!has(value)) return MISSING;
  let [rest, unit] = [Number(value), ""];
  for (const larger of ["k", "M", "G", "T"]) {
    if (Math.abs(rest) < 999.5) break;
    [rest, unit] = [rest / 1000, larger];
  }
  return unit ? `${rest.toPrecision(3).replace(/\.?0+$/, (zeros) => (zeros.startsWith(".") ? "" : zeros))} ${unit}` : whole.format(rest);
}

export const rate = (value) => (has(value) ? `${value > 0 && value < 10 ? value.toFixed(1) : compact(value)}/s` : MISSING);

export function bytes(value) {
  if (!has(value)) return MISSING;
  const units = ["B", "KiB", "MiB", "GiB", "TiB"];
  let at = 0;
  while (value >= 1024 && at < units.length - 1) { value /= 1024; at += 1; }
  return `${at === 0 || value >= 100 ? Math.round(value) : value.toFixed(1)} ${units[at]}`;
}

// A length of time in milliseconds.
export function span(value) {
  if (!has(value)) return MISSING;
  if (value < 1) return value <= 0 ? "0 ms" : "<1 ms";
  if (value < 1000) return `${Math.round(value)} ms`;
  const seconds = value / 1000;
  if (seconds < 60) return `${seconds < 10 ? seconds.toFixed(1) : Math.round(seconds)} s`;
  const minutes = Math.floor(seconds / 60);
  if (minutes < 60) return `${minutes} min ${Math.round(seconds % 60)} s`;
  const hours = Math.floor(minutes / 60);
  if (hours < 48) return `${hours} h ${minutes % 60} min`;
  return `${count(Math.floor(hours / 24))} days`;
}

// An event time: in UTC, as the engine has it.
export function time(millis) {
  if (!has(millis)) return MISSING;
  const date = new Date(millis);
  if (Number.isNaN(date.getTime())) return `${millis} ms`;
  const written = date.toISOString();
  const tail = written.slice(17, 23) === "00.000" ? "" : written.slice(16, written.endsWith(".000Z") ? 19 : 23);
  return `${written.slice(0, 10)} ${written.slice(11, 16)}${tail}`;
}

// A time of the clock on the wall, here.
export const clock = (millis) => new Date(millis).toLocaleTimeString([], { hour12: false });

export const percent = (share) => (has(share) ? `${Math.round(share * 100)} %` : MISSING);

export const plural = (number, one, many = `${one}s`) => `${count(number)} ${number === 1 ? one : many}`;

// JSON over several lines, with numbers as they were written.
export const pretty = (value) => JSON.stringify(value, null, 2);
export const inline = (value) => JSON.stringify(value);
