//! q8: people who registered and opened an auction in the same ten seconds: two kinds of events, grouped by key and window.

use crate::event::{Event, Name};
use rivermark::{Stream, Timestamp, Windows, secs};
use serde::{Deserialize, Serialize};

/// The window's start, the person, and their name.
pub fn new_sellers<E: Event>(events: Stream<E>) -> Stream<(Timestamp, u64, Name)> {
    events
        .into_keyed(|event| match (event.person(), event.auction()) {
            (Some(person), _) => Some((person.id, Did { register: Some(person.name), sell: false })),
            (_, Some(auction)) => Some((auction.seller, Did { register: None, sell: true })),
            _ => None,
        })
        .window(Windows::tumbling(secs(10)))
        .fold(Did::default(), Did::and, Did::and)
        .filter(|row| row.value.sell)
        .filter_map(|row| row.value.register.map(|name| (row.window.start, row.key, name)))
}

/// What a person has done.
#[derive(Copy, Clone, Default, Serialize, Deserialize)]
struct Did {
    /// Under which name.
    register: Option<Name>,
    sell: bool,
}

impl Did {
    fn and(&mut self, other: &Did) {
        self.register = self.register.or(other.register);
        self.sell |= other.sell;
    }
}
