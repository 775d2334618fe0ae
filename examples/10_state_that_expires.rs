//! State that expires: what a plane must have to leave New York, and when it has to be issued anew.
//!
//! `cargo run --release --example 10_state_that_expires [DIRECTORY]`
//!
//! A *permit* is good for a week, whatever the plane does. A *card* is good for a week from when it was last shown. Nobody counts days and
//! nobody cleans up: the state has a time to live, in event time, so that a replay gives the same rows. The program ends with an error if a
//! plain loop over the file says otherwise.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::planes::{self, Flight, Issued};
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Context, Engine, Expiring, Flow, ProcessFunction, Ttl, Value, Watermarks, days};

const PERMIT: Expiring<Value<()>> = Value::new("permit").expiring(Ttl::after_write(days(7)));
const CARD: Expiring<Value<()>> = Value::new("card").expiring(Ttl::after_access(days(7)));

#[derive(Clone)]
struct Gate;

impl ProcessFunction<String, Flight> for Gate {
    type Out = (String, Issued);

    fn on_record(
        &mut self,
        plane: &String,
        _: Flight,
        cx: &mut Context<'_, String, Self::Out>,
    ) -> Result<(), BoxError> {
        // What has expired is not there.
        let needs_permit = cx.state(PERMIT).get()?.is_none();
        if needs_permit {
            cx.state(PERMIT).set(())?;
        }
        let needs_card = cx.state(CARD).get()?.is_none();
        if needs_card {
            cx.state(CARD).set(())?;
        }
        cx.emit((plane.clone(), [1, needs_permit.into(), needs_card.into()]));
        Ok(())
    }
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    let planned = planes::planned()?;
    flights::append(engine.log(), "planned", 1, &planned, |_| 0, |_| ())?;

    let flow = Flow::new("permits");
    flow.source(LogSource::<Flight>::topic("planned").until_end())
        .event_time(Flight::due, Watermarks::monotonous())
        .key_by(|flight| flight.tailnum.clone())
        .process(Gate)
        .sink(LogSink::topic("issued"));
    engine.run(flow)?;

    let issued = planes::total(flights::read(engine.log(), "issued")?);
    planes::show(&issued);
    if issued != planes::by_hand(&planned) {
        return Err("a loop over the file says otherwise".into());
    }
    println!("\n{}; a loop over the file says the same.", planes::summary(&issued));
    Ok(())
}
