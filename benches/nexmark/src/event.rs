//! The events of the auction: persons, auctions and bids, in two forms.
//!
//! [`Lean`] events carry only the fields that the queries read, 64 bytes; [`Full`] ones carry every field of the specification, strings in
//! place, 168 bytes. A query is written once, over [`Event`].

use crate::inline::Inline;
use rivermark::Timestamp;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

/// A person's name.
pub type Name = Inline<15>;
/// A person's city.
pub type City = Inline<15>;
/// A person's state, two letters.
pub type State = Inline<2>;

/// Somebody who has registered.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Person {
    /// Who.
    pub id: u64,
    /// When.
    pub date_time: Timestamp,
    /// First and last name.
    pub name: Name,
    /// Where they live.
    pub city: City,
    /// In which state.
    pub state: State,
}

/// Something that is for sale.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Auction {
    /// Which auction.
    pub id: u64,
    /// The lowest bid that is allowed.
    pub initial_bid: u64,
    /// The price below which it is not sold.
    pub reserve: u64,
    /// When it opened.
    pub date_time: Timestamp,
    /// The last moment at which a bid counts.
    pub expires: Timestamp,
    /// The person who sells.
    pub seller: u64,
    /// What kind of thing it is.
    pub category: u64,
}

/// An offer for something that is for sale.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bid {
    /// The auction.
    pub auction: u64,
    /// The person who offers.
    pub bidder: u64,
    /// How much, in cents of a dollar.
    pub price: u64,
    /// When.
    pub date_time: Timestamp,
    /// The event's number: which of two bids of one moment is the newer one.
    pub number: u64,
}

/// An event, in whichever form.
pub trait Event: Clone + Send + Sync + Serialize + DeserializeOwned + 'static {
    /// The event of a person.
    fn of_person(person: Person, strings: impl FnOnce() -> PersonStrings) -> Self;
    /// The event of an auction.
    fn of_auction(auction: Auction, strings: impl FnOnce() -> AuctionStrings) -> Self;
    /// The event of a bid.
    fn of_bid(bid: Bid, strings: impl FnOnce() -> BidStrings) -> Self;

    /// The person, if it is one.
    fn person(&self) -> Option<&Person>;
    /// The auction, if it is one.
    fn auction(&self) -> Option<&Auction>;
    /// The bid, if it is one.
    fn bid(&self) -> Option<&Bid>;

    /// When it happened.
    #[inline]
    fn date_time(&self) -> Timestamp {
        if let Some(bid) = self.bid() {
            bid.date_time
        } else if let Some(auction) = self.auction() {
            auction.date_time
        } else {
            self.person().expect("an event is a person, an auction or a bid").date_time
        }
    }
}

/// What else is known of a person.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct PersonStrings {
    /// Their address.
    pub email_address: Inline<31>,
    /// Sixteen digits.
    pub credit_card: Inline<16>,
    /// Empty.
    pub extra: Inline<7>,
}

/// What else is known of an auction.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuctionStrings {
    /// What it is.
    pub item_name: Inline<15>,
    /// More about it.
    pub description: Inline<23>,
    /// Empty.
    pub extra: Inline<7>,
}

/// What else is known of a bid.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct BidStrings {
    /// Where the bidder came from.
    pub channel: Inline<15>,
    /// The page on which they were.
    pub url: Inline<71>,
    /// Up to 31 bytes more.
    pub extra: Inline<31>,
}

/// An event with the fields that queries read.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Lean {
    /// A person.
    Person(Person),
    /// An auction.
    Auction(Auction),
    /// A bid.
    Bid(Bid),
}

/// An event with every field of the specification.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Full {
    /// A person.
    Person(Person, PersonStrings),
    /// An auction.
    Auction(Auction, AuctionStrings),
    /// A bid.
    Bid(Bid, BidStrings),
}

const _: () = assert!(size_of::<Lean>() == 64 && size_of::<Full>() == 168);

impl Event for Lean {
    #[inline]
    fn of_person(person: Person, _strings: impl FnOnce() -> PersonStrings) -> Self {
        Lean::Person(person)
    }

    #[inline]
    fn of_auction(auction: Auction, _strings: impl FnOnce() -> AuctionStrings) -> Self {
        Lean::Auction(auction)
    }

    #[inline]
    fn of_bid(bid: Bid, _strings: impl FnOnce() -> BidStrings) -> Self {
        Lean::Bid(bid)
    }

    #[inline]
    fn person(&self) -> Option<&Person> {
        if let Lean::Person(person) = self { Some(person) } else { None }
    }

    #[inline]
    fn auction(&self) -> Option<&Auction> {
        if let Lean::Auction(auction) = self { Some(auction) } else { None }
    }

    #[inline]
    fn bid(&self) -> Option<&Bid> {
        if let Lean::Bid(bid) = self { Some(bid) } else { None }
    }
}

impl Event for Full {
    #[inline]
    fn of_person(person: Person, strings: impl FnOnce() -> PersonStrings) -> Self {
        Full::Person(person, strings())
    }

    #[inline]
    fn of_auction(auction: Auction, strings: impl FnOnce() -> AuctionStrings) -> Self {
        Full::Auction(auction, strings())
    }

    #[inline]
    fn of_bid(bid: Bid, strings: impl FnOnce() -> BidStrings) -> Self {
        Full::Bid(bid, strings())
    }

    #[inline]
    fn person(&self) -> Option<&Person> {
        if let Full::Person(person, _) = self { Some(person) } else { None }
    }

    #[inline]
    fn auction(&self) -> Option<&Auction> {
        if let Full::Auction(auction, _) = self { Some(auction) } else { None }
    }

    #[inline]
    fn bid(&self) -> Option<&Bid> {
        if let Full::Bid(bid, _) = self { Some(bid) } else { None }
    }
}

impl Full {
    /// Appends the event as a line of the specification's text form.
    pub fn write_text(&self, out: &mut Vec<u8>) {
        use std::io::Write;
        let written = match self {
            Full::Person(p, s) => writeln!(
                out,
                "P|{}|{}|{}|{}|{}|{}|{}|{}",
                p.id,
                p.name,
                s.email_address,
                s.credit_card,
                p.city,
                p.state,
                p.date_time.millis(),
                s.extra
            ),
            Full::Auction(a, s) => writeln!(
                out,
                "A|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
                a.id,
                s.item_name,
                s.description,
                a.initial_bid,
                a.reserve,
                a.date_time.millis(),
                a.expires.millis(),
                a.seller,
                a.category,
                s.extra
            ),
            Full::Bid(b, s) => writeln!(
                out,
                "B|{}|{}|{}|{}|{}|{}|{}",
                b.auction,
                b.bidder,
                b.price,
                s.channel,
                s.url,
                b.date_time.millis(),
                s.extra
            ),
        };
        written.expect("a vector takes all that is written");
    }
}
