//! q12: how many bids a bidder makes in ten seconds.

use crate::event::Event;
use rivermark::{Stream, Timestamp, Windows, secs};

/// The bidder, the window's start, and the bids.
pub fn bids_in_windows<E: Event>(events: Stream<E>) -> Stream<(u64, Timestamp, u64)> {
    events
        .into_keyed(|event| event.bid().map(|bid| (bid.bidder, ())))
        .window(Windows::tumbling(secs(10)))
        .count()
        .map(|row| (row.key, row.window.start, row.value))
}
