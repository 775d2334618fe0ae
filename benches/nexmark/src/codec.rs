//! Events as records of the embedded log: fields one after the other, numbers in eight bytes, strings behind their length.
//!
//! Decoding a [`Full`] event copies every string into it; decoding a [`Lean`] one of the same record passes the strings over. The record of a lean
//! event ends before them.

use crate::event::{
    Auction, AuctionStrings, Bid, BidStrings, City, Event, Full, Lean, Name, Person, PersonStrings, State,
};
use crate::generator::Generator;
use crate::inline::Inline;
use crate::source::BLOCK;
use rivermark::connectors::format::Format;
use rivermark::log::{Log, RecordBatch, TopicOptions};
use rivermark::{BoxError, Timestamp};

/// The topic that has the events.
pub const TOPIC: &str = "nexmark-events";

/// The bytes of events.
#[derive(Copy, Clone, Debug, Default)]
pub struct EventFormat;

const PERSON: u8 = b'P';
const AUCTION: u8 = b'A';
const BID: u8 = b'B';

impl Format<Full> for EventFormat {
    fn encode(&self, event: &Full, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        let mut to = To(bytes);
        match event {
            Full::Person(p, s) => {
                to.person(p);
                to.strings([s.email_address.as_bytes(), s.credit_card.as_bytes(), s.extra.as_bytes()]);
            }
            Full::Auction(a, s) => {
                to.auction(a);
                to.strings([s.item_name.as_bytes(), s.description.as_bytes(), s.extra.as_bytes()]);
            }
            Full::Bid(b, s) => {
                to.bid(b);
                to.strings([s.channel.as_bytes(), s.url.as_bytes(), s.extra.as_bytes()]);
            }
        }
        Ok(())
    }

    #[inline]
    fn decode(&self, bytes: &[u8]) -> Result<Full, BoxError> {
        decode(bytes)
    }
}

impl Format<Lean> for EventFormat {
    fn encode(&self, event: &Lean, bytes: &mut Vec<u8>) -> Result<(), BoxError> {
        let mut to = To(bytes);
        match event {
            Lean::Person(person) => to.person(person),
            Lean::Auction(auction) => to.auction(auction),
            Lean::Bid(bid) => to.bid(bid),
        }
        Ok(())
    }

    #[inline]
    fn decode(&self, bytes: &[u8]) -> Result<Lean, BoxError> {
        decode(bytes)
    }
}

/// Strings are read only where the event's form has them.
#[inline]
fn decode<E: Event>(bytes: &[u8]) -> Result<E, BoxError> {
    let (tag, rest) = bytes.split_first().ok_or("an event of no bytes")?;
    let mut from = From { rest, is_ascii: false, is_cut: false };
    // The strings are read after the numbers, by the event's form: what is wrong with them is told afterwards.
    let event = match *tag {
        PERSON => {
            let [id, date_time] = from.numbers()?;
            from.expect_strings();
            let (name, city, state): (Name, City, State) = (from.string(), from.string(), from.string());
            let person = Person { id, date_time: time(date_time), name, city, state };
            E::of_person(person, || PersonStrings {
                email_address: from.string(),
                credit_card: from.string(),
                extra: from.string(),
            })
        }
        AUCTION => {
            let [id, initial_bid, reserve, date_time, expires, seller, category] = from.numbers()?;
            let (date_time, expires) = (time(date_time), time(expires));
            let auction = Auction { id, initial_bid, reserve, date_time, expires, seller, category };
            E::of_auction(auction, || {
                from.expect_strings();
                AuctionStrings { item_name: from.string(), description: from.string(), extra: from.string() }
            })
        }
        BID => {
            let [auction, bidder, price, date_time, number] = from.numbers()?;
            let bid = Bid { auction, bidder, price, date_time: time(date_time), number };
            E::of_bid(bid, || {
                from.expect_strings();
                BidStrings { channel: from.string(), url: from.string(), extra: from.string() }
            })
        }
        other => return Err(format!("an event begins with P, A or B, not with byte {other}").into()),
    };
    if from.is_cut { Err(cut(bytes)) } else { Ok(event) }
}

#[cold]
fn cut(bytes: &[u8]) -> BoxError {
    let length = bytes.len();
    format!("an event of {length} bytes ends within its strings, or one of them is too long or not UTF-8")
        .into()
}

fn time(millis: u64) -> Timestamp {
    Timestamp::from_millis(millis as i64)
}

struct To<'a>(&'a mut Vec<u8>);

