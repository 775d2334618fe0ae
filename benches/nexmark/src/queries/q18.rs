//! q18: the newest bid of each bidder on each auction; a row for each bid that is newer than those before it.

use crate::event::{self, Event};
use rivermark::{BoxError, Context, ProcessFunction, Stream, Timestamp, Value};

/// Auction, bidder, price and time of the bid.
pub fn newest_bids<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, Timestamp)> {
    events
        .into_keyed(|event| event.bid().map(|bid| ((bid.bidder, bid.auction), Bid::of(bid))))
        .process(NewestBid)
}

/// What is told apart by bidder and auction.
struct Bid {
    time: Timestamp,
    number: u64,
    price: u64,
}

impl Bid {
    fn of(bid: &event::Bid) -> Bid {
        Bid { time: bid.date_time, number: bid.number, price: bid.price }
    }
}

/// Time and number of the newest bid.
const NEWEST: Value<(Timestamp, u64)> = Value::new("newest");

#[derive(Clone)]
struct NewestBid;

impl ProcessFunction<(u64, u64), Bid> for NewestBid {
    type Out = (u64, u64, u64, Timestamp);

    fn on_record(
        &mut self,
        &(bidder, auction): &(u64, u64),
        bid: Bid,
        cx: &mut Context<'_, (u64, u64), Self::Out>,
    ) -> Result<(), BoxError> {
        let this = (bid.time, bid.number);
        let is_newest = cx.state(NEWEST).update(
            || this,
            |newest| {
                *newest = this.max(*newest);
                *newest == this
            },
        )?;
        if is_newest {
            cx.emit((auction, bidder, bid.price, bid.time));
        }
        Ok(())
    }
}
