//! The generator of `SPEC.md`: event n is a function of n and the settings.
//!
//! Each field is drawn by a hash of the event's number and the field's, so that any two programs make the very same events, and any event can be
//! made without those before it.

use crate::event::{
    Auction, AuctionStrings, Bid, BidStrings, City, Event, Name, Person, PersonStrings, State,
};
use crate::inline::Inline;
use rivermark::Timestamp;

const GOLDEN: u64 = 0x9E37_79B9_7F4A_7C15;
/// 2015-07-15.
const BEGINNING_MS: u64 = 1_436_918_400_000;
/// What makes an id of an index.
const FIRST_ID: u64 = 1000;
/// Events of one epoch: a person, three auctions, 46 bids.
pub const EPOCH: u64 = 50;

const FIRST: [&str; 11] =
    ["peter", "paul", "luke", "john", "saul", "vicky", "kate", "julie", "sarah", "deiter", "walter"];
const LAST: [&str; 9] =
    ["shultz", "abrams", "spencer", "white", "bartels", "walton", "smith", "jones", "noris"];
const CITY: [&str; 10] = [
    "Phoenix",
    "Los Angeles",
    "San Francisco",
    "Boise",
    "Portland",
    "Bend",
    "Redmond",
    "Seattle",
    "Kent",
    "Cheyenne",
];
const STATE: [&str; 6] = ["AZ", "CA", "ID", "OR", "WA", "WY"];
const CHANNEL: [&str; 4] = ["Google", "Facebook", "Baidu", "Apple"];

#[inline]
fn mix(x: u64) -> u64 {
    let z = x.wrapping_add(GOLDEN);
    let z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    let z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// What is drawn for one event.
#[derive(Copy, Clone)]
struct Draws(u64);

impl Draws {
    /// The number of field `k`.
    #[inline]
    fn field(self, k: u64) -> u64 {
        mix(self.0 ^ k.wrapping_mul(GOLDEN))
    }

    /// The id of one of the newest `among` of indexes up to `last`: mostly the same one of a hundred, if `hot`.
    #[inline]
    fn recent(self, hot: bool, k: u64, last: u64, among: u64) -> u64 {
        let index = if hot {
            last / 100 * 100
        } else if last >= among - 1 {
            last - self.field(k) % among
        } else {
            last - self.field(k) % (last + 1)
        };
        FIRST_ID + index
    }
}

/// How events are made.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Generator {
    /// Where the hash begins.
    pub seed: u64,
    /// How many events happen in a millisecond of event time.
    pub events_per_ms: u64,
    /// By how many milliseconds events may be out of order.
    pub jitter_ms: u64,
}

impl Default for Generator {
    /// The settings of the specification, for which it has checksums and answers.
    fn default() -> Self {
        Generator { seed: 42, events_per_ms: 10, jitter_ms: 1000 }
    }
}

impl Generator {
    /// Event `n`, made where it is wanted.
    #[inline(always)]
    pub fn event<E: Event>(&self, n: u64) -> E {
        let draws = Draws(mix(self.seed.wrapping_add(n)));
        match n % EPOCH {
            0 => self.person(n, draws),
            1..=3 => self.auction(n, draws),
            _ => self.bid(n, draws),
        }
    }

    /// Gives event `n` to `take`: [`event`](Self::event) for a caller who keeps it. Each kind has its own way there, so that its fields are
    /// written where they are kept, and nowhere before that.
    #[inline(always)]
    pub fn give<E: Event>(&self, n: u64, mut take: impl FnMut(E)) {
        let draws = Draws(mix(self.seed.wrapping_add(n)));
        match n % EPOCH {
            0 => take(self.person(n, draws)),
            1..=3 => take(self.auction(n, draws)),
            _ => take(self.bid(n, draws)),
        }
    }

    #[inline]
    fn time(&self, n: u64, draws: Draws) -> Timestamp {
        // A division by a constant is a multiplication, so those of the specification are spelled out.
        let passed = if self.events_per_ms == 10 { n / 10 } else { n / self.events_per_ms };
        let draw = draws.field(0);
        let back = if self.jitter_ms == 1000 { draw % 1001 } else { draw % (self.jitter_ms + 1) };
        Timestamp::from_millis((BEGINNING_MS + passed - back) as i64)
    }

    #[inline]
    fn person<E: Event>(&self, n: u64, draws: Draws) -> E {
        let pick = |from: &[&'static str], k| from[(draws.field(k) % from.len() as u64) as usize];
        let id = FIRST_ID + n / EPOCH;
        let person = Person {
            id,
            date_time: self.time(n, draws),
            name: Name::of(pick(&FIRST, 1)).with(" ").with(pick(&LAST, 2)),
            city: City::of(pick(&CITY, 5)),
            state: State::of(pick(&STATE, 6)),
        };
        E::of_person(person, || PersonStrings {
            email_address: Inline::of("p")
                .with_decimal(id)
                .with("@m")
                .with_decimal(draws.field(3) % 97)
                .with(".example"),
            credit_card: Inline::EMPTY.with_digits(draws.field(4), 10, 16),
            extra: Inline::EMPTY,
        })
    }

    #[inline]
    fn auction<E: Event>(&self, n: u64, draws: Draws) -> E {
        let (epoch, offset) = (n / EPOCH, n % EPOCH);
        let date_time = self.time(n, draws);
        let initial_bid = 100 + draws.field(3) % 10_000;
        let auction = Auction {
            id: FIRST_ID + epoch * 3 + offset - 1,
            initial_bid,
            reserve: initial_bid + draws.field(4) % 10_000,
            date_time,
            expires: date_time.plus_millis((1000 + draws.field(5) % 19_000) as i64),
            seller: draws.recent(!draws.field(6).is_multiple_of(4), 7, epoch, 1000),
            category: 10 + draws.field(8) % 5,
        };
        E::of_auction(auction, || AuctionStrings {
            item_name: Inline::of("item-").with_hex(draws.field(1) % (1 << 20)),
            description: Inline::of("d").with_digits(draws.field(2), 16, 16),
            extra: Inline::EMPTY,
        })
    }

    #[inline(always)]
    fn bid<E: Event>(&self, n: u64, draws: Draws) -> E {
        let epoch = n / EPOCH;
        // The remainder by 100 << e, without a division by a variable: the low e bits stay, those above go by 100.
        let (e, draw) = (draws.field(5) % 16, draws.field(6));
        let above = ((draw >> e) % 100) << e | draw & ((1 << e) - 1);
        let bid = Bid {
            auction: draws.recent(!draws.field(1).is_multiple_of(2), 2, epoch * 3 + 2, 100),
            bidder: draws.recent(!draws.field(3).is_multiple_of(4), 4, epoch, 1000),
            price: (100 << e) + above,
            date_time: self.time(n, draws),
            number: n,
        };
        E::of_bid(bid, || {
            let (c, channel_id) = (draws.field(7) % 8, draws.field(8) % 10_000);
            BidStrings {
                channel: match CHANNEL.get(c as usize) {
                    Some(channel) => Inline::of(channel),
                    None => Inline::of("channel-").with_decimal(channel_id),
                },
                url: Inline::of("https://www.nexmark.example/")
                    .with_hex(draws.field(9) % (1 << 20))
                    .with("/item.htm?query=1&channel_id=")
                    .with_decimal(channel_id),
                extra: Inline::of_x((draws.field(10) % 32) as usize),
            }
        })
    }
}
