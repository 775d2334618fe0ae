//! Operators under the harness: what they do record by record, watermark by watermark, and across restarts.
#![allow(clippy::unwrap_used, reason = "tests")]

mod budget;
mod event_time;
mod expiring;
mod harness;
mod joins;
mod keyed;
mod order;
mod patterns;
mod tables;
mod top_n;
mod triggers;
mod visits;
mod windows;

use rivermark_operators::Timestamp;

fn at(millis: i64) -> Timestamp {
    Timestamp::from_millis(millis)
}
