//! What happens, as a stream of events (server-sent events): a sample of all jobs and deployments each second.
//!
//! 1. One task takes the samples for all who listen, and none while nobody does. A sample is text that all of them are sent.
//! 2. A listener that is slow misses samples, and costs no memory: there is only ever the newest ([`watch`]).
//! 3. Versions cannot be looked at while they are switched ([`crate::deployments`]). Then the sample has what was seen of them before, and says so.

use crate::answer::Refusal;
use crate::deployments::{millis, refresh};
use crate::routes::{Answer, Shared, status};
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderValue, Response, header};
use futures_util::stream;
use rivermark_engine::{Metrics, Status};
use serde_json::{Value as Json, json};
use std::collections::HashSet;
use std::convert::Infallible;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};
use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::{MissedTickBehavior, interval};

pub(crate) const EVENTS: &str = "/v1/events";

/// Between two samples.
const EVERY: Duration = Duration::from_secs(1);
/// Checkpoints of a job that a sample tells of.
const CHECKPOINTS: usize = 120;
/// Checkpoints that failed that a sample tells of.
const FAILURES: usize = 30;

/// What listeners share.
pub(crate) struct Samples {
    newest: watch::Sender<Option<Bytes>>,
    listened: Notify,
    room: Arc<Semaphore>,
}

impl Samples {
    pub(crate) fn new(listeners: usize) -> Self {
        Self {
            newest: watch::Sender::new(None),
            listened: Notify::new(),
            room: Arc::new(Semaphore::new(listeners)),
        }
    }
}

/// Takes samples as long as the server runs and somebody listens.
pub(crate) async fn take(shared: Arc<Shared>) {
    let mut ticks = interval(EVERY);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        if shared.samples.newest.receiver_count() == 0 {
            // Whoever comes next is not shown what is long past.
            shared.samples.newest.send_replace(None);
            shared.samples.listened.notified().await;
            ticks.reset_immediately();
        }
        ticks.tick().await;
        let sample = sample(&shared).await;
        shared.samples.newest.send_replace(Some(Bytes::from(format!("event: sample\ndata: {sample}\n\n"))));
    }
}

async fn sample(shared: &Arc<Shared>) -> Json {
    let changing = refresh(shared).await;
    let versions = shared.seen.lock().unwrap_or_else(PoisonError::into_inner);
    let mut jobs = Vec::new();
    for seen in versions.values() {
        let of = seen["versions"].as_array().into_iter().flatten();
        jobs.extend(of.filter(|version| !version["job"].is_null()).map(|version| version["job"].clone()));
    }
    let known: HashSet<String> = versions.keys().cloned().collect();
    let alone = shared.queries().filter(|queries| !known.contains(queries.flow()));
    jobs.extend(alone.map(|queries| job(queries.flow(), None, &queries.status(), &queries.metrics())));
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let deployments: Vec<Json> = versions.values().map(without_jobs).collect();
    json!({ "at_ms": since_epoch.as_millis() as u64, "jobs": jobs, "deployments": deployments, "changing": changing })
}

/// Versions as the request for them has them.
pub(crate) fn without_jobs(deployments: &Json) -> Json {
    let mut deployments = deployments.clone();
    for version in deployments["versions"].as_array_mut().into_iter().flatten() {
        version.as_object_mut().map(|version| version.remove("job"));
    }
    deployments
}

/// What a sample says of a job.
pub(crate) fn job(flow: &str, version: Option<u64>, now: &Status, metrics: &Metrics) -> Json {
    let operators = metrics.operators.iter().map(|operator| {
        json!({
            "name": operator.name,
            "kind": operator.kind.to_string(),
            "inputs": operator.inputs,
            "records_in": operator.records_in,
            "records_out": operator.records_out,
            "bytes": operator.bytes,
            "late": operator.late,
            "dead_letters": operator.dead_letters,
            "watermark_ms": millis(operator.watermark),
            "backpressured_ms": operator.backpressured.as_millis() as u64,
        })
    });
    let last = metrics.checkpoints.len().saturating_sub(CHECKPOINTS);
    let checkpoints = metrics.checkpoints[last..].iter().map(|checkpoint| {
        json!({
            "epoch": checkpoint.epoch.0,
            "at_ms": checkpoint.stored_at.millis(),
            "duration_ms": checkpoint.duration.as_secs_f64() * 1000.0,
            "state_bytes": checkpoint.state_bytes,
            "uploaded_bytes": checkpoint.uploaded_bytes,
        })
    });
    let last = metrics.failed_checkpoints.len().saturating_sub(FAILURES);
    let failed = metrics.failed_checkpoints[last..].iter().map(|checkpoint| {
        json!({
            "epoch": checkpoint.epoch.0,
            "at_ms": checkpoint.failed_at.millis(),
            "duration_ms": checkpoint.duration.as_secs_f64() * 1000.0,
            "reason": checkpoint.reason,
        })
    });
    let failure = match now {
        Status::Failed { failure } | Status::Restarting { failure, .. } => Some(failure),
        _ => None,
    };
    json!({
        "flow": flow,
        "version": version,
        "status": status(now),
        "failure": failure,
        "running_ms": metrics.running.as_millis() as u64,
        "workers": metrics.workers,
        "records_read": metrics.records_read,
        "late_records": metrics.late_records,
        "dead_letters": metrics.dead_letters,
        "watermark_ms": millis(metrics.watermark),
        "backlog": metrics.backlog,
        "restarts": metrics.restarts,
        "checkpoints_completed": metrics.checkpoints_completed,
        "checkpoints_failed": metrics.checkpoints_failed,
        "checkpoints": checkpoints.collect::<Vec<_>>(),
        "failed_checkpoints": failed.collect::<Vec<_>>(),
        "operators": operators.collect::<Vec<_>>(),
    })
}

/// Listens. The answer has no end.
pub(crate) async fn listen(State(shared): State<Arc<Shared>>) -> Answer {
    let samples = &shared.samples;
    let Ok(room) = Arc::clone(&samples.room).try_acquire_owned() else {
        let detail = format!("{} listen to events already; try again", shared.limits.listeners);
        return Err(Refusal::TooMany(detail));
    };
    let mut newest = samples.newest.subscribe();
    samples.listened.notify_one();
    // The newest there is, and from then on each.
    newest.mark_changed();
    let state: (watch::Receiver<Option<Bytes>>, OwnedSemaphorePermit) = (newest, room);
    let events = stream::unfold(state, |(mut newest, room)| async move {
        loop {
            newest.changed().await.ok()?;
            let sample = newest.borrow_and_update().clone();
            if let Some(sample) = sample {
                return Some((Ok::<Bytes, Infallible>(sample), (newest, room)));
            }
        }
    });
    let mut response = Response::new(Body::from_stream(events));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/event-stream"));
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    Ok(response)
}
