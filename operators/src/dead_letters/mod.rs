//! What becomes of a record on which a function fails.
//!
//! An operator whose function can fail stops the job when it does, and the error names the record ([`OnError::Stop`]). Or it lets the record
//! leave the flow as a [`DeadLetter`], and goes on ([`OnError::DeadLetter`]). That is a choice an operator: [`Stream::dead_letters`] gives the
//! letters of one operator as a stream, [`Stream::on_error`] sends them to the sink that [`Flow::dead_letters_to`] names for all of a flow.
//!
//! ```
//! use rivermark_operators::{Timestamp, testing};
//!
//! testing::check(|it| {
//!     let (words, stream) = it.input();
//!     let numbers = stream.try_map(|word: &str| Ok(word.parse::<u64>()?)).named("parse");
//!     let (letters, numbers) = (it.output(numbers.dead_letters()), it.output(numbers));
//!     ["1", "two", "3"].into_iter().for_each(|word| it.push(&words, Timestamp::MIN, word));
//!     it.expect(&numbers, [1, 3]);
//!     let letters = it.take(&letters);
//!     assert_eq!((&*letters[0].operator, letters[0].offset()), ("parse", Some(1)));
//!     assert_eq!(letters[0].error, "invalid digit found in string");
//! });
//! ```
//!
//! 1. A record carries where it came from (its [`Origin`](crate::Origin)) and nothing else for this: a record that does not fail costs nothing.
//! 2. When the function fails, what it did in this call is taken back: records that it emitted, and in a [`ProcessFunction`](crate::process::ProcessFunction) its
//!    changes of keyed state and timers. What it keeps in fields of its own is not; what must be right belongs in state. A timer that fails
//!    has fired.
//! 3. Its place and the error go out beside the stream. Where keys have moved the records between workers, letters move to the worker that has all
//!    of their source partition; there they wait for the next barrier, and go on sorted by offset. A sink shows nothing before a barrier
//!    anyway. A worker holds 131,072 letters at the most: where more come without a barrier, they go on sorted in parts, and which letters are in
//!    which part depends on the moment.
//! 4. Only there the raw bytes are read again, from the source and by offset ([`Source::raw_records`](crate::source::Source::raw_records)). A source that cannot do so
//!    leaves them out.
//!
//! So a letter is output like any other: exactly once, through crashes. The letters of an operator come in the same order for each source
//! partition, whatever the speed and the number of workers: by offset; behind something that lets records wait for their time (windows, event-time
//! order), by event time and then by offset; of an unordered look-up, and behind it, as the moment gives it. That holds as far as the function's failures themselves depend on the record, and on state that
//! depends on the log alone.
//!
//! What always stops the job: a panic, since nobody knows what it left half done; an error of the state (the disk), which is not the record's
//! fault, as long as the function passes it on as it is or as the source of its own error; and functions that cannot return an error.

mod bytes;
mod failures;
mod letters;
#[cfg(test)]
mod tests;

pub(crate) use failures::Failures;
pub(crate) use letters::write_letters;

use crate::sink::Sink;
use crate::stream::{Flow, Stream};
use crate::time::Timestamp;
use serde::{Deserialize, Serialize};

/// What an operator does when its function fails on a record; see [`dead_letters`](crate::dead_letters).
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub enum OnError {
    /// The job stops, and the error names operator and record. Nothing is lost: after a correction the job goes on with that record.
    #[default]
    Stop,
    /// The record leaves the flow as a [`DeadLetter`], and the job goes on.
    DeadLetter,
}

/// A record that left a flow because something failed on it: where it lay, its bytes as they lie there, and what failed.
///
/// With `record` and its bytes it can be found in the source, and put in again.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// The flow's name.
    pub flow: String,
    /// The flow's version.
    pub version: u64,
    /// The operator that failed; the source itself where a record could not be decoded.
    pub operator: String,
    /// What it said, with the errors behind that.
    pub error: String,
    /// The record's event time, where it was known already; a timer's time.
    pub time: Option<Timestamp>,
    /// Which record of which source. `None` for what has no single one: the result of a window, a timer.
    pub record: Option<SourceRecord>,
}

