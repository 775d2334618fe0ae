//! Questions about what workers have now: newer than any epoch, and not stored yet.

use parking_lot::Mutex;
use rivermark_operators::{Error, Result};
use rivermark_state::{KeyedStore, Latest, Mailbox, StateError};
use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

/// How long a worker is waited for, unless told otherwise.
const PATIENCE: Duration = Duration::from_secs(10);

/// The mailboxes of all stores of a job, by operator.
#[derive(Default)]
pub(crate) struct Mailboxes {
    of_operators: Mutex<BTreeMap<Arc<str>, Vec<Mailbox>>>,
}

impl Mailboxes {
    /// A worker has opened a store; it takes the place of that of the attempt before.
    pub(crate) fn add(&self, operator: &Arc<str>, store: &mut KeyedStore) {
        let mailbox = store.mailbox();
        let mut of_operators = self.of_operators.lock();
        let mailboxes = of_operators.entry(Arc::clone(operator)).or_default();
        mailboxes.retain(|other| other.range().intersection(mailbox.range()).is_empty());
        mailboxes.push(mailbox);
    }

    /// The stores that own a place, by operator.
    fn owners<P, H: Latest<P>>(&self, operator: Option<&str>, place: &P) -> Vec<(Arc<str>, Mailbox)> {
        let of_operators = self.of_operators.lock();
        let asked =
            of_operators.iter().filter(|(name, _)| operator.is_none_or(|operator| operator == &***name));
        let owner = |(name, mailboxes): (&Arc<str>, &Vec<Mailbox>)| {
            let owner = mailboxes.iter().find(|mailbox| mailbox.owns::<P, H>(place))?;
            Some((Arc::clone(name), owner.clone()))
        };
        asked.filter_map(owner).collect()
    }

    fn operators(&self) -> String {
        let names: Vec<String> = self.of_operators.lock().keys().map(|name| format!("`{name}`")).collect();
        if names.is_empty() { "none".to_owned() } else { names.join(", ") }
    }
}

/// A question about a state as it is now: [`Job::latest`](crate::Job::latest). The worker that owns the key answers it, between two batches.
///
/// - It is newer than any epoch, by up to a checkpoint's interval, and a failure may take it back.
/// - Two answers are of two moments. What has to fit together is asked of a [`View`](crate::View).
/// - Of a state with a time to live, what is seen is what a record at the operator's watermark would see.
pub struct LatestQuery<H> {
    flow: String,
    version: Option<u64>,
    mailboxes: Arc<Mailboxes>,
    handle: H,
    operator: Option<String>,
    patience: Duration,
}

impl<H: Copy> LatestQuery<H> {
    pub(crate) fn new(flow: &str, version: Option<u64>, mailboxes: &Arc<Mailboxes>, handle: H) -> Self {
        let (flow, mailboxes) = (flow.to_owned(), Arc::clone(mailboxes));
        LatestQuery { flow, version, mailboxes, handle, operator: None, patience: PATIENCE }
    }

    /// The version of the flow that is asked; `None` if none was started in this process.
    pub fn version(&self) -> Option<u64> {
        self.version
    }

    /// Says which operator's state is meant, by its name in the flow.
    #[must_use]
    pub fn of(self, operator: &str) -> Self {
        LatestQuery { operator: Some(operator.to_owned()), ..self }
    }

    /// Says how long to wait for an answer. Default: ten seconds.
    #[must_use]
    pub fn within(self, patience: Duration) -> Self {
        LatestQuery { patience, ..self }
    }

    /// What is at a place now; places are as of [`Query::get`](crate::Query::get). `None` if nothing is. Waits until the worker has a moment for it:
    /// the rest of a batch as a rule, up to ten milliseconds where nothing flows. Of a list it copies all items, on the worker.
    ///
    /// # Errors
    /// No operator, or several, have a state of that name; it has another kind or other types (the error names what there is); the worker has
    /// not answered in time, or has failed; or the job is over.
    pub fn get<P>(&self, place: &P) -> Result<Option<H::Entry>>
    where
        P: Clone + Send + 'static,
        H: Latest<P> + Send + 'static,
        H::Entry: Send + 'static,
    {
        let owners = self.mailboxes.owners::<P, H>(self.operator.as_deref(), place);
        let (tell, answers) = channel();
        let mut asked = 0;
        for (operator, mailbox) in owners {
            let (tell, operator) = (tell.clone(), Arc::clone(&operator));
            // Whoever asked may have stopped waiting.
            let answer = move |answer| drop(tell.send((operator, answer)));
            asked += usize::from(mailbox.ask(self.handle, place.clone(), answer));
        }
        drop(tell);
        if asked == 0 {
            let problem =
                "no worker has it: there is no such operator with state, or the job is starting or over";
            return Err(self
                .failed::<P>(format!("{problem}; operators with state are {}", self.mailboxes.operators())));
        }
        let (mut found, mut missing) = (Vec::new(), Vec::new());
        for _ in 0..asked {
            match answers.recv_timeout(self.patience) {
                Ok((_, Err(StateError::NoSuchState { existing, .. }))) => missing.extend(existing),
                // One of other types is one of that name.
                Ok(answer) => found.push(answer),
                Err(RecvTimeoutError::Timeout) => {
                    return Err(
                        self.failed::<P>(format!("no worker has answered within {:?}", self.patience))
                    );
                }
                Err(RecvTimeoutError::Disconnected) => {
                    return Err(self.failed::<P>("its worker has ended; ask again".to_owned()));
                }
            }
        }
        match found.pop() {
            Some((_, answer)) if found.is_empty() => {
                answer.map_err(|error| self.failed::<P>(error.to_string()))
            }
            Some((last, _)) => {
                let others: Vec<String> = found.iter().map(|(operator, _)| format!("`{operator}`")).collect();
                let problem =
                    format!("operators {}, `{last}` have it; say which by `.of(..)`", others.join(", "));
                Err(self.failed::<P>(problem))
            }
            None => {
                Err(self.failed::<P>(format!("there is no such state; there are {}", missing.join(", "))))
            }
        }
    }

    fn failed<P>(&self, problem: String) -> Error
    where
        H: Latest<P>,
    {
        let state = rivermark_state::Queried::<P>::name(self.handle);
        Error::engine(format!("asking for the latest of state `{state}` of flow `{}`", self.flow), problem)
    }
}

impl<H: fmt::Debug> fmt::Debug for LatestQuery<H> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("LatestQuery")
            .field("flow", &self.flow)
            .field("handle", &self.handle)
            .field("operator", &self.operator)
            .finish_non_exhaustive()
    }
}
