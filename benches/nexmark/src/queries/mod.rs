//! The queries, one file each, and how they are told apart.

pub mod q0;
pub mod q1;
pub mod q11;
pub mod q12;
pub mod q15;
pub mod q17;
pub mod q18;
pub mod q19;
pub mod q2;
pub mod q20;
pub mod q3;
pub mod q4;
pub mod q5;
pub mod q7;
pub mod q8;
pub mod q9;
pub mod winning;

use crate::answer::Row;
use crate::event::Event;
use rivermark::{Stream, Timestamp, Watermarks, secs};
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

/// A query of the specification.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Query {
    /// Every bid.
    Q0,
    /// Every bid, in euros.
    Q1,
    /// The bids on some auctions.
    Q2,
    /// What is for sale near by.
    Q3,
    /// The average price of each category.
    Q4,
    /// The auctions with the most bids.
    Q5,
    /// The highest bids.
    Q7,
    /// New people who sell.
    Q8,
    /// The winning bids.
    Q9,
    /// Bids in each bidder's sessions.
    Q11,
    /// Bids of each bidder in windows.
    Q12,
    /// Bids, bidders and auctions of each day.
    Q15,
    /// Prices of each auction and day.
    Q17,
    /// The newest bid of each bidder on each auction.
    Q18,
    /// The ten highest bids on each auction.
    Q19,
    /// Bids with what they are for.
    Q20,
}

impl Query {
    /// All of them, in order.
    pub const ALL: [Query; 16] = [
        Query::Q0,
        Query::Q1,
        Query::Q2,
        Query::Q3,
        Query::Q4,
        Query::Q5,
        Query::Q7,
        Query::Q8,
        Query::Q9,
        Query::Q11,
        Query::Q12,
        Query::Q15,
        Query::Q17,
        Query::Q18,
        Query::Q19,
        Query::Q20,
    ];

    /// How many of a row's first fields are the key whose newest row counts, if the query updates rows that it has given.
    pub fn key_fields(self) -> Option<usize> {
        match self {
            Query::Q4 => Some(1),
            Query::Q18 | Query::Q19 => Some(2),
            _ => None,
        }
    }
}

impl Query {
    /// Whether the query asks about event time. The others need no watermark.
    pub fn asks_about_time(self) -> bool {
        use Query::{Q0, Q1, Q2, Q3, Q18, Q19, Q20};
        !matches!(self, Q0 | Q1 | Q2 | Q3 | Q18 | Q19 | Q20)
    }
}

/// Where rows of whatever type go.
pub trait Rows {
    /// Takes the rows.
    fn take<R: Row + Sync>(self, rows: Stream<R>);
}

/// Adds `query` over `events`, which are out of order by at most `disorder`, to their flow.
pub fn add<E: Event>(query: Query, events: Stream<E>, disorder: Duration, rows: impl Rows) {
    // No partition is read far ahead of another: what has to wait for the other would only swell the state.
    let events = match query.asks_about_time() {
        true => events
            .event_time(|event: &E| event.date_time(), Watermarks::bounded(disorder).align_within(secs(1))),
        false => events,
    };
    match query {
        Query::Q0 => rows.take(q0::bids(events)),
        Query::Q1 => rows.take(q1::bids_in_euros(events)),
        Query::Q2 => rows.take(q2::some_bids(events)),
        Query::Q3 => rows.take(q3::local_items(events)),
        Query::Q4 => rows.take(q4::average_prices(events)),
        Query::Q5 => rows.take(q5::hot_items(events)),
        Query::Q7 => rows.take(q7::highest_bids(events)),
        Query::Q8 => rows.take(q8::new_sellers(events)),
        Query::Q9 => rows.take(q9::winners(events)),
        Query::Q11 => rows.take(q11::bids_in_sessions(events)),
        Query::Q12 => rows.take(q12::bids_in_windows(events)),
        Query::Q15 => rows.take(q15::bids_of_days(events)),
        Query::Q17 => rows.take(q17::prices_of_days(events)),
        Query::Q18 => rows.take(q18::newest_bids(events)),
        Query::Q19 => rows.take(q19::highest_bids_of_auctions(events)),
        Query::Q20 => rows.take(q20::bids_with_auctions(events)),
    }
}

/// The number of the day that begins at `start`, from 1970-01-01.
fn day_of(start: Timestamp) -> u64 {
    start.millis() as u64 / 86_400_000
}

impl fmt::Display for Query {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&format!("{self:?}").to_lowercase())
    }
}

impl FromStr for Query {
    type Err = String;

    fn from_str(name: &str) -> Result<Query, String> {
        let named = Query::ALL.into_iter().find(|query| query.to_string() == name);
        named.ok_or_else(|| {
            let names: Vec<_> = Query::ALL.iter().map(Query::to_string).collect();
            format!("there is no query `{name}`; there are {}", names.join(", "))
        })
    }
}
