//! The log over HTTP: its topics, and the records of a partition from an offset or a time on.
//!
//! Keys and values are bytes. Those that are JSON are written as JSON, those that are text as text, and others as hexadecimal digits; `as` says which. Of
//! a long one the beginning is written, as text or digits, and its length. An answer ends when there are enough records, or bytes, or it has
//! taken long enough; `next` says where to read on.

use crate::answer::{Refusal, body};
use crate::routes::{Answer, Params, Parts, Shared, malformed_path, named, quoted, scan};
use axum::Router;
use axum::extract::{Path, State};
use axum::routing::get;
use rivermark_log::{Error, Isolation, Log, Position, RecordView, Topic};
use serde::de::IgnoredAny;
use serde_json::{Value as Json, json};
use std::fmt::Write;
use std::sync::{Arc, PoisonError};
use std::time::Instant;

pub(crate) const TOPICS: &str = "/v1/log/topics";
pub(crate) const RECORDS: &str = "/v1/log/topics/{topic}/partitions/{partition}/records";

/// Records of an answer, if the request does not say.
const DEFAULT_RECORDS: usize = 100;
/// Bytes of a key, value or header that are written in full.
const WHOLE: usize = 64 << 10;

pub(crate) fn routes() -> Router<Arc<Shared>> {
    Router::new().route(TOPICS, get(topics)).route(RECORDS, get(records))
}

/// The log, if it is served.
fn log(shared: &Shared) -> Result<Log, Refusal> {
    let log = shared.log.lock().unwrap_or_else(PoisonError::into_inner);
    log.clone().ok_or_else(|| {
        Refusal::NotFound("the log is not served; the program can let it be: `Server::log`".to_owned())
    })
}

fn failed(error: Error) -> Refusal {
    match error {
        Error::UnknownTopic { .. } | Error::UnknownPartition { .. } => Refusal::NotFound(error.to_string()),
        error => Refusal::Failed(error.to_string()),
    }
}

async fn topics(State(shared): State<Arc<Shared>>) -> Answer {
    scan(Arc::clone(&shared), move || {
        shared.gate.pass(|| {
            let topics = log(&shared)?.topics().map_err(failed)?;
            let topics: Result<Vec<Json>, Refusal> = topics.iter().map(describe).collect();
            Ok(body(json!({ "topics": topics? }).to_string().into_bytes()))
        })
    })
    .await
}

fn describe(topic: &Topic) -> Result<Json, Refusal> {
    let partitions = (0..topic.partitions()).map(|partition| {
        let info = topic.info(partition).map_err(failed)?;
        Ok(json!({
            "partition": partition,
            "earliest": info.earliest,
            "end": info.stable,
            "records": info.records,
            "bytes": info.bytes,
            "segments": info.segments,
            "max_timestamp_ms": info.max_timestamp,
        }))
    });
    let partitions = partitions.collect::<Result<Vec<_>, Refusal>>()?;
    Ok(
        json!({ "topic": topic.name(), "compacted": topic.options().is_compacted(), "partitions": partitions }),
    )
}

/// Which records are wanted.
struct Wanted {
    topic: String,
    partition: u32,
    from: Option<u64>,
    time: Option<i64>,
    limit: usize,
}

