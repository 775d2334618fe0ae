use rivermark_connectors::conformance::{check_sink, check_source};
use rivermark_connectors::{Collect, FromVec};
use rivermark_operators::plan::Resources;
use rivermark_operators::sink::{Epoch, Sink, SinkContext, SinkWriter};
use rivermark_operators::source::ConnectorContext;
use rivermark_operators::{Stamp, Timestamp};

#[test]
fn vectors_are_a_source() {
    check_source(&FromVec::partitions(vec![(0..10).collect(), vec![], vec![7]]), &Resources::default());
}

#[test]
fn a_collection_is_a_sink() {
    check_sink(|| (Collect::new(), Resources::default()), |n| n, |sink: &Collect<u64>, _| sink.rows());
}

#[test]
fn a_sink_that_recovers_throws_nothing_of_another_away_that_collects_into_the_same() {
    let (resources, rows) = (Resources::default(), Collect::<u64>::new());
    let context = |sink| {
        let connector = ConnectorContext { flow: "clicks", version: 1, name: sink, resources: &resources };
        SinkContext { connector, worker: 0, generation: 1 }
    };
    let committer = |sink| Sink::<u64>::committer(&rows, &context(sink)).unwrap();
    let (mut counts, mut late) = (committer("counts"), committer("late"));
    counts.recover(&[]).unwrap();
    let mut writer = rows.writer(&context("counts")).unwrap();
    writer.write(&mut [(Stamp::derived(Timestamp::MIN), 7)].into_iter().collect()).unwrap();
    let token = writer.prepare(Epoch(1)).unwrap().unwrap();
    late.recover(&[]).unwrap();
    counts.commit(Epoch(1), std::slice::from_ref(&token)).unwrap();
    assert_eq!(rows.rows(), [7]);
    // What it had prepared itself it does throw away.
    writer.write(&mut [(Stamp::derived(Timestamp::MIN), 8)].into_iter().collect()).unwrap();
    let token = writer.prepare(Epoch(2)).unwrap().unwrap();
    counts.recover(&[]).unwrap();
    counts.commit(Epoch(2), &[token]).unwrap_err();
}
