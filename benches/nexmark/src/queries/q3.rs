//! q3: what is for sale in three states, in one category: auctions joined with their sellers, whichever comes first, without bounds in time.

use crate::event::{City, Event, Name, Person, State};
use rivermark::{BoxError, Context, List, ProcessFunction, Stream, Value};

/// Name, city and state of the seller, and the auction.
pub fn local_items<E: Event>(events: Stream<E>) -> Stream<(Name, City, State, u64)> {
    events.into_keyed(|event| Side::of(&event)).process(LocalItems)
}

/// What is joined.
enum Side {
    Seller(Person),
    Auction(u64),
}

impl Side {
    /// With the seller's number.
    fn of<E: Event>(event: &E) -> Option<(u64, Side)> {
        if let Some(auction) = event.auction() {
            (auction.category == 10).then_some((auction.seller, Side::Auction(auction.id)))
        } else {
            let near = event.person().filter(|person| ["OR", "ID", "CA"].contains(&person.state.as_str()));
            near.map(|person| (person.id, Side::Seller(*person)))
        }
    }
}

const SELLER: Value<Person> = Value::new("seller");
/// Auctions of a seller who is not known yet.
const WAITING: List<u64> = List::new("waiting");

#[derive(Clone)]
struct LocalItems;

impl ProcessFunction<u64, Side> for LocalItems {
    type Out = (Name, City, State, u64);

    fn on_record(
        &mut self,
        _seller: &u64,
        side: Side,
        cx: &mut Context<'_, u64, Self::Out>,
    ) -> Result<(), BoxError> {
        match side {
            Side::Seller(person) => {
                for auction in cx.state(WAITING).take()? {
                    cx.emit((person.name, person.city, person.state, auction));
                }
                cx.state(SELLER).set(person)
            }
            Side::Auction(auction) => match cx.state(SELLER).get()? {
                Some(person) => {
                    cx.emit((person.name, person.city, person.state, auction));
                    Ok(())
                }
                None => cx.state(WAITING).push(auction),
            },
        }
    }
}
