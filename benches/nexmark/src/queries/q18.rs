//! q18: the newest bid of each bidder on each auction; a row for each bid that is newer than those before it.

use crate::event::{Bid, Event};
use rivermark::{BoxError, Context, ProcessFunction, Stream, Timestamp, Value};

/// Auction, bidder, price and time of the bid.
pub fn newest_bids<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, Timestamp)> {
    events.filter_map(|event| event.bid().copied()).key_by(|bid| (bid.bidder, bid.auction)).process(NewestBid)
}

/// Time and number of the newest bid.
const NEWEST: Value<(Timestamp, u64)> = Value::new("newest");

#[derive(Clone)]
struct NewestBid;

impl ProcessFunction<(u64, u64), Bid> for NewestBid {
    type Out = (u64, u64, u64, Timestamp);

    fn on_record(
        &mut self,
        _key: &(u64, u64),
        bid: Bid,
        cx: &mut Context<'_, (u64, u64), Self::Out>,
    ) -> Result<(), BoxError> {
        let this = (bid.date_time, bid.number);
        let is_newest = cx.state(NEWEST).update(
            || this,
            |newest| {
                *newest = this.max(*newest);
                *newest == this
            },
        )?;
        if is_newest {
            cx.emit((bid.auction, bid.bidder, bid.price, bid.date_time));
        }
        Ok(())
    }
}
