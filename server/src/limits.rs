//! Every limit of the server in one place.

use std::time::Duration;

/// What one client can cost. Requests beyond it are refused, with the status that is named.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Entries or records of an answer: 413. Default: 10,000.
    pub entries: usize,
    /// Bytes of an answer's entries: 413. Default: 8 MiB.
    pub bytes: usize,
    /// Bytes of a request's body: 413. Default: 1 MiB.
    pub body: usize,
    /// Questions in one `POST`: 413. Default: 1,000.
    pub questions: usize,
    /// The time a request may take: 503. Default: ten seconds.
    pub time: Duration,
    /// Requests at once: 429. Default: 1,024.
    pub requests: usize,
    /// Requests at once that look at whole states or the log: 429. Default: 4.
    pub scans: usize,
    /// Clients at once that listen to events: 429. Default: 64.
    pub listeners: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            entries: 10_000,
            bytes: 8 << 20,
            body: 1 << 20,
            questions: 1_000,
            time: Duration::from_secs(10),
            requests: 1024,
            scans: 4,
            listeners: 64,
        }
    }
}
