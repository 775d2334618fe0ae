//! A flow with state of every kind, over a topic of words.

use rivermark::connectors::{LogSink, LogSource};
use rivermark::log::{RecordBatch, TopicOptions};
use rivermark::{
    BoxError, Context, Engine, Flow, List, Map, Options, ProcessFunction, Timestamp, Value, Watermarks,
    millis, secs,
};
use serde::{Deserialize, Serialize};

/// A word, and the second when it was said.
pub type Word = (String, i64);

/// What only the program knows.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Seen {
    pub first: Timestamp,
    pub length: u32,
}

pub const COUNT: Value<u64> = Value::new("count");
pub const SEEN: Value<Seen> = Value::new("seen");
pub const LETTERS: Map<char, u32> = Map::new("letters");
pub const TIMES: List<(i64, Option<String>)> = List::new("times");

/// Version 2 counts in capitals.
#[derive(Clone)]
pub struct Count {
    version: u64,
}

impl ProcessFunction<String, Word> for Count {
    type Out = (String, u64);

    fn on_record(
        &mut self,
        word: &String,
        (_, second): Word,
        cx: &mut Context<'_, String, Self::Out>,
    ) -> Result<(), BoxError> {
        let count = cx.state(COUNT).get()?.unwrap_or(0) + 1;
        cx.state(COUNT).set(count)?;
        if count == 1 {
            let first = cx.time();
            cx.state(SEEN).set(Seen { first, length: word.len() as u32 })?;
            cx.timer(first + secs(1_000_000))?;
        }
        for letter in word.chars() {
            let letters = cx.state(LETTERS).get(&letter)?.unwrap_or(0) + 1;
            cx.state(LETTERS).put(letter, letters)?;
        }
        cx.state(TIMES).push((second, (second % 2 == 0).then(|| word.clone())))?;
        let word = if self.version == 1 { word.clone() } else { word.to_uppercase() };
        cx.emit((word, count));
        Ok(())
    }
}

/// The flow, without an end.
pub fn count(version: u64) -> Flow {
    let flow = Flow::new("words").version(version);
    flow.source(LogSource::<Word>::topic("words"))
        .event_time(|(_, second)| Timestamp::from_secs(*second), Watermarks::bounded(secs(5)))
        .key_by(|(word, _)| word.clone())
        .process(Count { version })
        .sink(LogSink::output("counts").key(|(word, _): &(String, u64)| word.clone().into_bytes()));
    flow
}

/// Two workers, and a checkpoint every few milliseconds.
pub fn options(options: Options) -> Options {
    options.workers(2).checkpoint_every(millis(20))
}

/// Appends so many words, one a second, to two partitions.
pub fn append(engine: &Engine, from: i64, to: i64) -> Result<(), BoxError> {
    let topic = engine.log().ensure_topic("words", TopicOptions::new(2))?;
    for partition in 0..2 {
        let mut batch = RecordBatch::new();
        for second in (from..to).filter(|second| second % 2 == i64::from(partition)) {
            let word = (["alpha", "beta", "gamma", "delta"][second as usize % 4].to_owned(), second);
            batch.push(Some(word.0.as_bytes()), Some(&serde_json::to_vec(&word)?), second * 1000);
        }
        topic.append(partition as u32, &mut batch)?;
    }
    Ok(())
}

/// A hundred words, if there are none.
pub fn prepare(engine: &Engine) -> Result<(), BoxError> {
    match engine.log().topic("words") {
        Ok(_) => Ok(()),
        Err(_) => append(engine, 0, 100),
    }
}
