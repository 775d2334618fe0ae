//! `look_up`: asks a service outside about each record, many at a time, without waiting for any.
//!
//! 1. A record becomes a request, and waits in a queue with the signals between records. As many requests as the look-up's capacity are out at
//!    once; replies come from any thread, into a mailbox, and wake the worker.
//! 2. A request that fails or is not answered in time is made again, after a pause, as often as the look-up says; then its fall-back answers,
//!    or the job stops with an error that names the record, or the record becomes a [dead letter](crate::dead_letters). A reply that comes after its request was given up is dropped.
//! 3. Answered records leave the queue from its front: in order. Unordered, they leave as they are answered, but no record passes a watermark or
//!    another signal in either direction, so event time behind a look-up is what it was before it.
//! 4. While requests wait to be made, the worker reads no sources; when the sources end, the stream ends behind the last answer.
//! 5. A barrier does not wait. What is in the queue goes into the checkpoint with it, and after a restart what was not answered is asked again.
//! 6. Answers are journaled ([`crate::journal`]), in the order of the log: for each record its offset, a hash of the request and the answer, or
//!    why it became a dead letter. A
//!    version of the flow that begins anew takes the answers from there, and asks only what the one before it had not asked: other requests, and
//!    what lies behind the end of the journal.
//!
//! In form this follows Flink's `AsyncDataStream` (ordered and unordered, capacity, time-out, retries; in-flight records in the snapshot). There
//! a reprocessing asks again and gets the answers of today.

mod answers;
mod asking;
mod queue;
mod reply;

pub use reply::Reply;

use crate::dead_letters::Failures;
use crate::error::BoxError;
use crate::plan::{NodeKind, NodeSpec};
use crate::stream::Stream;
use asking::Asking;
use queue::Rules;
use rivermark_state::StateValue;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

/// How a service is asked: what it is, how many requests at once, and what happens when it does not answer.
///
/// `Q` is what it is asked, `A` what it answers. Both ends are one's own types; an answer that may be missing is an `Option`.
pub struct LookUp<Q, A> {
    ask: Arc<Ask<Q, A>>,
    or_else: Option<Arc<OrElse<Q, A>>>,
    rules: Rules,
    journaled: bool,
}

type Ask<Q, A> = dyn Fn(Q, Reply<A>) + Send + Sync;
type OrElse<Q, A> = dyn Fn(Q, BoxError) -> Result<A, BoxError> + Send + Sync;

impl<Q, A> Clone for LookUp<Q, A> {
    fn clone(&self) -> Self {
        LookUp {
            ask: Arc::clone(&self.ask),
            or_else: self.or_else.clone(),
            rules: self.rules,
            journaled: self.journaled,
        }
    }
}

impl<Q, A> LookUp<Q, A> {
    /// Asks by calling `ask` with a request, and a [`Reply`] to be given the answer from any thread, at any time.
    ///
    /// `ask` is called on the worker's thread and must not block: it hands the request to a client that calls back, to a runtime, or to
    /// threads of its own. For a client that blocks, the connectors have a pool of threads.
    ///
    /// Up to 100 requests of each worker are out at once, each is given 10 seconds, none is made again; answers come in order and are journaled.
    pub fn new(ask: impl Fn(Q, Reply<A>) + Send + Sync + 'static) -> LookUp<Q, A> {
        let rules = Rules {
            capacity: 100,
            time_out: Duration::from_secs(10),
            retries: 0,
            pause: Duration::ZERO,
            ordered: true,
        };
        LookUp { ask: Arc::new(ask), or_else: None, rules, journaled: true }
    }

    /// How many requests each worker may have out at once. While more are wanted, it reads no sources.
    pub fn capacity(mut self, requests: usize) -> Self {
        self.rules.capacity = requests;
        self
    }

    /// How long each attempt may take, by the clock. To some ten milliseconds: a worker without work looks that often.
    pub fn time_out(mut self, time_out: Duration) -> Self {
        self.rules.time_out = time_out;
        self
    }

