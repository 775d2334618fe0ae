//! q2: the bids on some auctions.

use crate::event::Event;
use rivermark::Stream;

/// Auction and price of the bids on each 123rd auction.
pub fn some_bids<E: Event>(events: Stream<E>) -> Stream<(u64, u64)> {
    let bids = events.filter_map(|event| event.bid().map(|bid| (bid.auction, bid.price)));
    bids.filter(|(auction, _)| auction.is_multiple_of(123))
}
