//! q4, q9: the winning bid of each auction, told when the auction is over.

use super::{Input, Map, millis, timestamp};
use crate::answer::Answer;
use crate::event::Event;
use std::cmp::Reverse;
use std::collections::BinaryHeap;

/// Price, time and bidder; the greater wins.
type Offer = (u64, Reverse<u64>, Reverse<u64>);

struct Open {
    from: u64,
    to: u64,
    category: u64,
    best: Option<Offer>,
}

impl Open {
    #[inline]
    fn take(&mut self, offer: Offer) {
        if self.from <= offer.1.0 && offer.1.0 <= self.to && self.best.is_none_or(|best| offer > best) {
            self.best = Some(offer);
        }
    }
}

/// Calls `over` with id, category and winning bid of each auction that has one.
fn winning<E: Event>(input: Input, mut over: impl FnMut(u64, u64, Offer)) {
    let mut open: Map<u64, Open> = Map::default();
    let mut ends: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    // Bids that came before their auctions, and may yet be after their beginnings.
    let mut early: Map<u64, Vec<Offer>> = Map::default();
    let mut watermark = input.watermark();
    let (mut next_end, mut next_sweep) = (u64::MAX, 0);
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            let offer = (bid.price, Reverse(millis(bid.date_time)), Reverse(bid.bidder));
            match open.get_mut(&bid.auction) {
                Some(auction) => auction.take(offer),
                None => early.entry(bid.auction).or_default().push(offer),
            }
        } else if let Some(auction) = event.auction() {
            let (from, to) = (millis(auction.date_time), millis(auction.expires));
            let mut opened = Open { from, to, category: auction.category, best: None };
            if !early.is_empty() {
                early
                    .remove(&auction.id)
                    .unwrap_or_default()
                    .into_iter()
                    .for_each(|offer| opened.take(offer));
            }
            open.insert(auction.id, opened);
            ends.push(Reverse((to, auction.id)));
            next_end = next_end.min(to);
        }
        let now = watermark.see(event.date_time());
        while next_end < now {
            let Some(Reverse((_, id))) = ends.pop() else { break };
            let auction = open.remove(&id).expect("each auction ends once");
            if let Some(best) = auction.best {
                over(id, auction.category, best);
            }
            next_end = ends.peek().map_or(u64::MAX, |Reverse((end, _))| *end);
        }
        if now > next_sweep {
            next_sweep = now + 1000;
            early.retain(|_, offers| {
                offers.retain(|offer| offer.1.0 >= now);
                !offers.is_empty()
            });
        }
    });
    for (id, auction) in open {
        if let Some(best) = auction.best {
            over(id, auction.category, best);
        }
    }
}

pub(super) fn q4<E: Event>(input: Input, answer: &mut Answer) {
    let mut prices: Map<u64, (u64, u64)> = Map::default();
    winning::<E>(input, |_, category, (price, ..)| {
        let (sum, count) = prices.entry(category).or_default();
        *sum += price;
        *count += 1;
    });
    for (category, (sum, count)) in prices {
        answer.row(&(category, sum / count));
    }
}

pub(super) fn q9<E: Event>(input: Input, answer: &mut Answer) {
    winning::<E>(input, |id, _, (price, time, bidder)| answer.row(&(id, bidder.0, price, timestamp(time.0))));
}
