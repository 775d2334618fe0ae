//! Who appends departures in the order in which the planes left, at a pace, and not beyond a gate: what a step of the story needs is there however fast
//! the machine is.

use crate::answers::{Answers, Offsets};
use crate::flights::Departure;
use crate::flow::DEPARTURES;
use rivermark::BoxError;
use rivermark::log::{Log, RecordBatch, Topic};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How often departures are appended.
const TICK: Duration = Duration::from_millis(5);
/// The most that are appended at a time.
const AT_ONCE: usize = 4096;
const DAY_S: f64 = 86_400.0;

/// A thread that feeds departures in until it is dropped.
pub struct Feeder {
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

#[derive(Default)]
struct Shared {
    /// Days a second, the bits of an `f64`.
    pace: AtomicU64,
    /// The gate: how many departures may be in the log.
    gate: AtomicUsize,
    fed: AtomicUsize,
    failure: Mutex<Option<String>>,
    is_over: AtomicBool,
}

impl Feeder {
    /// Goes on behind what is in the log, once it may.
    pub fn start(log: &Log, answers: &Arc<Answers>) -> Result<Feeder, BoxError> {
        let topic = log.topic(DEPARTURES)?;
        let mut there = Offsets::default();
        for (partition, there) in (0..).zip(&mut there) {
            *there = topic.info(partition)?.end;
        }
        let shared = Arc::new(Shared::default());
        let (feeding, answers) = (Arc::clone(&shared), Arc::clone(answers));
        let thread = std::thread::Builder::new().name("feeder".into()).spawn(move || {
            if let Err(error) = feed(&topic, &answers.departures, there, &feeding) {
                *feeding.failure.lock().unwrap_or_else(PoisonError::into_inner) = Some(error.to_string());
            }
        })?;
        Ok(Feeder { shared, thread: Some(thread) })
    }

    /// Feeds at so many days a second, up to the `gate`-th departure of all.
    pub fn feed(&self, days_per_second: f64, gate: usize) {
        self.shared.pace.store(days_per_second.to_bits(), Ordering::SeqCst);
        self.shared.gate.store(gate, Ordering::SeqCst);
    }

    /// Departures that are in the log.
    pub fn fed(&self) -> usize {
        self.shared.fed.load(Ordering::SeqCst)
    }

    /// Whether it feeds.
    pub fn check(&self) -> Result<(), BoxError> {
        match &*self.shared.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(format!("feeding departures: {failure}").into()),
            None => Ok(()),
        }
    }
}

impl Drop for Feeder {
    fn drop(&mut self) {
        self.shared.is_over.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// `there`: how many departures of each partition are in the log. It may have been cut off anywhere, but each partition has a beginning of its own.
fn feed(topic: &Topic, departures: &[Departure], there: Offsets, shared: &Shared) -> Result<(), BoxError> {
    let (mut next, mut seen, mut last) = (0, Offsets::default(), Instant::now());
    // The time of the year, in seconds; it begins where the log ends, and stands still at the gate.
    let mut clock: Option<f64> = None;
    let mut batches: [RecordBatch; 3] = std::array::from_fn(|_| RecordBatch::new());
    while !shared.is_over.load(Ordering::SeqCst) {
        let gate = shared.gate.load(Ordering::SeqCst).min(departures.len());
        let pace = f64::from_bits(shared.pace.load(Ordering::SeqCst)) * DAY_S;
        clock = clock.map(|clock| clock + pace * last.elapsed().as_secs_f64());
        last = Instant::now();
        let mut appended = 0;
        while next < gate && appended < AT_ONCE {
            let departure = &departures[next];
            let partition = departure.partition() as usize;
            if seen[partition] >= there[partition] {
                let left_at = departure.dep_ts as f64;
                if left_at > *clock.get_or_insert(left_at) {
                    break;
                }
                batches[partition].push(None, Some(&serde_json::to_vec(departure)?), 0);
                appended += 1;
            }
            seen[partition] += 1;
            next += 1;
        }
        for (partition, batch) in (0..).zip(&mut batches) {
            if !batch.is_empty() {
                topic.append(partition, batch)?;
            }
        }
        if next >= gate && next > 0 {
            clock = clock.map(|_| departures[next - 1].dep_ts as f64);
        }
        shared.fed.store(next, Ordering::SeqCst);
        if appended < AT_ONCE {
            std::thread::sleep(TICK);
        }
    }
    Ok(())
}