async fn records(State(shared): State<Arc<Shared>>, path: Parts<(String, u32)>, params: Params) -> Answer {
    let Path((topic, partition)) = path.map_err(malformed_path)?;
    let [from, time, limit] = named(params, ["from", "time", "limit"])?;
    if from.is_some() && time.is_some() {
        return Err(Refusal::Malformed("say `from` or `time`, not both".to_owned()));
    }
    let from = from.map(|text| number(&text, "from", "an offset")).transpose()?;
    let time = time.map(|text| number(&text, "time", "a number of milliseconds since 1970")).transpose()?;
    let most = shared.limits.entries;
    let limit = limit.map(|text| number(&text, "limit", "a number of records")).transpose()?;
    let limit: usize = limit.unwrap_or(DEFAULT_RECORDS.min(most));
    if limit == 0 {
        return Err(Refusal::Malformed("`limit` is 0; it is a number from 1 on".to_owned()));
    }
    if limit > most {
        return Err(Refusal::TooLarge(format!("`limit` is {limit}; an answer has at most {most} records")));
    }
    let wanted = Wanted { topic, partition, from, time, limit };
    let until = Instant::now() + shared.limits.time;
    scan(Arc::clone(&shared), move || {
        shared.gate.pass(|| read(&log(&shared)?, &wanted, shared.limits.bytes, until).map(body))
    })
    .await
}

fn number<N: std::str::FromStr>(text: &str, name: &str, what: &str) -> Result<N, Refusal> {
    text.parse().map_err(|_| Refusal::Malformed(format!("`{name}` is `{text}`, which is not {what}")))
}

fn read(log: &Log, wanted: &Wanted, most_bytes: usize, until: Instant) -> Result<Vec<u8>, Refusal> {
    let topics = || {
        let names = log.topics().unwrap_or_default();
        let names: Vec<&str> = names.iter().map(Topic::name).collect();
        Refusal::NotFound(format!("there is no topic `{}`; there are {}", wanted.topic, quoted(&names)))
    };
    let topic = log.topic(&wanted.topic).map_err(|error| match error {
        Error::UnknownTopic { .. } => topics(),
        error => failed(error),
    })?;
    let info = topic.info(wanted.partition).map_err(failed)?;
    // What retention has removed, and what is still to come, is no error for who looks around.
    let start = match (wanted.from, wanted.time) {
        (Some(offset), _) => Position::Offset(offset.clamp(info.earliest, info.stable)),
        (None, Some(time)) => Position::Timestamp(time),
        (None, None) => Position::Earliest,
    };
    let mut reader = topic.reader(wanted.partition, start, Isolation::ReadCommitted).map_err(failed)?;
    let (mut written, mut count, mut next) = (Vec::new(), 0, reader.position());
    'enough: while let Some(batch) = reader.next_batch().map_err(failed)? {
        for record in batch {
            let is_enough = count == wanted.limit || written.len() > most_bytes;
            if is_enough || (count > 0 && Instant::now() >= until) {
                break 'enough;
            }
            if count > 0 {
                written.push(b',');
            }
            write_record(&mut written, &record)?;
            (count, next) = (count + 1, record.offset + 1);
        }
    }
    let head = json!({
        "topic": wanted.topic,
        "partition": wanted.partition,
        "earliest": info.earliest,
        "end": info.stable,
        "next": next,
    });
    let mut answer = head.to_string().into_bytes();
    answer.pop();
    answer.extend_from_slice(b",\"records\":[");
    answer.append(&mut written);
    answer.extend_from_slice(b"]}");
    Ok(answer)
}

fn write_record(out: &mut Vec<u8>, record: &RecordView<'_>) -> Result<(), Refusal> {
    out.extend_from_slice(
        format!("{{\"offset\":{},\"timestamp_ms\":{},\"key\":", record.offset, record.timestamp).as_bytes(),
    );
    write_bytes(out, record.key)?;
    out.extend_from_slice(b",\"value\":");
    write_bytes(out, record.value)?;
    out.extend_from_slice(b",\"headers\":[");
    for (number, (name, value)) in record.headers().enumerate() {
        if number > 0 {
            out.push(b',');
        }
        out.extend_from_slice(b"{\"name\":");
        write_json(out, name)?;
        out.extend_from_slice(b",\"value\":");
        write_bytes(out, value)?;
        out.push(b'}');
    }
    out.extend_from_slice(b"]}");
    Ok(())
}

