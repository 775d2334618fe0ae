//! q1: every bid, its price in euros.

use crate::event::Event;
use rivermark::{Stream, Timestamp};

/// Auction, bidder, price in cents of a euro, and time of each bid.
pub fn bids_in_euros<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, Timestamp)> {
    let bids = events.filter_map(|event| event.bid().copied());
    bids.map(|bid| (bid.auction, bid.bidder, bid.price * 908 / 1000, bid.date_time))
}
