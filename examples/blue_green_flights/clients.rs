//! Clients that ask over HTTP without a pause, and compare every answer with what is right at its offsets.

use crate::answers::{Answers, Offsets, Told};
use crate::flights::ORIGINS;
use crate::flow::{FLOW, HOURS};
use crate::http::Connection;
use rivermark::BoxError;
use serde_json::{Value as Json, json};
use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// How many there are.
const CLIENTS: usize = 2;
/// Between two requests of a client: the flow has the cores to itself for most of the time.
const BETWEEN: Duration = Duration::from_millis(1);

/// What all clients know.
#[derive(Default)]
struct Shared {
    /// Where the server listens, while there is one.
    address: Mutex<Option<SocketAddr>>,
    /// Counts changes of the live version; odd while it changes, or while nobody knows.
    steps: AtomicU64,
    live: AtomicU64,
    is_over: AtomicBool,
}

/// Clients that ask until they are told to stop.
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Asked>>,
}

/// What clients have seen.
#[derive(Debug, Default)]
pub struct Asked {
    /// Answers, by version.
    pub answered: BTreeMap<u64, u64>,
    /// Requests that were told to come again, with the reason of the last.
    pub refused: u64,
    pub refusal: String,
    /// Requests that were not answered: the server had died, or died over it.
    pub lost: u64,
    /// What was wrong with answers.
    pub wrong: Vec<String>,
    /// How long answers took.
    pub took: Vec<Duration>,
}

impl Asked {
    pub fn answers(&self) -> u64 {
        self.answered.values().sum()
    }

    fn add(&mut self, other: Asked) {
        for (version, count) in other.answered {
            *self.answered.entry(version).or_default() += count;
        }
        self.refused += other.refused;
        if !other.refusal.is_empty() {
            self.refusal = other.refusal;
        }
        self.lost += other.lost;
        self.wrong.extend(other.wrong);
        self.took.extend(other.took);
    }

    /// The time within which a part of the answers came.
    pub fn within(&mut self, part: f64) -> Duration {
        self.took.sort_unstable();
        let place = ((self.took.len() as f64 * part) as usize).min(self.took.len().saturating_sub(1));
        self.took.get(place).copied().unwrap_or_default()
    }
}

impl Clients {
    pub fn start(answers: &Arc<Answers>) -> Result<Clients, BoxError> {
        let shared = Arc::new(Shared { steps: AtomicU64::new(1), ..Shared::default() });
        let mut threads = Vec::new();
        for number in 0..CLIENTS {
            let (answers, shared) = (Arc::clone(answers), Arc::clone(&shared));
            let client =
                Client { answers, shared, number, seen: Offsets::default(), asked: Asked::default() };
            threads.push(std::thread::Builder::new().name("client".into()).spawn(move || client.run())?);
        }
        Ok(Clients { shared, threads })
    }

    /// Says where the server is; `None` if there is none.
    pub fn ask(&self, address: Option<SocketAddr>) {
        *self.shared.address.lock().unwrap_or_else(PoisonError::into_inner) = address;
    }

    /// This version is live, and no other answers from now on.
    pub fn is_live(&self, version: u64) {
        self.shared.live.store(version, Ordering::SeqCst);
        self.shared.steps.fetch_add(1, Ordering::SeqCst);
    }

    /// The live version is about to change.
    pub fn changes(&self) {
        self.shared.steps.fetch_add(1, Ordering::SeqCst);
    }

    /// Stops them, and answers what they have seen.
    pub fn stop(self) -> Result<Asked, BoxError> {
        self.shared.is_over.store(true, Ordering::SeqCst);
        let mut all = Asked::default();
        for thread in self.threads {
            all.add(thread.join().map_err(|_| "a client has panicked")?);
        }
        Ok(all)
    }
}

/// One of them.
struct Client {
    answers: Arc<Answers>,
    shared: Arc<Shared>,
    number: usize,
    /// The offsets of its newest answer.
    seen: Offsets,
    asked: Asked,
}