    /// How often a request that failed or timed out is made again, and after which pause.
    pub fn retries(mut self, retries: u32, pause: Duration) -> Self {
        (self.rules.retries, self.rules.pause) = (retries, pause);
        self
    }

    /// Lets records pass on as they are answered: less time in the queue where answers differ in how long they take. No record passes a
    /// watermark, so windows and whatever runs [`in_event_time_order`](crate::KeyedStream::in_event_time_order) give the same results; the order
    /// between two watermarks depends on the moment.
    pub fn unordered(mut self) -> Self {
        self.rules.ordered = false;
        self
    }

    /// Does not journal the answers. For services whose answer is a function of the request, which will give the same in a replay; of others a
    /// replay gets the answers of its own day.
    pub fn not_journaled(mut self) -> Self {
        self.journaled = false;
        self
    }

    /// Answers in the place of the service when all attempts have failed; without it, or where it fails, that
    /// stops the job, or makes the record a dead letter ([`Stream::on_error`]). What it answers, or says, is
    /// journaled as other answers are: a replay finds the service down at the same records.
    pub fn or_else(
        mut self,
        answer: impl Fn(Q, BoxError) -> Result<A, BoxError> + Send + Sync + 'static,
    ) -> Self {
        self.or_else = Some(Arc::new(answer));
        self
    }
}

impl<T: StateValue> Stream<T> {
    /// Asks a service outside about each record: `request` makes a request of it, and `join` a record of it and the answer. Time and provenance
    /// stay.
    ///
    /// Exactly-once as everything else: records whose answer is out at a checkpoint are in the checkpoint, and asked about again after a crash,
    /// so a service may be asked twice, and what comes of the record is one result. The answers are journaled with the checkpoints: another
    /// [version](crate::Flow::version) of the flow, which replays the log, gets the same answers to the same requests up to where the earlier
    /// version was in its newest checkpoint when the replay began; as long as the replay has not come so far, the earlier version's
    /// checkpoints must be kept. The operator is found by its [name](Stream::named). The journal costs an answer's encoding and some eight bytes a
    /// record, for as long as the flow lives ([`LookUp::not_journaled`] has none).
    ///
    /// Call it before [`Stream::key_by`], before or after [`Stream::event_time`]; behind an exchange it is an error of the plan, for there the
    /// order of records, and with it what a replay would find in the journal, depends on the moment.
    ///
    /// ```
    /// use rivermark_operators::{LookUp, Stream, secs};
    /// # #[derive(Clone)] struct Client;
    /// # impl Client { fn fetch(&self, _: String, then: impl FnOnce(std::io::Result<u32>)) { then(Ok(1)) } }
    /// # fn describe(orders: Stream<(String, u64)>, client: Client) {
    /// // Orders with the price of the moment.
    /// let prices = LookUp::new(move |article, reply| client.fetch(article, |price| reply.send(price.map_err(Into::into))))
    ///     .capacity(50)
    ///     .time_out(secs(2))
    ///     .retries(3, secs(1));
    /// orders.look_up(prices, |(article, _)| article.clone(), |(article, pieces), price| (article, pieces * u64::from(price)));
    /// # }
    /// ```
    pub fn look_up<Q: Hash + Send + 'static, A: StateValue, U: Send + 'static>(
        self,
        look_up: LookUp<Q, A>,
        request: impl Fn(&T) -> Q + Clone + Send + Sync + 'static,
        join: impl Fn(T, A) -> U + Clone + Send + Sync + 'static,
    ) -> Stream<U> {
        let mut spec = NodeSpec::new("look_up", NodeKind::Transform, vec![], 1);
        spec.needs_partitions = true;
        spec.can_fail = true;
        spec.keeps_journals = look_up.journaled;
        spec.mixes_order = !look_up.rules.ordered;
        if look_up.rules.capacity == 0 {
            spec.problem = Some("a capacity of no requests: nothing could ever be asked".into());
        }
        self.then(spec, move |builder, port| {
            let out = builder.output::<U>(port);
            let failures = Failures::open(builder);
            let asking = Asking::new(builder, look_up.clone(), request.clone(), join.clone(), out, failures);
            builder.attach(0, asking);
            Ok(())
        })
    }
}
