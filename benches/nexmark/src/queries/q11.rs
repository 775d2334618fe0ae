//! q11: how many bids a bidder makes in one session, which ends when they have made none for ten seconds.

use crate::event::Event;
use rivermark::{Stream, Timestamp, Windows, secs};

/// The bidder, the session's start and end, and the bids.
pub fn bids_in_sessions<E: Event>(events: Stream<E>) -> Stream<(u64, Timestamp, Timestamp, u64)> {
    events
        .into_keyed(|event| event.bid().map(|bid| (bid.bidder, ())))
        .window(Windows::session(secs(10)))
        .count()
        .map(|row| (row.key, row.window.start, row.window.end, row.value))
}
