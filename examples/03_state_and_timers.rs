//! A function with state and timers: which airport has gone silent, and for how long?
//!
//! `cargo run --release --example 03_state_and_timers [DIRECTORY]`
//!
//! Every departure sets a timer nine hours ahead, since even a night is shorter, and takes back the one before it. A timer that fires
//! says that nothing has left for nine hours.
#![expect(clippy::print_stdout, reason = "a program that prints")]

mod flights;

use flights::Departure;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::{BoxError, Context, Engine, Flow, ProcessFunction, Timestamp, Value, Watermarks, hours};
use std::time::Duration;

/// A name, a type and a handle at once. Each airport has a value of its own under it.
const LAST: Value<Timestamp> = Value::new("last-departure");

const TOO_LONG: Duration = hours(9);

#[derive(Clone)]
struct Silence;

impl ProcessFunction<String, Departure> for Silence {
    type Out = (Timestamp, String);

    fn on_record(
        &mut self,
        origin: &String,
        flight: Departure,
        cx: &mut Context<'_, String, Self::Out>,
    ) -> Result<(), BoxError> {
        let now = cx.time();
        match cx.state(LAST).get()? {
            // The timer is due, but whether it has fired yet depends on how records happened to be read. So it is left to fire, and
            // the result is the same in either order.
            Some(last) if last + TOO_LONG <= now => {
                let hours = (now.secs() - last.secs()) as f64 / 3600.0;
                cx.emit((now, format!("{origin}: a plane to {} after {hours:.1} hours", flight.dest)));
            }
            Some(last) => cx.delete_timer(last + TOO_LONG)?,
            None => {}
        }
        cx.state(LAST).set(now)?;
        cx.timer(now + TOO_LONG)
    }

    fn on_timer(
        &mut self,
        origin: &String,
        time: Timestamp,
        cx: &mut Context<'_, String, Self::Out>,
    ) -> Result<(), BoxError> {
        cx.emit((time, format!("{origin}: nothing has left since {}", time - TOO_LONG)));
        Ok(())
    }
}

fn main() -> Result<(), BoxError> {
    let temporary = tempfile::tempdir()?;
    let directory = std::env::args().nth(1).map_or(temporary.path().into(), std::path::PathBuf::from);
    let engine = Engine::open(&directory)?;
    flights::append_by_origin(engine.log(), "departures", &flights::departures()?)?;

    let flow = Flow::new("silence");
    flow.source(LogSource::<Departure>::topic("departures").until_end())
        .event_time(Departure::departed, Watermarks::monotonous())
        .key_by(|flight| flight.origin.clone())
        .process(Silence)
        .sink(LogSink::topic("silence"));
    engine.run(flow)?;

    // The blizzard of February 2013, Thanksgiving, the longest night of the year, and the end of the data.
    let mut events: Vec<(Timestamp, String)> = flights::read(engine.log(), "silence")?;
    events.sort();
    for (time, event) in events {
        println!("{time}  {event}");
    }
    Ok(())
}
