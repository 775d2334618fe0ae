//! Airlines by their codes, and how many planes of each have been in the air.

use rivermark::log::{Compaction, Log, RecordBatch, TopicOptions};
use rivermark::{BoxError, Timestamp, Upsert};
use serde::{Deserialize, Serialize};

/// The topic of the airlines' names by their codes: compacted, a table.
pub const AIRLINES: &str = "airlines";

/// American Airlines and US Airways become one, in December 2013.
pub const MERGER: Timestamp = Timestamp::from_secs(1_386_597_600);

/// How many planes of an airline have been in the air.
#[derive(Debug, Default, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InTheAir {
    pub airline: String,
    /// The most at once, and since when.
    pub most: u64,
    pub at: i64,
}

impl InTheAir {
    /// What is known when an airline has so many planes in the air.
    pub fn now(change: Upsert<String, u64>) -> InTheAir {
        InTheAir { airline: change.key, most: change.value.unwrap_or(0), at: change.time.secs() }
    }

    /// What is known later.
    pub fn then(&mut self, now: InTheAir) {
        if now.most > self.most {
            *self = now;
        }
    }
}

/// The names of airlines, and what the merger makes of two of them.
pub fn append(log: &Log) -> Result<(), BoxError> {
    let new_year = Timestamp::from_secs(1_356_998_400);
    let names: Vec<(String, String)> = super::rows_of("airlines.csv.zst")?;
    let names = names.into_iter().map(|(carrier, name)| (new_year, carrier, Some(name)));
    let merged = ["AA", "US"].map(|carrier| (MERGER, carrier.into(), Some("American Airlines Group".into())));
    append_rows(log, AIRLINES, names.chain(merged))
}

/// The topic of the rules: from which delay in minutes on a flight of an airline is an alarm. The rule for `all` holds where it has none.
pub const RULES: &str = "rules";

/// Rules, of which one is changed in summer and another one is given up in autumn.
pub fn append_rules(log: &Log) -> Result<(), BoxError> {
    let [new_year, summer, autumn] = [1_356_998_400, 1_371_772_800, 1_379_808_000].map(Timestamp::from_secs);
    let rules = [
        (new_year, "all", Some(180)),
        (new_year, "EV", Some(240)),
        (summer, "all", Some(120)),
        (autumn, "EV", None),
    ];
    append_rows(log, RULES, rules.map(|(time, airline, minutes)| (time, airline.to_string(), minutes)))
}

/// Appends rows to a compacted topic, unless it has some; those without a value are deletes.
fn append_rows<T: Serialize>(
    log: &Log,
    topic: &str,
    rows: impl IntoIterator<Item = (Timestamp, String, Option<T>)>,
) -> Result<(), BoxError> {
    let topic = log.ensure_topic(topic, TopicOptions::new(1).compaction(Compaction::default()))?;
    if topic.info(0)?.end > 0 {
        return Ok(());
    }
    let mut batch = RecordBatch::new();
    for (time, key, value) in rows {
        let value = value.map(|value| serde_json::to_vec(&value)).transpose()?;
        batch.push(Some(&serde_json::to_vec(&key)?), value.as_deref(), time.millis());
    }
    topic.append(0, &mut batch)?;
    Ok(())
}
