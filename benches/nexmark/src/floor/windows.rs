//! q5, q7, q8, q11, q12, q15: windows of event time.

use super::{Input, Map, Set, millis, timestamp};
use crate::answer::Answer;
use crate::event::{Event, Name};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};

const WINDOW: u64 = 10_000;
const SLIDE: u64 = 2_000;
const GAP: u64 = 10_000;
const DAY: u64 = 86_400_000;

/// Tumbling windows that are open: few, in order.
struct Tumbling<S> {
    size: u64,
    open: VecDeque<(u64, S)>,
    /// The end of the first.
    next_end: u64,
}

impl<S: Default> Tumbling<S> {
    fn new(size: u64) -> Self {
        Tumbling { size, open: VecDeque::new(), next_end: u64::MAX }
    }

    /// The window of `time`.
    #[inline]
    fn at(&mut self, time: u64) -> &mut S {
        let start = time / self.size * self.size;
        // Nearly always the last one.
        let place = match self.open.iter().rposition(|(open, _)| *open <= start) {
            Some(place) if self.open[place].0 == start => place,
            before => {
                let place = before.map_or(0, |before| before + 1);
                self.open.insert(place, (start, S::default()));
                self.next_end = self.open[0].0 + self.size;
                place
            }
        };
        &mut self.open[place].1
    }

    /// The first window, if it is over.
    #[inline]
    fn over(&mut self, now: u64) -> Option<(u64, S)> {
        if self.next_end <= now { self.close() } else { None }
    }

    fn close(&mut self) -> Option<(u64, S)> {
        let closed = self.open.pop_front();
        self.next_end = self.open.front().map_or(u64::MAX, |(start, _)| start + self.size);
        closed
    }
}

/// The sums of the last panes.
struct Sliding {
    panes: VecDeque<(u64, Map<u64, u64>)>,
}

impl Sliding {
    /// Tells the windows that end with the panes up to the one that starts at `to`.
    fn tell(&mut self, told: u64, to: u64, answer: &mut Answer) {
        for end in (told + SLIDE..=to + SLIDE).step_by(SLIDE as usize) {
            while self.panes.front().is_some_and(|(start, _)| start + WINDOW < end) {
                self.panes.pop_front();
            }
            let mut counts: Map<u64, u64> = Map::default();
            for (auction, bids) in
                self.panes.iter().filter(|(start, _)| *start < end).flat_map(|(_, pane)| pane)
            {
                *counts.entry(*auction).or_default() += bids;
            }
            let most = counts.values().copied().max().unwrap_or(0);
            for (auction, bids) in counts.into_iter().filter(|(_, bids)| *bids == most) {
                answer.row(&(timestamp(end - WINDOW), auction, bids));
            }
        }
    }
}

pub(super) fn q5<E: Event>(input: Input, answer: &mut Answer) {
    let mut open: Tumbling<Map<u64, u64>> = Tumbling::new(SLIDE);
    let mut sliding = Sliding { panes: VecDeque::new() };
    let mut watermark = input.watermark();
    // The end of the last window that was told.
    let mut told = None;
    let mut close = |start: u64, pane, answer: &mut Answer| {
        sliding.panes.push_back((start, pane));
        sliding.tell(told.unwrap_or(start), start, answer);
        told = Some(start + SLIDE);
    };
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            *open.at(millis(bid.date_time)).entry(bid.auction).or_default() += 1;
        }
        let now = watermark.see(event.date_time());
        while let Some((start, pane)) = open.over(now) {
            close(start, pane, answer);
        }
    });
    while let Some((start, pane)) = open.close() {
        close(start, pane, answer);
    }
    if let Some(told) = told {
        sliding.tell(told, told + WINDOW - 2 * SLIDE, answer);
    }
}

pub(super) fn q7<E: Event>(input: Input, answer: &mut Answer) {
    #[derive(Default)]
    struct Highest {
        price: u64,
        bids: Vec<(u64, u64)>,
    }
    fn tell(start: u64, highest: Highest, answer: &mut Answer) {
        for (auction, bidder) in highest.bids {
            answer.row(&(timestamp(start), auction, bidder, highest.price));
        }
    }
    let mut windows: Tumbling<Highest> = Tumbling::new(WINDOW);
    let mut watermark = input.watermark();
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            let highest = windows.at(millis(bid.date_time));
            if bid.price > highest.price {
                highest.price = bid.price;
                highest.bids.clear();
            }
            if bid.price == highest.price {
                highest.bids.push((bid.auction, bid.bidder));
            }
        }
        let now = watermark.see(event.date_time());
        while let Some((start, highest)) = windows.over(now) {
            tell(start, highest, answer);
        }
    });
    while let Some((start, highest)) = windows.close() {
        tell(start, highest, answer);
    }
}

