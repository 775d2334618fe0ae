//! Several processes: the test binary starts itself, as a child that plays a part.

use crate::support::*;
use rivermark_log::*;
use std::io::{BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const PART: &str = "RIVERMARK_LOG_TEST_PART";
const FOLDER: &str = "RIVERMARK_LOG_TEST_FOLDER";

/// What a child says line by line, among what the test harness says.
fn say(word: &str, number: u64) {
    // Not println!, which the test harness captures.
    let mut out = std::io::stdout().lock();
    writeln!(out, "\n{word} {number}").unwrap();
    out.flush().unwrap();
}

struct Part {
    child: Child,
    lines: std::io::Lines<BufReader<std::process::ChildStdout>>,
}

impl Part {
    fn start(part: &str, folder: &Path) -> Part {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "processes::child", "--ignored", "--nocapture", "--test-threads=1"])
            .env(PART, part)
            .env(FOLDER, folder)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let lines = BufReader::new(child.stdout.take().unwrap()).lines();
        Part { child, lines }
    }

    /// The number behind the next such word.
    fn hear(&mut self, word: &str) -> u64 {
        loop {
            let line = self.lines.next().expect("the child has ended early").unwrap();
            if let Some(number) = line.strip_prefix(word) {
                return number.trim().parse().unwrap();
            }
        }
    }

    fn kill(mut self) -> u64 {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        // What it managed to say.
        let said = self.lines.map_while(Result::ok);
        said.filter_map(|line| line.strip_prefix("done ")?.trim().parse().ok()).max().unwrap_or(0)
    }
}

type Result<T, E = std::io::Error> = std::result::Result<T, E>;

#[test]
#[ignore = "played by a child process of the other tests"]
fn child() {
    let (Ok(part), Ok(folder)) = (std::env::var(PART), std::env::var(FOLDER)) else { return };
    let log = Log::open(&folder, LogOptions::new().durability(Durability::OsBuffered)).unwrap();
    let topic = log.ensure_topic("t", TopicOptions::new(2).segment_bytes(50_000)).unwrap();
    match part.as_str() {
        "hold" => {
            say("ready", 0);
            // Until the parent lets go of it.
            std::io::stdin().read_to_end(&mut Vec::new()).unwrap();
        }
        "append" => {
            let begin = topic.info(0).unwrap().end;
            for i in begin.. {
                append(&topic, 0, [i]);
                say("done", i + 1);
            }
        }
        "append-3000" => {
            for i in 0..3000 {
                append(&topic, 0, [i]);
            }
            say("done", 3000);
        }
        "commit" => {
            let last = log.transactional_ids().unwrap().first().map_or(0, |id| id.generation);
            let sink = log.transactional("sink", last + 1).unwrap();
            sink.prepared().unwrap().iter().for_each(|epoch| sink.commit(epoch.epoch).unwrap());
            let begin = topic.info(0).unwrap().end / 3;
            for epoch in begin.. {
                sink.begin(epoch).unwrap();
                let mut batch = RecordBatch::new();
                for partition in [0, 1, 0, 1, 0, 1] {
                    batch.push(None, Some(epoch.to_string().as_bytes()), 0);
                    sink.append(epoch, &topic, partition, &mut batch).unwrap();
                }
                sink.prepare(epoch).unwrap();
                sink.commit(epoch).unwrap();
                say("done", epoch + 1);
            }
        }
        other => panic!("no such part: {other}"),
    }
}

#[test]
fn a_second_process_is_told_the_pid_of_the_first_and_gets_the_log_when_that_dies() {
    let folder = tempfile::tempdir().unwrap();
    let mut holder = Part::start("hold", folder.path());
    holder.hear("ready");
    let pid = holder.child.id();
    let refused = Log::open(folder.path(), LogOptions::new()).unwrap_err();
    assert!(
        matches!(refused, Error::Locked { holder: Holder::Process(found), .. } if found == pid),
        "{refused}"
    );
    assert!(refused.to_string().contains(&format!("process {pid}")), "{refused}");
    holder.kill();
    Log::open(folder.path(), LogOptions::new()).unwrap();
}

#[test]
fn a_reader_in_another_process_sees_everything_in_order_while_it_is_being_written() {
    let folder = tempfile::tempdir().unwrap();
    let writer = Part::start("append-3000", folder.path());
    let deadline = Instant::now() + Duration::from_secs(60);
    let log = Log::open_read_only(folder.path(), LogOptions::new()).unwrap();
    let topic = loop {
        match log.topic("t") {
            Ok(topic) => break topic,
            Err(error) => {
                assert!(matches!(error, Error::UnknownTopic { .. }) && Instant::now() < deadline, "{error}")
            }
        }
        std::thread::yield_now();
    };
    let mut reader = topic.reader(0, Position::Earliest, Isolation::ReadCommitted).unwrap();
    let mut next = 0;
    while next < 3000 {
        assert!(reader.wait(deadline).unwrap(), "{next} were seen");
        for (offset, _, value, _) in rest(&mut reader) {
            assert_eq!((offset, value), (next, Some(next.to_string())));
            next += 1;
        }
    }
    assert!(topic.info(0).unwrap().segments > 3);
    assert!(writer.kill() <= 3000);
}

#[test]
fn a_writer_that_is_killed_at_any_moment_loses_nothing_it_had_acknowledged() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=5 {
        let mut writer = Part::start("append", folder.path());
        let first = writer.hear("done");
        (0..round * 17).for_each(|_| assert!(writer.hear("done") > 0));
        let acknowledged = writer.kill().max(first + round * 17);
        let log = Log::open(folder.path(), LogOptions::new()).unwrap();
        let found = values(&log.topic("t").unwrap(), 0);
        assert!(found.len() as u64 >= acknowledged, "{} of {acknowledged}", found.len());
        assert_eq!(found, (0..found.len() as u64).collect::<Vec<_>>());
    }
}

#[test]
fn a_process_that_is_killed_between_prepare_and_commit_leaves_every_epoch_whole_or_absent() {
    let folder = tempfile::tempdir().unwrap();
    for round in 1..=4 {
        let mut writer = Part::start("commit", folder.path());
        (0..round * 7).for_each(|_| assert!(writer.hear("done") > 0));
        let acknowledged = writer.kill();
        let log = Log::open(folder.path(), LogOptions::new()).unwrap();
        let topic = log.topic("t").unwrap();
        let found = values(&topic, 0);
        assert_eq!(found, values(&topic, 1));
        assert!(found.len() as u64 >= acknowledged * 3);
        let whole: Vec<u64> = (0..found.len() as u64 / 3).flat_map(|epoch| [epoch; 3]).collect();
        assert_eq!(found, whole);
    }
}
