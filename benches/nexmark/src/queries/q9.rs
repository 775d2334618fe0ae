//! q9: the winning bid of each auction.

use super::winning::winning_bids;
use crate::event::Event;
use rivermark::{Stream, Timestamp};

/// The auction, and bidder, price and time of the bid.
pub fn winners<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, Timestamp)> {
    winning_bids(events).map(|won| (won.auction, won.offer.bidder.0, won.offer.price, won.offer.date_time.0))
}
