//! What a failing function of the user's says.

use crate::flights::Departure;
use crate::setup::{BY_ORIGIN, backends, options, place_of, with_departures};
use rivermark::connectors::{Collect, LogSource};
use rivermark::sink::{Batch, Committer, Epoch, Sink, SinkContext, SinkWriter};
use rivermark::{BoxError, Context, Engine, Error, Flow, ProcessFunction};

/// The flight that the functions fail on.
const FLIGHT: u32 = 150_000;

#[derive(Clone)]
struct Fails {
    panics: bool,
}

impl ProcessFunction<String, Departure> for Fails {
    type Out = u32;

    fn on_record(
        &mut self,
        _carrier: &String,
        departure: Departure,
        cx: &mut Context<'_, String, u32>,
    ) -> Result<(), BoxError> {
        match departure.flight_id {
            FLIGHT if self.panics => panic!("flight {FLIGHT} is cursed"),
            FLIGHT => Err(format!("flight {FLIGHT} is cursed").into()),
            other => {
                cx.emit(other);
                Ok(())
            }
        }
    }
}

#[test]
fn an_error_and_a_panic_name_operator_topic_partition_and_offset() {
    let directory = with_departures();
    let (partition, offset) = place_of(FLIGHT);
    let place = format!("operator `checker`, record {BY_ORIGIN}[{partition}] offset {offset}");
    // Behind an exchange, so that the record may be on another worker than the one that read it.
    for panics in [false, true] {
        let engine = Engine::open_with(directory.path(), options(3, backends()[0])).unwrap();
        let flow = Flow::new(format!("failing-{panics}"));
        flow.source(LogSource::<Departure>::topic(BY_ORIGIN).until_end())
            .key_by(|departure| departure.carrier.clone())
            .process(Fails { panics })
            .named("checker")
            .sink(Collect::new());
        let error = engine.run(flow).unwrap_err();
        assert_eq!(matches!(error, Error::Panic { .. }), panics, "{error:?}");
        assert_eq!(matches!(error, Error::Function { .. }), !panics, "{error:?}");
        let message = error.to_string();
        assert!(message.contains(&place), "no {place} in: {message}");
        assert!(message.contains("flight 150000 is cursed"), "{message}");
    }
}

/// A sink whose writer panics on a flight.
struct Fragile;

struct FragileWriter;

impl Sink<u32> for Fragile {
    type Writer = FragileWriter;

    fn writer(&self, _cx: &SinkContext<'_>) -> Result<FragileWriter, BoxError> {
        Ok(FragileWriter)
    }

    fn committer(&self, cx: &SinkContext<'_>) -> Result<Box<dyn Committer>, BoxError> {
        Sink::<u32>::committer(&Collect::<u32>::new(), cx)
    }
}

impl SinkWriter<u32> for FragileWriter {
    fn write(&mut self, batch: &mut Batch<u32>) -> Result<(), BoxError> {
        assert!(!batch.values().contains(&FLIGHT), "flight {FLIGHT} is cursed");
        batch.clear();
        Ok(())
    }

    fn prepare(&mut self, _epoch: Epoch) -> Result<Option<Vec<u8>>, BoxError> {
        Ok(None)
    }
}

#[test]
fn a_sink_that_panics_is_named_and_not_the_operator_before_it() {
    let directory = with_departures();
    let engine = Engine::open_with(directory.path(), options(2, backends()[0])).unwrap();
    let flow = Flow::new("fragile");
    flow.source(LogSource::<Departure>::topic(BY_ORIGIN).until_end())
        .map(|departure| departure.flight_id)
        .sink_as("fragile", Fragile);
    let message = engine.run(flow).unwrap_err().to_string();
    assert!(message.contains("operator `fragile`, record") && message.contains("is cursed"), "{message}");
}
