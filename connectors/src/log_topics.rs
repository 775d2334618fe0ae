//! Which topics of the log a source reads.
//!
//! A source's partitions have numbers, fixed for its life. Those of one topic have the topic's own. Where a pattern chooses the topics, new ones
//! come in between the others by name, so a count would not do: a partition's number is a hash of its topic's name and its place in that.
//! Two partitions of one number are one in a million pairs of thousands; if it happens, it is an error that names both topics.

use crate::log_source::log_of;
use rivermark_log::{Log, Topic};
use rivermark_operators::BoxError;
use rivermark_operators::source::{ConnectorContext, SourcePartition};
use std::collections::HashMap;

/// The topics of a source.
#[derive(Clone, Debug)]
pub(crate) enum Topics {
    /// One, which has to be there unless it is waited for.
    Named { name: String, waits: bool },
    /// All whose names match, now and later.
    Matching(String),
}

impl Topics {
    /// Whether the source has not ended while it has no partition.
    pub(crate) fn waits(&self, until_end: bool) -> bool {
        match self {
            Topics::Named { waits, .. } => *waits,
            Topics::Matching(_) => !until_end,
        }
    }

    /// The topics there are now, by name.
    pub(crate) fn now(&self, log: &Log) -> Result<Vec<Topic>, BoxError> {
        match self {
            Topics::Named { name, waits } => match log.topic(name) {
                Err(rivermark_log::Error::UnknownTopic { .. }) if *waits => Ok(Vec::new()),
                topic => Ok(vec![topic?]),
            },
            Topics::Matching(pattern) => {
                Ok(log.topics()?.into_iter().filter(|topic| matches(pattern, topic.name())).collect())
            }
        }
    }

    pub(crate) fn partitions(&self, cx: &ConnectorContext<'_>) -> Result<Vec<SourcePartition>, BoxError> {
        let (mut found, mut taken) = (Vec::new(), HashMap::new());
        for topic in self.now(log_of(cx)?)? {
            for place in 0..topic.partitions() {
                let (number, name) = (self.number(topic.name(), place), format!("{}[{place}]", topic.name()));
                if let Some(other) = taken.insert(number, name.clone()) {
                    return Err(format!(
                        "`{name}` and `{other}` would have the same number in source `{}`; give one of the topics another name",
                        cx.name
                    )
                    .into());
                }
                found.push(SourcePartition { number, name });
            }
        }
        Ok(found)
    }

    /// The topic of a partition, and its place there.
    pub(crate) fn find(&self, log: &Log, number: u32) -> Result<(Topic, u32), BoxError> {
        let found = self.now(log)?.into_iter().find_map(|topic| {
            let place = (0..topic.partitions()).find(|place| self.number(topic.name(), *place) == number);
            place.map(|place| (topic, place))
        });
        found.ok_or_else(|| match self {
            Topics::Named { name, .. } => format!("topic `{name}` has no partition {number}").into(),
            Topics::Matching(pattern) => {
                format!("no topic that matches `{pattern}` has the partition that was read first; bring its topic back").into()
            }
        })
    }

    fn number(&self, topic: &str, place: u32) -> u32 {
        match self {
            Topics::Named { .. } => place,
            Topics::Matching(_) => hash(topic, place),
        }
    }
}

/// The 32-bit hash of Fowler, Noll and Vo (1a), which is in checkpoints and must never change.
fn hash(topic: &str, place: u32) -> u32 {
    let bytes = topic.bytes().chain([0]).chain(place.to_le_bytes());
    bytes.fold(0x811c_9dc5, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

/// Whether a name fits a pattern, in which `*` stands for any characters, or none, and everything else for itself.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else { return pattern == name };
    let Some(mut name) = name.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('*').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        // The first place leaves the most for those behind.
        let Some(at) = name.find(part) else { return false };
        name = &name[at + part.len()..];
    }
    name.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_stand_for_anything_and_the_rest_for_itself() {
        for (pattern, fits, fits_not) in [
            ("clicks", &["clicks"][..], &["clicks-1", "click", ""][..]),
            ("clicks-*", &["clicks-", "clicks-eu"], &["clicks", "my-clicks-eu"]),
            ("*-eu", &["-eu", "clicks-eu", "a-eu-eu"], &["clicks-eu-2"]),
            ("a*b*c", &["abc", "aXbXc", "abbc", "abcbc"], &["ac", "acb", "abcd"]),
            ("*", &["", "anything"], &[]),
            ("a*a", &["aa", "aba"], &["a"]),
        ] {
            fits.iter().for_each(|name| assert!(matches(pattern, name), "{pattern} {name}"));
            fits_not.iter().for_each(|name| assert!(!matches(pattern, name), "{pattern} {name}"));
        }
    }

    #[test]
    fn the_numbers_that_checkpoints_hold_are_those_of_the_first_release() {
        assert_eq!(hash("clicks-eu", 0), 0xdcfe_6397);
        assert_ne!(hash("clicks-eu", 0), hash("clicks-eu", 1));
        assert_ne!(hash("clicks-1", 0), hash("clicks-2", 0));
    }
}
