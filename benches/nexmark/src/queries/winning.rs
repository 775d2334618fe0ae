//! The winning bid of each auction, for q4 and q9: an auction is over when the watermark has passed its end.

use crate::event::{Bid, Event};
use rivermark::{BoxError, Context, ProcessFunction, Stream, Timestamp, Value, millis};
use serde::{Deserialize, Serialize};
use std::cmp::Reverse;

/// An auction that is over, and was won.
#[derive(Copy, Clone, Debug)]
pub struct Won {
    /// The auction.
    pub auction: u64,
    /// Its category.
    pub category: u64,
    /// The winning bid.
    pub offer: Offer,
}

/// A bid as what it competes by: of two, the greater wins.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Offer {
    /// The higher price wins,
    pub price: u64,
    /// then the earlier bid,
    pub date_time: Reverse<Timestamp>,
    /// then the smaller bidder.
    pub bidder: Reverse<u64>,
}

impl Offer {
    /// What `bid` competes by.
    pub fn of(bid: &Bid) -> Offer {
        Offer { price: bid.price, date_time: Reverse(bid.date_time), bidder: Reverse(bid.bidder) }
    }
}

/// The highest bid of each auction, among those from its beginning to its end; auctions without one are left out.
pub fn winning_bids<E: Event>(events: Stream<E>) -> Stream<Won> {
    events.into_keyed(|event| Side::of(&event)).process(WinningBids)
}

enum Side {
    Auction { from: Timestamp, to: Timestamp, category: u64 },
    Bid(Offer),
}

impl Side {
    /// With the auction.
    fn of<E: Event>(event: &E) -> Option<(u64, Side)> {
        if let Some(bid) = event.bid() {
            return Some((bid.auction, Side::Bid(Offer::of(bid))));
        }
        let auction = event.auction()?;
        let (from, to) = (auction.date_time, auction.expires);
        Some((auction.id, Side::Auction { from, to, category: auction.category }))
    }
}

/// What is known of an auction.
#[derive(Clone, Serialize, Deserialize)]
enum Known {
    /// Bids on an auction that has not come yet, or is over.
    Bids(Vec<Offer>),
    Open {
        from: Timestamp,
        to: Timestamp,
        category: u64,
        best: Option<Offer>,
    },
}

const KNOWN: Value<Known> = Value::new("known");

#[derive(Clone)]
struct WinningBids;

/// The better of the two, if the new one is in time.
fn better(best: Option<Offer>, offer: Offer, from: Timestamp, to: Timestamp) -> Option<Offer> {
    let in_time = from <= offer.date_time.0 && offer.date_time.0 <= to;
    if in_time { best.max(Some(offer)) } else { best }
}

impl ProcessFunction<u64, Side> for WinningBids {
    type Out = Won;

    fn on_record(
        &mut self,
        _auction: &u64,
        side: Side,
        cx: &mut Context<'_, u64, Won>,
    ) -> Result<(), BoxError> {
        match side {
            Side::Bid(offer) => {
                let is_first = cx.state(KNOWN).update(
                    || Known::Bids(Vec::new()),
                    |known| match known {
                        Known::Open { from, to, best, .. } => {
                            *best = better(*best, offer, *from, *to);
                            false
                        }
                        Known::Bids(bids) => {
                            bids.push(offer);
                            bids.len() == 1
                        }
                    },
                )?;
                // Auctions that began before the bid have come by then.
                if is_first { cx.timer(offer.date_time.0 + millis(1)) } else { Ok(()) }
            }
            Side::Auction { from, to, category } => {
                let opened = |best| Known::Open { from, to, category, best };
                cx.state(KNOWN).update(
                    || Known::Bids(Vec::new()),
                    |known| {
                        let bids = match std::mem::replace(known, opened(None)) {
                            Known::Bids(bids) => bids,
                            Known::Open { .. } => Vec::new(),
                        };
                        let best = bids.into_iter().fold(None, |best, offer| better(best, offer, from, to));
                        *known = opened(best);
                    },
                )?;
                cx.timer(to + millis(1))
            }
        }
    }

    fn on_timer(
        &mut self,
        auction: &u64,
        time: Timestamp,
        cx: &mut Context<'_, u64, Won>,
    ) -> Result<(), BoxError> {
        match cx.state(KNOWN).take()? {
            Some(Known::Open { to, category, best, .. }) if to < time => {
                if let Some(offer) = best {
                    cx.emit(Won { auction: *auction, category, offer });
                }
                Ok(())
            }
            // The timer of a bid that came before the auction.
            Some(open @ Known::Open { .. }) => cx.state(KNOWN).set(open),
            Some(Known::Bids(mut bids)) => {
                bids.retain(|offer| offer.date_time.0 >= time);
                let Some(last) = bids.iter().map(|offer| offer.date_time.0).max() else { return Ok(()) };
                cx.state(KNOWN).set(Known::Bids(bids))?;
                cx.timer(last + millis(1))
            }
            None => Ok(()),
        }
    }
}
