//! q7: the bids with the highest price in windows of ten seconds, every one that ties.

use crate::event::Event;
use rivermark::{Stream, Timestamp, Windows, secs};

/// The window's start, and auction, bidder and price of the bid.
pub fn highest_bids<E: Event>(events: Stream<E>) -> Stream<(Timestamp, u64, u64, u64)> {
    events
        .into_keyed(|event| event.bid().map(|bid| ((), (bid.auction, bid.bidder, bid.price))))
        .window(Windows::tumbling(secs(10)))
        .top_n_with_ties(1, |(.., price)| *price)
        .flat_map(|highest| highest.value.into_iter().map(move |bid| (highest.window.start, bid)))
        .map(|(start, (auction, bidder, price))| (start, auction, bidder, price))
}