/// `null`, or `{"as":"json"|"text"|"hex","value":..,"bytes":N}`.
fn write_bytes(out: &mut Vec<u8>, bytes: Option<&[u8]>) -> Result<(), Refusal> {
    let Some(bytes) = bytes else {
        out.extend_from_slice(b"null");
        return Ok(());
    };
    let is_whole = bytes.len() <= WHOLE;
    // A number or a word in JSON too: keys that are digits are no text.
    if is_whole && serde_json::from_slice::<IgnoredAny>(bytes).is_ok() {
        out.extend_from_slice(b"{\"as\":\"json\",\"value\":");
        out.extend_from_slice(bytes);
    } else {
        let beginning = &bytes[..bytes.len().min(WHOLE)];
        match text_of(beginning, is_whole) {
            Some(text) => {
                out.extend_from_slice(b"{\"as\":\"text\",\"value\":");
                write_json(out, text)?;
            }
            None => {
                out.extend_from_slice(b"{\"as\":\"hex\",\"value\":");
                write_json(out, &hex(beginning))?;
            }
        }
    }
    out.extend_from_slice(format!(",\"bytes\":{}}}", bytes.len()).as_bytes());
    Ok(())
}

/// The bytes as text, if they are some. A beginning may end within a letter.
fn text_of(bytes: &[u8], is_whole: bool) -> Option<&str> {
    let text = match std::str::from_utf8(bytes) {
        Ok(text) => text,
        Err(error) if !is_whole && error.error_len().is_none() => {
            std::str::from_utf8(&bytes[..error.valid_up_to()]).ok()?
        }
        Err(_) => return None,
    };
    let is_text = |c: char| !c.is_control() || ['\n', '\r', '\t'].contains(&c);
    text.chars().all(is_text).then_some(text)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::with_capacity(2 * bytes.len()), |mut digits, byte| {
        // Writing to a string does not fail.
        let _ = write!(digits, "{byte:02x}");
        digits
    })
}

fn write_json(out: &mut Vec<u8>, text: &str) -> Result<(), Refusal> {
    serde_json::to_writer(out, text).map_err(|error| Refusal::Failed(format!("writing a record: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(bytes: &[u8]) -> Json {
        let mut out = Vec::new();
        write_bytes(&mut out, Some(bytes)).expect("it can be written");
        serde_json::from_slice(&out).expect("it is JSON")
    }

    #[test]
    fn bytes_are_json_or_text_or_digits() {
        let is = |bytes: &[u8], kind: &str, value: Json| {
            assert_eq!(written(bytes), json!({ "as": kind, "value": value, "bytes": bytes.len() }));
        };
        is(br#"{"a":[1,2]}"#, "json", json!({ "a": [1, 2] }));
        is(b"42", "json", json!(42));
        is(b"ann", "text", json!("ann"));
        is("für \"zwei\"\n".as_bytes(), "text", json!("für \"zwei\"\n"));
        is(b"", "text", json!(""));
        is(b"\x00\x01\xff", "hex", json!("0001ff"));
        is(b"a\x00b", "hex", json!("610062"));
        is(b"{\"a\":1} trailing", "text", json!("{\"a\":1} trailing"));
    }

    #[test]
    fn of_long_bytes_the_beginning_is_written() {
        let long = "ä".repeat(WHOLE);
        let text = written(format!("a{long}").as_bytes());
        assert_eq!((&text["as"], &text["bytes"]), (&json!("text"), &json!(2 * WHOLE + 1)));
        // One byte of a letter is left away.
        assert_eq!(text["value"].as_str().map(str::len), Some(WHOLE - 1));
        let bytes = written(&vec![0xff; WHOLE + 1]);
        assert_eq!((&bytes["as"], bytes["value"].as_str().map(str::len)), (&json!("hex"), Some(2 * WHOLE)));
        // It would be half of a document.
        let array = format!("[{}0]", "0,".repeat(WHOLE));
        assert_eq!(written(array.as_bytes())["as"], "text");
    }
}
