//! A corrected version reads the log again from offset zero, beside the output of the first.

use crate::flights::table::{grouped, heading, say, table};
use crate::flights::{Departure, HourlyDelays};
use crate::flow::{Output, Version};
use crate::pipeline;
use crate::results::Results;
use rivermark::{BoxError, Engine, Timestamp};

/// Runs version 2 and shows what it changes.
pub fn run(
    engine: &Engine,
    departures: &[Departure],
    first: (&Output, &Results),
    second: &Output,
) -> Result<(), BoxError> {
    heading("4  Version 2, replayed from offset zero");
    say("Version 1 counts a flight as late above 15 minutes. It should from 15 on.\n");
    let corrected = pipeline::run(engine, Version::Two, departures, second)?;
    say("correct: every row is that of expected/p1_delay_by_origin_hour.csv");

    let kept = Results::read(engine.log(), first.0)?;
    if kept != *first.1 {
        return Err("version 1's output has changed while version 2 was replayed".into());
    }
    say("version 1's topic and files are as they were");
    let (before, after) = (kept.rows()?, corrected.rows()?);
    let mut changes: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
    changes.sort_by_key(|(before, after)| std::cmp::Reverse(after.n_late15 - before.n_late15));
    let total = |rows: &[HourlyDelays]| rows.iter().map(|row| row.n_late15).sum::<u64>();
    println!();
    let rows: Vec<_> = changes.iter().take(6).map(|(before, after)| difference(before, after)).collect();
    table(&["hour", "airport", "flights", "late, version 1", "late, version 2", "change"], &rows);
    println!();
    let (rows, flights) = (changes.len() as u64, total(&after) - total(&before));
    say(format!(
        "{} of {} rows differ, by {} late flights in all",
        grouped(rows),
        grouped(after.len() as u64),
        grouped(flights)
    ));
    Ok(())
}

fn difference(before: &HourlyDelays, after: &HourlyDelays) -> Vec<String> {
    vec![
        Timestamp::from_secs(after.window_start).to_string(),
        after.origin.clone(),
        after.n.to_string(),
        before.n_late15.to_string(),
        after.n_late15.to_string(),
        format!("+{}", after.n_late15 - before.n_late15),
    ]
}
