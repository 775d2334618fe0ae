//! How an answer comes back: from any thread, into the mailbox of the operator that asked.

use crate::error::BoxError;
use crate::source::Waker;
use parking_lot::Mutex;
use std::fmt;
use std::sync::Arc;

/// Which attempt at which record's request a reply is to.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Ticket {
    /// The record's place since the operator began.
    pub(super) place: u64,
    /// Counts from 1.
    pub(super) attempt: u32,
}

/// What came back.
pub(super) type Replied<A> = (Ticket, Result<A, BoxError>);

/// Replies that the operator has not taken yet.
pub(super) struct Mailbox<A> {
    replies: Mutex<Vec<Replied<A>>>,
    waker: Waker,
}

impl<A> Mailbox<A> {
    pub(super) fn new(waker: Waker) -> Arc<Mailbox<A>> {
        Arc::new(Mailbox { replies: Mutex::default(), waker })
    }

    /// Gives what has come into `taken`, which is empty, and keeps its memory.
    pub(super) fn take(&self, taken: &mut Vec<Replied<A>>) {
        std::mem::swap(&mut *self.replies.lock(), taken);
    }

    /// Whether nothing has come since.
    pub(super) fn is_empty(&self) -> bool {
        self.replies.lock().is_empty()
    }

    /// A reply to be given away with the request.
    pub(super) fn reply(self: &Arc<Self>, ticket: Ticket) -> Reply<A> {
        Reply { mailbox: Arc::clone(self), ticket: Some(ticket) }
    }

    fn put(&self, ticket: Ticket, answer: Result<A, BoxError>) {
        let mut replies = self.replies.lock();
        replies.push((ticket, answer));
        if replies.len() == 1 {
            drop(replies);
            self.waker.wake();
        }
    }
}

/// Where the answer to one request goes. Letting go of it unanswered is a failure of the request.
pub struct Reply<A> {
    mailbox: Arc<Mailbox<A>>,
    ticket: Option<Ticket>,
}

impl<A> Reply<A> {
    /// Answers. From any thread; costs a lock and, where the worker sleeps, waking it. An answer that comes too late is dropped.
    pub fn send(mut self, answer: Result<A, BoxError>) {
        if let Some(ticket) = self.ticket.take() {
            self.mailbox.put(ticket, answer);
        }
    }
}

impl<A> Drop for Reply<A> {
    fn drop(&mut self) {
        if let Some(ticket) = self.ticket.take() {
            self.mailbox.put(ticket, Err("the service let go of the request without a reply".into()));
        }
    }
}

impl<A> fmt::Debug for Reply<A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Reply").field("to", &self.ticket).finish()
    }
}
