//! Dead letters that lie in a topic of the log: listed, and put in again.
//!
//! | module | what lives there |
//! | --- | --- |
//! | `list` | which letters there are |
//! | `ledger` | which records were put in again, and by which redrive |
//! | `redrive` | putting them in again, exactly once |
//!
//! A letter ([`DeadLetter`](rivermark_operators::DeadLetter)) has the bytes of its record and the place where it lies. To *redrive* it is to append the record to its topic once
//! more, as it is or mended. From then on it is a record as any other, in the log: a later version that replays the log finds both, the one that
//! failed and the one behind it, in the same order, and comes to the same outcome.
//!
//! ```
//! use rivermark_connectors::DeadLetters;
//! use rivermark_operators::RawRecord;
//!
//! # fn main() -> rivermark_operators::Result<()> {
//! # let log = rivermark_log::Log::open("log", rivermark_log::LogOptions::new().disk(rivermark_log::MemoryDisk::new())).unwrap();
//! # log.create_topic("failed", rivermark_log::TopicOptions::new(1)).unwrap();
//! let letters = DeadLetters::of_topic(&log, "failed").operator("parse").error("invalid digit");
//! for filed in letters.list()? {
//!     let filed = filed?;
//!     println!("{}", filed.letter.error);
//! }
//! let redriven = letters
//!     .redrive("2026-11-28-decimal-commas")
//!     .mend(|letter| {
//!         let value = String::from_utf8(letter.value().unwrap_or_default().to_vec())?.replace(',', ".");
//!         Ok(Some(RawRecord { key: letter.key().map(<[u8]>::to_vec), value: Some(value.into_bytes()) }))
//!     })
//!     .run()?;
//! println!("{redriven}");
//! # Ok(())
//! # }
//! ```
//!
//! # Once
//! 1. What was put in again is in a topic of the log, [`REDRIVEN_TOPIC`], by the record's place. A record that is there is not put in again,
//!    whichever letter asks for it: two operators may have failed on it, and two versions. [`Redrive::again`] does so once more, under a name
//!    that it was not put in by before.
//! 2. Records go in by transactions of the log, together with their lines in that topic: either both are there or neither. A redrive that is killed
//!    is run again, under the same name, and goes on where it was.
//! 3. A redrive fences the one before it in the same log, so that two at a time put in nothing twice.
//!
//! # Event time
//! A record that is put in again keeps the timestamp that it had, and the time that its value says. Its *place* is new, so it meets a watermark
//! that is further on: windows that are over by then count it as late. That is judged by the log, so a replay comes to the same. There are three
//! ways to have it counted where it belongs:
//! - Redrive before its windows are over, or allow them the lateness (`allowed_lateness`).
//! - Redrive into a topic of its own ([`Redrive::into_topic`]), and let the next version of the flow read that one beside the first: a partition of
//!   its own has a watermark of its own, so that in the replay the records come at their time. Sorted by time, if there are several (letters are
//!   in order of offset, not of time: give that topic a wide enough bound).
//! - Functions without event time take it as it comes.
//!
//! A record that was put in again runs through *all* of the flow, also those branches in which it had not failed.

mod ledger;
mod list;
mod redrive;

pub use ledger::REDRIVEN_TOPIC;
pub use list::{DeadLetters, FiledLetter, Letters};
pub use redrive::{FROM_HEADER, REDRIVE_HEADER, Redrive, Redriven};
