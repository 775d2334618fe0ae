//! q5: the auctions with the most bids in sliding windows of ten seconds, every one that ties.

use crate::event::Event;
use rivermark::{Stream, Timestamp, Windows, secs};

/// The window's start, the auction, and its bids.
pub fn hot_items<E: Event>(events: Stream<E>) -> Stream<(Timestamp, u64, u64)> {
    events
        .into_keyed(|event| event.bid().map(|bid| (bid.auction, ())))
        .window(Windows::sliding(secs(10), secs(2)))
        .count()
        // One window ends every two seconds, so the rows of one are together here.
        .key_by(|_| ())
        .window(Windows::tumbling(secs(2)))
        .top_n_with_ties(1, |row| row.value)
        .flat_map(|most| most.value)
        .map(|row| (row.window.start, row.key, row.value))
}
