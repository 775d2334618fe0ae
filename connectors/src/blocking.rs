//! Threads for clients that block, where a look-up must not.

use crossbeam_channel::{Receiver, Sender, unbounded};
use parking_lot::Mutex;
use rivermark_operators::{BoxError, Reply, panic_message};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;

type Requests<Q, A> = Receiver<(Q, Reply<A>)>;

/// Makes a client that blocks one that a [`LookUp`](rivermark_operators::LookUp) can ask: up to `threads` calls are made at once, on threads of
/// their own, which are started as they are needed and end when the flow is gone.
///
/// A call that panics is a failed one. A call that hangs holds its thread, whatever the look-up's time-out: give the client a time-out of its own.
/// Costs a channel and waking a thread for each request, some ten microseconds.
///
/// ```
/// use rivermark_connectors::blocking;
/// use rivermark_operators::{LookUp, Stream};
/// # fn describe(visits: Stream<String>) {
/// let hosts = LookUp::new(blocking(8, |path: String| Ok(std::fs::read_to_string(path)?))).capacity(8);
/// visits.look_up(hosts, |path| path.clone(), |path, content: String| (path, content.len()));
/// # }
/// ```
pub fn blocking<Q: Send + 'static, A: Send + 'static>(
    threads: usize,
    call: impl Fn(Q) -> Result<A, BoxError> + Send + Sync + 'static,
) -> impl Fn(Q, Reply<A>) + Send + Sync + 'static {
    let (sender, requests) = unbounded();
    let pool = Pool { sender, requests, call: Arc::new(call), most: threads.max(1), started: Mutex::new(0) };
    move |request, reply| pool.ask(request, reply)
}

struct Pool<Q, A, F> {
    sender: Sender<(Q, Reply<A>)>,
    requests: Requests<Q, A>,
    call: Arc<F>,
    most: usize,
    started: Mutex<usize>,
}

impl<Q: Send + 'static, A: Send + 'static, F> Pool<Q, A, F>
where
    F: Fn(Q) -> Result<A, BoxError> + Send + Sync + 'static,
{
    fn ask(&self, request: Q, reply: Reply<A>) {
        let mut started = self.started.lock();
        if *started < self.most {
            match self.start(*started) {
                Ok(()) => *started += 1,
                Err(error) if *started == 0 => {
                    return reply.send(Err(format!("starting a thread to ask on: {error}").into()));
                }
                // Those that are there go on.
                Err(_) => {}
            }
        }
        drop(started);
        // It cannot fail: the pool itself holds a receiver.
        let _ = self.sender.send((request, reply));
    }

    fn start(&self, number: usize) -> std::io::Result<()> {
        let (requests, call) = (self.requests.clone(), Arc::clone(&self.call));
        let answer = move || {
            for (request, reply) in requests {
                let answer = catch_unwind(AssertUnwindSafe(|| call(request)));
                reply.send(answer.unwrap_or_else(|panic| {
                    let why = panic_message(&*panic).unwrap_or("it did not say why");
                    Err(format!("the call panicked: {why}").into())
                }));
            }
        };
        thread::Builder::new().name(format!("look-up-{number}")).spawn(answer).map(drop)
    }
}