pub(super) fn q8<E: Event>(input: Input, answer: &mut Answer) {
    #[derive(Default)]
    struct New {
        people: Map<u64, Name>,
        sellers: Set<u64>,
    }
    let mut windows: Tumbling<New> = Tumbling::new(WINDOW);
    let mut watermark = input.watermark();
    input.each(|event: &E| {
        let time = millis(event.date_time());
        if let Some(person) = event.person() {
            let new = windows.at(time);
            new.people.insert(person.id, person.name);
            if new.sellers.contains(&person.id) {
                answer.row(&(timestamp(time / WINDOW * WINDOW), person.id, person.name));
            }
        } else if let Some(auction) = event.auction() {
            let new = windows.at(time);
            if new.sellers.insert(auction.seller)
                && let Some(name) = new.people.get(&auction.seller)
            {
                answer.row(&(timestamp(time / WINDOW * WINDOW), auction.seller, *name));
            }
        }
        let now = watermark.see(event.date_time());
        while windows.over(now).is_some() {}
    });
}

pub(super) fn q11<E: Event>(input: Input, answer: &mut Answer) {
    #[derive(Copy, Clone)]
    struct Session {
        start: u64,
        last: u64,
        bids: u64,
    }
    let mut sessions: Map<u64, Vec<Session>> = Map::default();
    // A bidder stands here once a session, at an end that it once had.
    let mut ends: BinaryHeap<Reverse<(u64, u64)>> = BinaryHeap::new();
    let mut watermark = input.watermark();
    let mut next_end = u64::MAX;
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            let time = millis(bid.date_time);
            let of_bidder = sessions.entry(bid.bidder).or_default();
            match of_bidder.last_mut() {
                Some(newest) if newest.start <= time && time <= newest.last + GAP => {
                    newest.last = newest.last.max(time);
                    newest.bids += 1;
                }
                _ => {
                    let mut session = Session { start: time, last: time, bids: 1 };
                    of_bidder.retain(|other| {
                        let apart = other.start > session.last + GAP || session.start > other.last + GAP;
                        if !apart {
                            session.start = session.start.min(other.start);
                            session.last = session.last.max(other.last);
                            session.bids += other.bids;
                        }
                        apart
                    });
                    of_bidder.insert(of_bidder.partition_point(|other| other.start < session.start), session);
                    ends.push(Reverse((session.last + GAP, bid.bidder)));
                    next_end = next_end.min(session.last + GAP);
                }
            }
        }
        let now = watermark.see(event.date_time());
        while next_end < now {
            let Some(Reverse((_, bidder))) = ends.pop() else { break };
            if let Some(of_bidder) = sessions.get_mut(&bidder) {
                let mut later = None;
                of_bidder.retain(|session| {
                    let over = session.last + GAP < now;
                    if over {
                        answer.row(&(
                            bidder,
                            timestamp(session.start),
                            timestamp(session.last + GAP),
                            session.bids,
                        ));
                    } else {
                        later.get_or_insert(session.last + GAP);
                    }
                    !over
                });
                if of_bidder.is_empty() {
                    sessions.remove(&bidder);
                }
                ends.extend(later.map(|end| Reverse((end, bidder))));
            }
            next_end = ends.peek().map_or(u64::MAX, |Reverse((end, _))| *end);
        }
    });
    for (bidder, of_bidder) in sessions {
        for Session { start, last, bids } in of_bidder {
            answer.row(&(bidder, timestamp(start), timestamp(last + GAP), bids));
        }
    }
}

pub(super) fn q12<E: Event>(input: Input, answer: &mut Answer) {
    fn tell(start: u64, counts: Map<u64, u64>, answer: &mut Answer) {
        for (bidder, bids) in counts {
            answer.row(&(bidder, timestamp(start), bids));
        }
    }
    let mut windows: Tumbling<Map<u64, u64>> = Tumbling::new(WINDOW);
    let mut watermark = input.watermark();
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            *windows.at(millis(bid.date_time)).entry(bid.bidder).or_default() += 1;
        }
        let now = watermark.see(event.date_time());
        while let Some((start, counts)) = windows.over(now) {
            tell(start, counts, answer);
        }
    });
    while let Some((start, counts)) = windows.close() {
        tell(start, counts, answer);
    }
}

pub(super) fn q15<E: Event>(input: Input, answer: &mut Answer) {
    #[derive(Default)]
    struct Day {
        bids: u64,
        bidders: Set<u64>,
        auctions: Set<u64>,
    }
    let mut days: Tumbling<Day> = Tumbling::new(DAY);
    input.each(|event: &E| {
        if let Some(bid) = event.bid() {
            let day = days.at(millis(bid.date_time));
            day.bids += 1;
            day.bidders.insert(bid.bidder);
            day.auctions.insert(bid.auction);
        }
    });
    while let Some((start, day)) = days.close() {
        answer.row(&(start / DAY, day.bids, day.bidders.len() as u64, day.auctions.len() as u64));
    }
}
