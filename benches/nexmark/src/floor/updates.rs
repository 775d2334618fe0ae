//! q17, q18, q19: aggregates that are kept for good, or for a day.

use super::{Input, Map, millis};
use crate::answer::Answer;
use crate::event::Event;
use std::cmp::Reverse;

const DAY: u64 = 86_400_000;

pub(super) fn q17<E: Event>(input: Input, answer: &mut Answer) {
    struct Prices {
        bids: u64,
        min: u64,
        max: u64,
        sum: u64,
    }
    let mut groups: Map<(u64, u64), Prices> = Map::default();
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            let prices = groups.entry((bid.auction, millis(bid.date_time) / DAY));
            let prices = prices.or_insert(Prices { bids: 0, min: u64::MAX, max: 0, sum: 0 });
            prices.bids += 1;
            prices.min = prices.min.min(bid.price);
            prices.max = prices.max.max(bid.price);
            prices.sum += bid.price;
        }
    });
    for ((auction, day), Prices { bids, min, max, sum }) in groups {
        answer.row(&(auction, day, bids, min, max, sum));
    }
}

pub(super) fn q18<E: Event>(input: Input, answer: &mut Answer) {
    let mut newest: Map<(u64, u64), (rivermark::Timestamp, u64)> = Map::default();
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            let (time, price) = newest.entry((bid.bidder, bid.auction)).or_insert((bid.date_time, 0));
            // Numbers rise, so of two bids of one moment the second is the newer one.
            if bid.date_time >= *time {
                (*time, *price) = (bid.date_time, bid.price);
            }
        }
    });
    for ((bidder, auction), (time, price)) in newest {
        answer.row(&(auction, bidder, price, time));
    }
}

pub(super) fn q19<E: Event>(input: Input, answer: &mut Answer) {
    const RANKS: usize = 10;
    type Offer = (u64, Reverse<u64>, Reverse<u64>);
    let mut best: Map<u64, Vec<Offer>> = Map::default();
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            let offer = (bid.price, Reverse(millis(bid.date_time)), Reverse(bid.bidder));
            let best = best.entry(bid.auction).or_insert_with(|| Vec::with_capacity(RANKS));
            if best.len() == RANKS {
                if offer <= best[RANKS - 1] {
                    return;
                }
                best.pop();
            }
            best.insert(best.partition_point(|other| *other >= offer), offer);
        }
    });
    for (auction, best) in best {
        for (rank, (price, _, bidder)) in best.into_iter().enumerate() {
            answer.row(&(auction, rank as u64 + 1, bidder.0, price));
        }
    }
}
