//! q3, q20: joins without bounds in time, whichever side comes first.

use super::{Input, Map};
use crate::answer::Answer;
use crate::event::{Event, Person};

pub(super) fn q3<E: Event>(input: Input, answer: &mut Answer) {
    let mut sellers: Map<u64, Person> = Map::default();
    let mut waiting: Map<u64, Vec<u64>> = Map::default();
    input.each(|event: &E| {
        if let Some(auction) = event.auction().filter(|auction| auction.category == 10) {
            match sellers.get(&auction.seller) {
                Some(seller) => answer.row(&(seller.name, seller.city, seller.state, auction.id)),
                None => waiting.entry(auction.seller).or_default().push(auction.id),
            }
        } else if let Some(person) = event.person().filter(|p| ["OR", "ID", "CA"].contains(&p.state.as_str()))
        {
            sellers.insert(person.id, *person);
            for auction in waiting.remove(&person.id).unwrap_or_default() {
                answer.row(&(person.name, person.city, person.state, auction));
            }
        }
    });
}

pub(super) fn q20<E: Event>(input: Input, answer: &mut Answer) {
    let mut categories: Map<u64, u64> = Map::default();
    let mut waiting: Map<u64, Vec<(u64, u64)>> = Map::default();
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            match categories.get(&bid.auction) {
                Some(10) => answer.row(&(bid.auction, bid.bidder, bid.price, 10)),
                Some(_) => {}
                None => waiting.entry(bid.auction).or_default().push((bid.bidder, bid.price)),
            }
        } else if let Some(auction) = event.auction() {
            categories.insert(auction.id, auction.category);
            let bids = if waiting.is_empty() { None } else { waiting.remove(&auction.id) };
            if auction.category == 10 {
                for (bidder, price) in bids.unwrap_or_default() {
                    answer.row(&(auction.id, bidder, price, 10));
                }
            }
        }
    });
}
