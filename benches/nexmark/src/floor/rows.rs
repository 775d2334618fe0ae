//! q0, q1, q2: what needs no state.

use super::Input;
use crate::answer::Answer;
use crate::event::Event;

pub(super) fn q0<E: Event>(input: Input, answer: &mut Answer) {
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            answer.row(&(bid.auction, bid.bidder, bid.price, bid.date_time));
        }
    });
}

pub(super) fn q1<E: Event>(input: Input, answer: &mut Answer) {
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            answer.row(&(bid.auction, bid.bidder, bid.price * 908 / 1000, bid.date_time));
        }
    });
}

pub(super) fn q2<E: Event>(input: Input, answer: &mut Answer) {
    input.each(|event: &E| {
        if let Some(bid) = event.bid().filter(|bid| bid.auction.is_multiple_of(123)) {
            answer.row(&(bid.auction, bid.price));
        }
    });
}
