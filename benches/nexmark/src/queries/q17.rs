//! q17: how many bids there are on each auction and day, and the lowest, the highest and the total of their prices.

use super::day_of;
use crate::event::Event;
use rivermark::{Aggregate, Stream, Windows, days};
use serde::{Deserialize, Serialize};

/// The auction, the day, and bids, lowest, highest and total price.
pub fn prices_of_days<E: Event>(events: Stream<E>) -> Stream<(u64, u64, u64, u64, u64, u64)> {
    events
        .into_keyed(|event| event.bid().map(|bid| (bid.auction, bid.price)))
        .window(Windows::tumbling(days(1)))
        .aggregate(Statistics)
        .map(|row| {
            let Prices { bids, min, max, sum } = row.value;
            (row.key, day_of(row.window.start), bids, min, max, sum)
        })
}

#[derive(Copy, Clone, Serialize, Deserialize)]
struct Prices {
    bids: u64,
    min: u64,
    max: u64,
    sum: u64,
}

/// All four at once.
#[derive(Clone)]
struct Statistics;

impl Aggregate<u64> for Statistics {
    type Acc = Prices;
    type Out = Prices;

    fn create(&self) -> Prices {
        Prices { bids: 0, min: u64::MAX, max: 0, sum: 0 }
    }

    fn add(&self, prices: &mut Prices, price: &u64) {
        self.merge(prices, &Prices { bids: 1, min: *price, max: *price, sum: *price });
    }

    fn merge(&self, prices: &mut Prices, other: &Prices) {
        prices.bids += other.bids;
        prices.min = prices.min.min(other.min);
        prices.max = prices.max.max(other.max);
        prices.sum += other.sum;
    }

    fn finish(&self, prices: &Prices) -> Prices {
        *prices
    }

    fn is_exact(&self) -> bool {
        true
    }
}
