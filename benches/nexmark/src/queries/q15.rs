//! q15: the bids of each day, and how many bidders and auctions there are among them.
//!
//! What is distinct is counted in two steps: one count a day for each bidder and each auction, on all workers, and then how many of those there are.

use super::day_of;
use crate::event::Event;
use rivermark::{Aggregate, Stream, Windows, days};
use serde::{Deserialize, Serialize};

/// The day, and its bids, bidders and auctions.
pub fn bids_of_days<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, u64)> {
    let bids = events.filter_map(|event| event.bid().map(|bid| (bid.bidder, bid.auction)));
    let day = Windows::tumbling(days(1));
    let bidders = bids.clone().key_by(|(bidder, _)| *bidder).window(day).count();
    let auctions = bids.key_by(|(_, auction)| *auction).window(day).count();
    bidders
        .map(|row| Totals { bids: row.value, bidders: 1, auctions: 0 })
        .union(auctions.map(|_| Totals { bids: 0, bidders: 0, auctions: 1 }))
        .key_by(|_| ())
        .window(day)
        .aggregate(Sums)
        .map(|row| (day_of(row.window.start), row.value.bids, row.value.bidders, row.value.auctions))
}

#[derive(Copy, Clone, Serialize, Deserialize)]
struct Totals {
    bids: u64,
    bidders: u64,
    auctions: u64,
}

/// Adds totals up.
#[derive(Clone)]
struct Sums;

impl Aggregate<Totals> for Sums {
    type Acc = Totals;
    type Out = Totals;

    fn create(&self) -> Totals {
        Totals { bids: 0, bidders: 0, auctions: 0 }
    }

    fn add(&self, sums: &mut Totals, totals: &Totals) {
        sums.bids += totals.bids;
        sums.bidders += totals.bidders;
        sums.auctions += totals.auctions;
    }

    fn merge(&self, sums: &mut Totals, others: &Totals) {
        self.add(sums, others);
    }

    fn finish(&self, sums: &Totals) -> Totals {
        *sums
    }

    fn is_exact(&self) -> bool {
        true
    }
}
