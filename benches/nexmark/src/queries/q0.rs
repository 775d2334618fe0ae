//! q0: every bid, as it is. What passing records through costs.

use crate::event::Event;
use rivermark::{Stream, Timestamp};

/// Auction, bidder, price and time of each bid.
pub fn bids<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, Timestamp)> {
    events.filter_map(|event| event.bid().map(|bid| (bid.auction, bid.bidder, bid.price, bid.date_time)))
}
