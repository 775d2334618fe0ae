use rivermark_connectors::conformance::{check_sink, check_source};
use rivermark_connectors::{Collect, FromVec};
use rivermark_operators::plan::Resources;
use rivermark_operators::sink::{Sink, SinkContext};
use rivermark_operators::source::ConnectorContext;

#[test]
fn vectors_are_a_source() {
    check_source(&FromVec::partitions(vec![(0..10).collect(), vec![], vec![7]]), &Resources::default());
}

#[test]
fn a_collection_is_a_sink() {
    check_sink(|| (Collect::new(), Resources::default()), |n| n, |sink: &Collect<u64>, _| sink.rows());
}

#[test]
fn two_sinks_of_a_flow_cannot_collect_into_one_place() {
    let (resources, rows) = (Resources::default(), Collect::<u64>::new());
    let open = |flow, sink, generation| {
        let connector = ConnectorContext { flow, version: 1, name: sink, resources: &resources };
        Sink::<u64>::committer(&rows, &SinkContext { connector, worker: 0, generation }).map(drop)
    };
    open("clicks", "counts", 1).unwrap();
    let refused = open("clicks", "late", 1).unwrap_err().to_string();
    assert!(refused.contains("sink `counts` collects there already"), "{refused}");
    open("clicks", "counts", 1).unwrap();
    // One after the other, in another run or another flow, they can.
    open("clicks", "late", 2).unwrap();
    open("views", "counts", 2).unwrap();
}