/// What is asked.
enum Question {
    Carrier(String),
    /// All of them, at one epoch.
    Carriers(Vec<String>),
    Hours(&'static str),
}

impl Question {
    fn request(&self) -> (String, Option<String>) {
        match self {
            Question::Carrier(carrier) => {
                (format!("/v1/flows/{FLOW}/states/punctuality/entries/{carrier}"), None)
            }
            Question::Carriers(carriers) => {
                let of = |carrier: &String| json!({ "state": "punctuality", "key": carrier });
                let questions: Vec<Json> = carriers.iter().map(of).collect();
                (format!("/v1/flows/{FLOW}/query"), Some(json!({ "questions": questions }).to_string()))
            }
            Question::Hours(origin) => (format!("/v1/flows/{FLOW}/windows/{HOURS}/{origin}"), None),
        }
    }

    fn check(&self, answers: &Answers, told: &Told, answer: &Json) -> Result<(), String> {
        match self {
            Question::Carrier(carrier) => answers.check_carrier(told, carrier, &answer["value"]),
            Question::Carriers(carriers) => {
                let values = answer["values"].as_array().filter(|values| values.len() == carriers.len());
                let mut pairs = carriers.iter().zip(values.ok_or("an answer to other questions")?);
                pairs.try_for_each(|(carrier, value)| answers.check_carrier(told, carrier, value))
            }
            Question::Hours(origin) => answers.check_hours(told, origin, &answer["windows"]),
        }
    }
}

impl Client {
    fn run(mut self) -> Asked {
        let carriers: Vec<String> = self.answers.carriers().map(str::to_owned).collect();
        let mut connection: Option<(SocketAddr, Connection)> = None;
        for turn in self.number.. {
            if self.shared.is_over.load(Ordering::SeqCst) {
                break;
            }
            std::thread::sleep(BETWEEN);
            let address = *self.shared.address.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(address) = address else { continue };
            let question = match turn % 8 {
                3 => Question::Carriers(carriers.clone()),
                6 => Question::Hours(ORIGINS[turn / 8 % ORIGINS.len()]),
                _ => Question::Carrier(carriers[turn % carriers.len()].clone()),
            };
            let mut current = match connection.take().filter(|(of, _)| *of == address) {
                Some((_, connection)) => connection,
                None => match Connection::open(address) {
                    Ok(connection) => connection,
                    Err(_) => {
                        self.asked.lost += 1;
                        continue;
                    }
                },
            };
            if self.ask(&mut current, &question) {
                connection = Some((address, current));
            }
        }
        self.asked
    }

    /// Asks, and takes note of the answer. Answers whether the connection can be used again.
    fn ask(&mut self, connection: &mut Connection, question: &Question) -> bool {
        let (path, body) = question.request();
        let steps = self.shared.steps.load(Ordering::SeqCst);
        let live = self.shared.live.load(Ordering::SeqCst);
        let begun = Instant::now();
        let Ok((status, body)) = connection.ask(&path, body.as_deref()) else {
            self.asked.lost += 1;
            return false;
        };
        self.asked.took.push(begun.elapsed());
        if status != 200 {
            let refusal = format!("{path}: {status} {}", String::from_utf8_lossy(&body));
            match status {
                // Not now.
                503 => (self.asked.refused, self.asked.refusal) = (self.asked.refused + 1, refusal),
                _ => self.asked.wrong.push(refusal),
            }
            return true;
        }
        let is_settled = steps.is_multiple_of(2) && self.shared.steps.load(Ordering::SeqCst) == steps;
        match self.check(question, &body, is_settled.then_some(live)) {
            Ok(version) => *self.asked.answered.entry(version).or_default() += 1,
            Err(wrong) => self.asked.wrong.push(wrong),
        }
        true
    }

    fn check(&mut self, question: &Question, body: &[u8], live: Option<u64>) -> Result<u64, String> {
        let answer: Json = serde_json::from_slice(body).map_err(|e| format!("no JSON: {e}"))?;
        let told = Told::of(&answer)?;
        if live.is_some_and(|live| live != told.version) {
            return Err(format!("version {} answers while {live:?} is live", told.version));
        }
        if self.seen.iter().zip(told.offsets).any(|(seen, now)| now < *seen) {
            return Err(format!(
                "an answer at {told:?} reflects less than one before it, at {:?}",
                self.seen
            ));
        }
        self.seen = told.offsets;
        question.check(&self.answers, &told, &answer)?;
        Ok(told.version)
    }
}
