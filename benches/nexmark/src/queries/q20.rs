//! q20: bids joined with their auction, if it is of one category, whichever comes first, without bounds in time.

use crate::event::Event;
use rivermark::{BoxError, Context, List, ProcessFunction, Stream, Value};
use serde::{Deserialize, Serialize};

/// The category.
const ASKED_FOR: u64 = 10;

/// Auction, bidder, price and category.
pub fn bids_with_auctions<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, u64)> {
    events.into_keyed(|event| Side::of(&event)).process(Joining)
}

enum Side {
    Auction { category: u64 },
    Bid(BidOf),
}

impl Side {
    /// With the auction.
    fn of<E: Event>(event: &E) -> Option<(u64, Side)> {
        match event.bid() {
            Some(bid) => Some((bid.auction, Side::Bid(BidOf { bidder: bid.bidder, price: bid.price }))),
            None => event.auction().map(|auction| (auction.id, Side::Auction { category: auction.category })),
        }
    }
}

#[derive(Copy, Clone, Serialize, Deserialize)]
struct BidOf {
    bidder: u64,
    price: u64,
}

/// Of the auction.
const CATEGORY: Value<u64> = Value::new("category");
/// Bids on an auction that is not known yet.
const WAITING: List<BidOf> = List::new("waiting");

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
            Side::Bid(bid) => match cx.state(CATEGORY).get()? {
                Some(ASKED_FOR) => cx.emit((*auction, bid.bidder, bid.price, ASKED_FOR)),
                Some(_) => {}
                None => cx.state(WAITING).push(bid)?,
            },
            Side::Auction { category } => {
                cx.state(CATEGORY).set(category)?;
                let bids = cx.state(WAITING).take()?;
                for bid in bids.into_iter().filter(|_| category == ASKED_FOR) {
                    cx.emit((*auction, bid.bidder, bid.price, ASKED_FOR));
                }
            }
        }
        Ok(())
    }
}
