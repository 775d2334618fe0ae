//! Where answers go: a sink that folds rows as they come, and counts each once whatever crashes.
//!
//! What a worker has folded between two barriers is put aside under a number, which is the token; a commit merges it into the answer. What was put
//! aside and not committed is thrown away by the next attempt. Answers live as long as the process: engines may come and go.

use crate::answer::{Answer, Folding, Row};
use crate::queries::Rows;
use rivermark::sink::{Batch, CommitError, Committer, Epoch, Sink, SinkContext, SinkWriter};
use rivermark::{BoxError, Stream};
use std::collections::{BTreeMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// A sink that folds an [`Answer`]. Clones share it.
#[derive(Clone)]
pub struct Answers {
    shared: Arc<Shared>,
}

struct Shared {
    folding: Folding,
    opened: Instant,
    /// When the last rows came, in nanoseconds after `opened`.
    last_rows: AtomicU64,
    state: Mutex<State>,
}

struct State {
    generation: u64,
    next: u64,
    prepared: BTreeMap<u64, Answer>,
    done: HashSet<u64>,
    committed: Answer,
}

impl Answers {
    /// An answer that is folded so.
    pub fn new(folding: Folding) -> Answers {
        let state = State {
            generation: 0,
            next: 0,
            prepared: BTreeMap::new(),
            done: HashSet::new(),
            committed: Answer::new(folding),
        };
        let (last_rows, state) = (AtomicU64::new(0), Mutex::new(state));
        Answers { shared: Arc::new(Shared { folding, opened: Instant::now(), last_rows, state }) }
    }

    /// What is committed.
    pub fn answer(&self) -> Answer {
        self.shared.lock().committed.clone()
    }

    /// When the last rows came to the sink.
    pub fn last_rows(&self) -> Instant {
        self.shared.opened + Duration::from_nanos(self.shared.last_rows.load(Ordering::Relaxed))
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().expect("nobody panics while holding the answers")
    }
}

impl State {
    fn admit(&self, generation: u64) -> Result<(), String> {
        if self.generation > generation {
            return Err(format!("generation {generation} is fenced by generation {}", self.generation));
        }
        Ok(())
    }
}

impl Rows for Answers {
    fn take<R: Row + Sync>(self, rows: Stream<R>) {
        rows.sink_as("answers", self);
    }
}

impl<R: Row> Sink<R> for Answers {
    type Writer = AnswerWriter;

    fn writer(&self, cx: &SinkContext<'_>) -> Result<AnswerWriter, BoxError> {
        let part = Answer::new(self.shared.folding);
        Ok(AnswerWriter { shared: Arc::clone(&self.shared), generation: cx.generation, part })
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Ok(Box::new(AnswerCommitter { shared: Arc::clone(&self.shared), generation: cx.generation }))
    }
}

/// One worker's share of [`Answers`].
pub struct AnswerWriter {
    shared: Arc<Shared>,
    generation: u64,
    part: Answer,
}

impl<R: Row> SinkWriter<R> for AnswerWriter {
    fn write(&mut self, batch: &mut Batch<R>) -> Result<(), BoxError> {
        self.part.rows_of(batch.drain().map(|(_, row)| row));
        let now = self.shared.opened.elapsed().as_nanos() as u64;
        self.shared.last_rows.fetch_max(now, Ordering::Relaxed);
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        if self.part.is_empty() {
            return Ok(None);
        }
        let part = std::mem::replace(&mut self.part, Answer::new(self.shared.folding));
        let mut state = self.shared.lock();
        state.admit(self.generation)?;
        let number = state.next;
        state.next += 1;
        state.prepared.insert(number, part);
        Ok(Some(number.to_le_bytes().to_vec()))
    }
}

struct AnswerCommitter {
    shared: Arc<Shared>,
    generation: u64,
}

impl Committer for AnswerCommitter {
    fn recover(&mut self, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        {
            let mut state = self.shared.lock();
            state.admit(self.generation).map_err(|e| CommitError::Refused(e.into()))?;
            state.generation = self.generation;
        }
        self.commit(Epoch(0), tokens)?;
        self.shared.lock().prepared.clear();
        Ok(())
    }

    fn commit(&mut self, _epoch: Epoch, tokens: &[Vec<u8>]) -> Result<(), CommitError> {
        let mut state = self.shared.lock();
        state.admit(self.generation).map_err(|e| CommitError::Refused(e.into()))?;
        for token in tokens {
            let number = token[..].try_into().map(u64::from_le_bytes);
            let number =
                number.map_err(|_| CommitError::Refused("a token is none of these answers'".into()))?;
            match state.prepared.remove(&number) {
                Some(part) => {
                    state.committed.merge(part);
                    state.done.insert(number);
                }
                None if state.done.contains(&number) => {}
                None => {
                    let lost = format!("rows {number} were never prepared in this process");
                    return Err(CommitError::Refused(lost.into()));
                }
            }
        }
        Ok(())
    }
}