impl To<'_> {
    fn person(&mut self, p: &Person) {
        self.tag(PERSON);
        self.numbers([p.id, p.date_time.millis() as u64]);
        self.strings([p.name.as_bytes(), p.city.as_bytes(), p.state.as_bytes()]);
    }

    fn auction(&mut self, a: &Auction) {
        self.tag(AUCTION);
        self.numbers([a.id, a.initial_bid, a.reserve, a.date_time.millis() as u64]);
        self.numbers([a.expires.millis() as u64, a.seller, a.category]);
    }

    fn bid(&mut self, b: &Bid) {
        self.tag(BID);
        self.numbers([b.auction, b.bidder, b.price, b.date_time.millis() as u64, b.number]);
    }

    fn tag(&mut self, tag: u8) {
        self.0.push(tag);
    }

    fn numbers<const N: usize>(&mut self, numbers: [u64; N]) {
        self.0.extend(numbers.into_iter().flat_map(u64::to_le_bytes));
    }

    fn strings<const N: usize>(&mut self, strings: [&[u8]; N]) {
        for string in strings {
            self.0.push(string.len() as u8);
            self.0.extend_from_slice(string);
        }
    }
}

struct From<'a> {
    rest: &'a [u8],
    /// Whether all strings are known to be ASCII.
    is_ascii: bool,
    /// A string was not there, or is none.
    is_cut: bool,
}

impl From<'_> {
    #[inline(always)]
    fn numbers<const N: usize>(&mut self) -> Result<[u64; N], BoxError> {
        let (numbers, rest) = self.rest.split_at_checked(8 * N).ok_or("an event ends within its numbers")?;
        self.rest = rest;
        let number =
            |at: usize| u64::from_le_bytes(numbers[8 * at..8 * at + 8].try_into().expect("eight bytes"));
        Ok(std::array::from_fn(number))
    }

    /// Only strings follow.
    #[inline(always)]
    fn expect_strings(&mut self) {
        self.is_ascii = self.rest.is_ascii();
    }

    /// The next string; the empty one if there is none.
    #[inline(always)]
    fn string<const N: usize>(&mut self) -> Inline<N> {
        let Some((length, rest)) = self.rest.split_first() else {
            self.is_cut = true;
            return Inline::EMPTY;
        };
        let length = usize::from(*length);
        let Some(string) = Inline::of_prefix(rest, length, self.is_ascii) else {
            self.is_cut = true;
            return Inline::EMPTY;
        };
        self.rest = &rest[length..];
        string
    }
}

/// Writes the first `events` events to [`TOPIC`], which must not be there, in as many partitions as there are workers to read them: the same
/// ones as [`Events`](crate::source::Events) has.
///
/// # Errors
/// Of the log.
pub fn write<E: Event>(log: &Log, generator: Generator, events: u64, partitions: u32) -> Result<(), BoxError>
where
    EventFormat: Format<E>,
{
    let topic = log.create_topic(TOPIC, TopicOptions::new(partitions))?;
    let mut batch = RecordBatch::new();
    for block in 0..events.div_ceil(BLOCK) {
        for n in block * BLOCK..events.min((block + 1) * BLOCK) {
            let event: E = generator.event(n);
            batch.push_with(None, event.date_time().millis(), |bytes| EventFormat.encode(&event, bytes))?;
        }
        topic.append((block % u64::from(partitions)) as u32, &mut batch)?;
    }
    topic.sync()?;
    Ok(())
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::*;

    #[test]
    fn an_event_comes_back_and_a_lean_one_leaves_the_strings_out() {
        let generator = Generator::default();
        for n in 0..1000 {
            let (mut bytes, event) = (Vec::new(), generator.event::<Full>(n));
            EventFormat.encode(&event, &mut bytes).unwrap();
            let full: Full = EventFormat.decode(&bytes).unwrap();
            let lean: Lean = EventFormat.decode(&bytes).unwrap();
            assert_eq!((full, lean), (event, generator.event(n)));
            bytes.clear();
            EventFormat.encode(&lean, &mut bytes).unwrap();
            assert_eq!(Format::<Lean>::decode(&EventFormat, &bytes).unwrap(), lean);
            assert!(Format::<Full>::decode(&EventFormat, &bytes).is_err(), "it has no strings");
        }
    }

    #[test]
    fn what_is_cut_off_is_no_event() {
        let (mut bytes, event) = (Vec::new(), Generator::default().event::<Full>(4));
        EventFormat.encode(&event, &mut bytes).unwrap();
        for length in 0..bytes.len() {
            assert!(Format::<Full>::decode(&EventFormat, &bytes[..length]).is_err(), "{length} bytes");
        }
    }
}