/// Where a record lies in its source, and as what.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SourceRecord {
    /// The source's name in the flow.
    pub source: String,
    /// The partition's number in the source.
    pub partition: u32,
    /// The partition in the source's words, such as `clicks[3]`.
    pub name: String,
    /// The record's offset there.
    pub offset: u64,
    /// Its bytes. `None` where the source cannot give them again, or has let go of them since.
    pub raw: Option<RawRecord>,
}

/// A record's bytes, as they lie in its source.
///
/// In formats that people read they are text where they are UTF-8, and hexadecimal digits (`{"hex":"00ff"}`) where not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct RawRecord {
    /// Its key, as found.
    #[serde(with = "bytes")]
    pub key: Option<Vec<u8>>,
    /// Its value, as found.
    #[serde(with = "bytes")]
    pub value: Option<Vec<u8>>,
}

impl DeadLetter {
    /// The partition that the record lies in, in the source's words.
    pub fn partition(&self) -> Option<&str> {
        self.record.as_ref().map(|record| &*record.name)
    }

    /// The record's offset there.
    pub fn offset(&self) -> Option<u64> {
        self.record.as_ref().map(|record| record.offset)
    }

    fn raw(&self) -> Option<&RawRecord> {
        self.record.as_ref()?.raw.as_ref()
    }

    /// The key of the record in its source, if it has one and the bytes are known.
    pub fn key(&self) -> Option<&[u8]> {
        self.raw()?.key.as_deref()
    }

    /// The value of the record in its source, if it has one and the bytes are known.
    pub fn value(&self) -> Option<&[u8]> {
        self.raw()?.value.as_deref()
    }
}

impl<T: Send + 'static> Stream<T> {
    /// Says what the operator that this stream comes out of does when its function fails. With [`OnError::DeadLetter`] its letters go where
    /// [`Flow::dead_letters_to`] says, unless [`Stream::dead_letters`] takes them apart; one of the two is needed.
    ///
    /// For sources (records that cannot be decoded), [`Stream::try_map`], [`Stream::try_flat_map`], [`KeyedStream::process`](crate::KeyedStream::process),
    /// [`KeyedStream::process_with_broadcast`](crate::KeyedStream::process_with_broadcast) and [`Stream::look_up`]. For others it is an error of [`Flow::into_plan`]: their functions
    /// return no errors.
    pub fn on_error(self, on_error: OnError) -> Self {
        self.graph().borrow_mut().set_on_error(self.port(), on_error);
        self
    }

    /// The records on which the operator that this stream comes out of fails, as a stream of their own; implies
    /// [`OnError::DeadLetter`]. See [`dead_letters`](crate::dead_letters) for what is in them and in which order they come.
    ///
    /// Asked for twice, it is an error of [`Flow::into_plan`]: clone the stream instead.
    pub fn dead_letters(&self) -> Stream<DeadLetter> {
        let mut graph = self.graph().borrow_mut();
        graph.set_on_error(self.port(), OnError::DeadLetter);
        let node = graph.node_of(self.port());
        drop(graph);
        write_letters(self, &[node])
    }
}

impl Flow {
    /// Writes the dead letters of all operators for which [`Stream::on_error`] says [`OnError::DeadLetter`], and whose letters are not taken by
    /// [`Stream::dead_letters`], to one sink, named `dead-letters`. It may be said before or after the operators are described; said twice,
    /// the last counts.
    ///
    /// Letters come sorted by the record's place (see [`dead_letters`](crate::dead_letters)), those of one record by operator. They are held until the next
    /// barrier, in memory: about 100 bytes each and the error's text, and up to 131,072 of them on each worker. Where more come without a barrier, as
    /// they may with checkpoints far apart or off, what is held goes on, and letters are sorted in parts.
    pub fn dead_letters_to<S: Sink<DeadLetter>>(&self, sink: S) {
        self.set_dead_letters(Box::new(move |letters| letters.sink_as("dead-letters", sink)));
    }
}
