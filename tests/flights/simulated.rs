//! A slice of the flights under simulation: the same flow, log and sink, on one thread under a seed, with crashes between and within steps, a disk
//! that forgets what was not synced, a checkpoint store that loses replies, and another number of workers after each crash.

use crate::delays::assert_rows;
use crate::flights::{self, Delays, Departure, HourlyDelays};
use crate::setup::BY_ORIGIN;
use crate::sips::Sips;
use rivermark::connectors::{LogSink, LogSource};
use rivermark::simulation::{Report, Simulation};
use rivermark::{Flow, Late, Options, Watermarks, Windows, hours, millis};
use std::collections::BTreeMap;

const SEEDS: u64 = 500;

/// Two days of departures.
const SLICE: usize = 1500;
/// An hour: a tenth of them come later than that.
const BOUND_MS: i64 = 3_600_000;

fn flow() -> Flow {
    let flow = Flow::new("delays");
    flow.source(Sips { source: LogSource::<Departure>::topic(BY_ORIGIN).until_end(), most: 8 })
        .event_time(Departure::scheduled, Watermarks::bounded(hours(1)))
        .key_by(|departure| departure.origin.clone())
        .window(Windows::tumbling(hours(1)))
        .late_output(|late| late.sink(LogSink::topic("late")))
        .fold(Delays::default(), Delays::add, Delays::merge)
        .map(HourlyDelays::from)
        .sink(LogSink::topic("delays"));
    flow
}

fn simulate(seed: u64, departures: &[Departure]) -> Report {
    let options = Options::new().checkpoint_every(millis(5));
    let report = Simulation::seed(seed).crashes(6).options(options).run(
        |log| {
            flights::append_by_origin(log, BY_ORIGIN, departures).unwrap();
            Ok(())
        },
        flow,
    );
    report.unwrap_or_else(|error| panic!("seed {seed}: {error}"))
}

/// The answer, by a loop: a departure is late if its hour was over, by the watermark of its origin, when it came.
fn by_hand(departures: &[Departure]) -> (Vec<HourlyDelays>, Vec<u32>) {
    let mut greatest: BTreeMap<&str, i64> = BTreeMap::new();
    let mut hours: BTreeMap<(i64, String), Delays> = BTreeMap::new();
    let mut late = Vec::new();
    for departure in departures {
        let time = departure.scheduled().millis();
        let hour = time - time.rem_euclid(3_600_000);
        let seen = greatest.entry(&departure.origin).or_insert(i64::MIN);
        if hour + 3_600_000 <= seen.saturating_sub(BOUND_MS) {
            late.push(departure.flight_id);
        } else {
            hours.entry((hour / 1000, departure.origin.clone())).or_default().add(departure);
        }
        *seen = (*seen).max(time);
    }
    let row = |((window_start, origin), delays): ((i64, String), Delays)| HourlyDelays {
        window_start,
        origin,
        n: delays.n,
        sum_delay_min: delays.sum_delay_min,
        min_delay_min: delays.min_delay_min,
        max_delay_min: delays.max_delay_min,
        n_late15: delays.n_late15,
    };
    late.sort_unstable();
    (hours.into_iter().map(row).collect(), late)
}

#[test]
fn every_seed_gives_every_row_and_every_late_departure_once() {
    let departures = &flights::departures().unwrap()[..SLICE];
    let (mut expected, expected_late) = by_hand(departures);
    expected.sort();
    assert!(expected_late.len() > 20, "{} late: too few to get wrong", expected_late.len());
    let (mut crashes, mut checkpoints) = (0, 0);
    for seed in 0..SEEDS {
        let report = simulate(seed, departures);
        let mut rows: Vec<HourlyDelays> = flights::read(&report.log, "delays").unwrap();
        rows.sort();
        assert_rows(&rows, &expected, &format!("seed {seed}"));
        let late: Vec<Late<String, Departure>> = flights::read(&report.log, "late").unwrap();
        let mut late: Vec<u32> = late.iter().map(|late| late.value.flight_id).collect();
        late.sort_unstable();
        assert_eq!(late, expected_late, "seed {seed}");
        crashes += u64::from(report.crashes);
        checkpoints += report.checkpoints;
    }
    // What is tested is worth something only if there was something to survive.
    assert!(crashes > SEEDS, "{crashes} crashes");
    assert!(checkpoints > 5 * SEEDS, "{checkpoints} checkpoints");
}

#[test]
fn the_same_seed_gives_the_same_trace() {
    let departures = &flights::departures().unwrap()[..SLICE];
    for seed in 0..10 {
        let trace = || {
            let report = simulate(seed, departures);
            (report.trace, report.steps, report.crashes, report.attempts)
        };
        assert_eq!(trace(), trace(), "seed {seed}");
    }
}
