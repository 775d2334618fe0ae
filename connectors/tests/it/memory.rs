use rivermark_connectors::conformance::{check_sink, check_source};
use rivermark_connectors::{Collect, FromVec};
use rivermark_operators::plan::Resources;

#[test]
fn vectors_are_a_source() {
    check_source(&FromVec::partitions(vec![(0..10).collect(), vec![], vec![7]]), &Resources::default());
}

#[test]
fn a_collection_is_a_sink() {
    check_sink(|| (Collect::new(), Resources::default()), |n| n, |sink: &Collect<u64>, _| sink.rows());
}
