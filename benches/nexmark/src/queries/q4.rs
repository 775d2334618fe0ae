//! q4: the average of the winning prices so far, for each category; a row for each auction that is over.

use super::winning::winning_bids;
use crate::event::Event;
use rivermark::{BoxError, Context, ProcessFunction, Stream, Value};

/// Category and average.
pub fn average_prices<E: Event>(events: Stream<E>) -> Stream<(u64, u64)> {
    winning_bids(events)
        .map(|won| (won.category, won.offer.price))
        .key_by(|(category, _)| *category)
        .process(AveragePrice)
}

/// Sum and number of the prices.
const PRICES: Value<(u64, u64)> = Value::new("prices");

#[derive(Clone)]
struct AveragePrice;

impl ProcessFunction<u64, (u64, u64)> for AveragePrice {
    type Out = (u64, u64);

    fn on_record(
        &mut self,
        category: &u64,
        (_, price): (u64, u64),
        cx: &mut Context<'_, u64, (u64, u64)>,
    ) -> Result<(), BoxError> {
        let average = cx.state(PRICES).update(
            || (0, 0),
            |(sum, count)| {
                *sum += price;
                *count += 1;
                *sum / *count
            },
        )?;
        cx.emit((*category, average));
        Ok(())
    }
}
