// What the samples of the last minutes tell together: rates, and curves.

const KEPT = 300;
// Rates are those of the last seconds: quick enough to see a change, slow enough to read.
const OVER = 3;

export const idOf = (job) => `${job.flow} ${job.version ?? ""}`;

export class History {
  samples = [];

  add(sample) {
    // Checkpoints are told again with each sample: those of the newest are enough.
    for (const job of this.newest?.jobs ?? []) [job.checkpoints, job.failed_checkpoints] = [[], []];
    this.samples.push(sample);
    if (this.samples.length > KEPT) this.samples.shift();
  }

  get newest() {
    return this.samples[this.samples.length - 1] ?? null;
  }

  job(id) {
    return this.newest?.jobs.find((job) => idOf(job) === id) ?? null;
  }

  // A job, and as it was some seconds ago in the same run.
  pair(id, back = OVER) {
    const now = this.job(id);
    if (!now) return [null, null];
    const from = Math.max(0, this.samples.length - 1 - back);
    for (const sample of this.samples.slice(from, -1)) {
      const before = sample.jobs.find((job) => idOf(job) === id);
      if (before && before.running_ms < now.running_ms && before.records_read <= now.records_read) return [now, before];
    }
    return [now, null];
  }

  // By operator: records a second, and the share of time that an exchange was full.
  rates(id) {
    const [now, before] = this.pair(id);
    if (!before) return null;
    const passed = now.running_ms - before.running_ms;
    const perSecond = (after, earlier) => Math.max(0, (after - earlier) * 1000 / passed);
    return {
      read: perSecond(now.records_read, before.records_read),
      late: perSecond(now.late_records, before.late_records),
      operators: now.operators.map((operator, at) => {
        const earlier = before.operators[at];
        return {
          in: perSecond(operator.records_in, earlier.records_in),
          out: perSecond(operator.records_out, earlier.records_out),
          full: Math.min(1, Math.max(0, operator.backpressured_ms - earlier.backpressured_ms) / passed / now.workers),
        };
      }),
    };
  }

  // Points `[at_ms, value]` of a job, or of a version.
  curve(valueOf) {
    return this.samples.map((sample) => [sample.at_ms, valueOf(sample)]).filter(([, value]) => value !== null && value !== undefined);
  }

  // Records a second, from sample to sample.
  throughput(id) {
    const points = [];
    let before = null;
    for (const sample of this.samples) {
      const job = sample.jobs.find((one) => idOf(one) === id);
      if (job && before && job.running_ms > before.running_ms) {
        const rate = (job.records_read - before.records_read) * 1000 / (job.running_ms - before.running_ms);
        points.push([sample.at_ms, Math.max(0, rate)]);
      }
      before = job ?? null;
    }
    return points;
  }
}
