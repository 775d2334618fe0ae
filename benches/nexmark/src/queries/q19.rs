//! q19: the ten highest bids on each auction; a row for each rank that a bid changes.

use super::winning::Offer;
use crate::event::Event;
use rivermark::{BoxError, Context, ProcessFunction, Stream, Value};

const RANKS: usize = 10;

/// Auction, rank, bidder and price.
pub fn highest_bids_of_auctions<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, u64)> {
    events
        .into_keyed(|event| event.bid().map(|bid| (bid.auction, Offer::of(bid))))
        .process(HighestBids::default())
}

/// The highest first.
const HIGHEST: Value<Vec<Offer>> = Value::new("highest");

#[derive(Clone, Default)]
struct HighestBids {
    /// Empty between calls: room for what a bid changes.
    changed: Vec<Offer>,
}

impl ProcessFunction<u64, Offer> for HighestBids {
    type Out = (u64, u64, u64, u64);

    fn on_record(
        &mut self,
        auction: &u64,
        offer: Offer,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        let changed = &mut self.changed;
        let from = cx.state(HIGHEST).update(Vec::new, |highest| {
            // Behind those that are as high: they have taken their ranks.
            let rank = highest.partition_point(|other| *other >= offer);
            if rank < RANKS {
                highest.truncate(RANKS - 1);
                highest.insert(rank, offer);
                changed.extend_from_slice(&highest[rank..]);
            }
            rank
        })?;
        for (rank, offer) in (from as u64 + 1..).zip(self.changed.drain(..)) {
            cx.emit((*auction, rank, offer.bidder.0, offer.price));
        }
        Ok(())
    }
}
