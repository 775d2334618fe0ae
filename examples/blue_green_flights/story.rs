//! Version 2 is deployed beside version 1, promoted and rolled back, while departures come in and clients ask.

use crate::answers::{Answers, by_version};
use crate::clients::{Asked, Clients};
use crate::flights::table::{facts, grouped, heading, millis, say, table};
use crate::site::{Site, wait_for};
use rivermark::{BoxError, Timestamp};
use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

/// Days of the year that pass in a second.
const PACE: f64 = 12.0;
/// Faster than anything can be fed.
const AT_ONCE: f64 = 1e9;

pub fn run(directory: &Path, answers: &Arc<Answers>) -> Result<(), BoxError> {
    let all = answers.departures.len();
    heading("1  Half a year in the log, and version 1 live on it");
    let mut site = Site::open(directory, answers, all / 2)?;
    site.deploy_what_was()?;
    let took = site.wait_until_read()?;
    let at = Timestamp::from_secs(answers.departures[all / 2].dep_ts);
    say(format!("{} departures until {at}, read in {}", grouped(all as u64 / 2), millis(took)));
    say(format!("from here on they come at {PACE} days a second, and two clients ask over HTTP"));
    let clients = Clients::start(answers)?;
    clients.ask(Some(site.address()));
    clients.is_live(1);
    site.feed(PACE, all * 7 / 10);

    heading("2  Version 2 replays the log from offset zero");
    println!("{}", indented(&site.plan(2)?.to_string()));
    let begun = Instant::now();
    let second = site.deploy(2)?;
    let (mut changing, first) = (false, site.version(1)?.clone());
    let took = site.promote(2, || {
        if !std::mem::replace(&mut changing, true) {
            clients.changes();
        }
    })?;
    clients.is_live(2);
    let fed = site.fed();
    say(format!(
        "caught up with {} departures after {}",
        grouped(fed as u64),
        millis(begun.elapsed() - took)
    ));
    say(format!(
        "promoted in {}: version 1 is {}, version 2 {}",
        millis(took),
        first.state(),
        second.state()
    ));

    heading("3  Version 2 is live, and rolled back");
    site.feed(PACE, all * 8 / 10);
    wait_for("version 2 has been live for a while", || Ok(site.fed() >= all * 3 / 4))?;
    clients.changes();
    let begun = Instant::now();
    second.roll_back("the airlines complain")?;
    let took = begun.elapsed();
    clients.is_live(1);
    say(format!(
        "rolled back in {}: version 1 is {} again, version 2 {}",
        millis(took),
        first.state(),
        second.state()
    ));
    site.feed(PACE, all * 9 / 10);
    site.wait_until_fed(all * 9 / 10)?;
    site.feed(AT_ONCE, all);
    site.wait_until_fed(all)?;
    site.wait_until_read()?;
    let asked = clients.stop()?;

    heading("4  What readers and clients have seen");
    let verified = site.verify()?;
    let parts = by_version(&verified.rows).into_iter().scan(0, |at, (version, count)| {
        let rows = &verified.rows[*at..*at + count];
        *at += count;
        let hour = |row: Option<&(u64, crate::flights::HourlyDelays)>| {
            row.map_or_else(String::new, |(_, row)| Timestamp::from_secs(row.window_start).to_string())
        };
        Some(vec![version.to_string(), grouped(count as u64), hour(rows.first()), hour(rows.last())])
    });
    table(&["version", "rows", "first hour", "last hour"], &parts.collect::<Vec<_>>());
    println!();
    say(
        "every row is there once, and is what a plain program computes for its version; so has it who read along",
    );
    println!();
    report(asked, true)
}

/// Tells what clients have seen, and fails if it was not right.
pub fn report(mut asked: Asked, is_alone: bool) -> Result<(), BoxError> {
    let of = |(version, count): (&u64, &u64)| format!("{} by version {version}", grouped(*count));
    let by_version: Vec<String> = match asked.answered.len() {
        0..=4 => asked.answered.iter().map(of).collect(),
        versions => vec![format!("by {versions} versions")],
    };
    let took = |asked: &mut Asked, part| millis(asked.within(part));
    facts(&[
        ("answers", format!("{}: {}", grouped(asked.answers()), by_version.join(", "))),
        (
            "within",
            format!(
                "{} (median), {} (p99), {} (all)",
                took(&mut asked, 0.5),
                took(&mut asked, 0.99),
                took(&mut asked, 1.0)
            ),
        ),
        ("wrong", asked.wrong.len().to_string()),
        ("refused", asked.refused.to_string()),
        ("not answered", asked.lost.to_string()),
    ]);
    if let Some(wrong) = asked.wrong.first() {
        return Err(format!("{} answers are wrong, such as: {wrong}", asked.wrong.len()).into());
    }
    if asked.answers() == 0 {
        return Err("nobody has been answered".into());
    }
    if is_alone && (asked.refused > 0 || asked.lost > 0) {
        let Asked { refused, lost, refusal, .. } = asked;
        return Err(format!("{refused} requests were refused and {lost} not answered; {refusal}").into());
    }
    Ok(())
}

fn indented(text: &str) -> String {
    let lines: Vec<String> = text.lines().map(|line| format!("  {line}")).collect();
    lines.join("\n")
}
