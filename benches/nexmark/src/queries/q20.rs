//! q20: bids joined with their auction, if it is of one category, whichever comes first, without bounds in time.

use crate::event::Event;
use rivermark::{BoxError, Context, ProcessFunction, Stream, Value};
use serde::{Deserialize, Serialize};

/// The category that is asked for.
const CATEGORY: u64 = 10;

/// Auction, bidder, price and category.
pub fn bids_with_auctions<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, u64)> {
    events.filter_map(|event| Side::of(&event)).key_by(Side::auction).process(Joining)
}

enum Side {
    Auction { auction: u64, category: u64 },
    Bid { auction: u64, bid: BidOf },
}

impl Side {
    fn of<E: Event>(event: &E) -> Option<Side> {
        match event.bid() {
            Some(bid) => {
                Some(Side::Bid { auction: bid.auction, bid: BidOf { bidder: bid.bidder, price: bid.price } })
            }
            None => event.auction().map(|a| Side::Auction { auction: a.id, category: a.category }),
        }
    }

    fn auction(&self) -> u64 {
        match self {
            Side::Auction { auction, .. } | Side::Bid { auction, .. } => *auction,
        }
    }
}

#[derive(Copy, Clone, Serialize, Deserialize)]
struct BidOf {
    bidder: u64,
    price: u64,
}

/// What is known of an auction.
#[derive(Clone, Serialize, Deserialize)]
enum Known {
    Category(u64),
    /// Not its category yet, but these bids.
    Bids(Vec<BidOf>),
}

const KNOWN: Value<Known> = Value::new("known");

#[derive(Clone)]
struct Joining;

impl ProcessFunction<u64, Side> for Joining {
    type Out = (u64, u64, u64, u64);

    fn on_record(
        &mut self,
        auction: &u64,
        side: Side,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        match side {
            Side::Bid { bid, .. } => {
                let category = cx.state(KNOWN).update(
                    || Known::Bids(Vec::new()),
                    |known| match known {
                        Known::Category(category) => Some(*category),
                        Known::Bids(bids) => {
                            bids.push(bid);
                            None
                        }
                    },
                )?;
                if category == Some(CATEGORY) {
                    cx.emit((*auction, bid.bidder, bid.price, CATEGORY));
                }
            }
            Side::Auction { category, .. } => {
                let before = cx.state(KNOWN).update(
                    || Known::Bids(Vec::new()),
                    |known| std::mem::replace(known, Known::Category(category)),
                )?;
                let Known::Bids(bids) = before else { return Ok(()) };
                for bid in bids.into_iter().filter(|_| category == CATEGORY) {
                    cx.emit((*auction, bid.bidder, bid.price, CATEGORY));
                }
            }
        }
        Ok(())
    }
}
