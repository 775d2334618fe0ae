//! Sources that are read no faster than a rate.

use crate::support::{Rows, Values};
use rivermark_engine::{Engine, Options, StateBackend};
use rivermark_operators::{Flow, RateLimit, Timestamp, Watermarks, Windows, millis};
use std::sync::Arc;
use std::time::{Duration, Instant};

#[test]
fn a_silent_partition_is_idle_though_another_uses_up_the_rate_of_their_source() {
    let directory = tempfile::tempdir().unwrap();
    let options = Options::new().workers(1).state_backend(StateBackend::Memory).checkpoint_every(millis(5));
    let engine = Engine::open_with(directory.path(), options).unwrap();
    let (flow, rows) = (Flow::new("limited"), Rows::default());
    let busy = (0..1_000_000).map(|n| (0_u8, n)).collect();
    flow.source(Values { partitions: Arc::new(vec![busy, vec![]]), live: true, per_poll: usize::MAX })
        .rate_limit(RateLimit::records_per_second(2000).burst(millis(1)))
        .event_time(|event| Timestamp::from_millis(event.1), Watermarks::monotonous().idle_after(millis(200)))
        .key_by(|event| event.0)
        .window(Windows::tumbling(millis(10)))
        .count()
        .map(|row| row.value)
        .sink(rows.clone());
    let job = engine.start(flow).unwrap();
    let until = Instant::now() + Duration::from_secs(20);
    job.wait_until(|_| rows.len() >= 3 || Instant::now() > until);
    assert!(rows.len() >= 3, "no window has fired, and {} records were read", job.metrics().records_read);
    job.cancel();
}
