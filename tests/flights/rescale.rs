//! A job that is stopped midway and goes on with another number of workers.

use crate::delays::{DAY_S, assert_rows, by_hour};
use crate::flights::throttle::{Allowance, Throttled};
use crate::flights::{self, Departure, HourlyDelays, expected};
use crate::setup::{BY_ORIGIN, ONE_PARTITION, backends, deadline, options, with_departures};
use rivermark::connectors::{Collect, LogSource};
use rivermark::{Engine, Flow, Status};

/// Records that each of the first jobs reads before it is stopped.
const SHARE: u64 = 80_000;

#[test]
fn a_job_goes_on_where_it_was_with_other_numbers_of_workers() {
    let directory = with_departures();
    let expected: Vec<HourlyDelays> = expected("p1_delay_by_origin_hour.csv").unwrap();
    for backend in backends() {
        for topic in [ONE_PARTITION, BY_ORIGIN] {
            let rows = Collect::new();
            for (life, workers) in [1, 3, 2].into_iter().enumerate() {
                let engine = Engine::open_with(directory.path(), options(workers, backend)).unwrap();
                let is_last = life == 2;
                let allowance = Allowance::default();
                allowance.add(if is_last { flights::DEPARTURES } else { SHARE });
                let flow = Flow::new(format!("rescaled-{topic}-{backend:?}"));
                let source = LogSource::<Departure>::topic(topic).until_end();
                by_hour(flow.source(Throttled::new(source, &allowance)), DAY_S).sink(rows.clone());
                let job = engine.start(flow).unwrap();
                if !is_last {
                    let is_late = deadline();
                    job.wait_until(|job| job.metrics().records_read == SHARE || is_late());
                    assert_eq!(job.metrics().records_read, SHARE, "{:?}", job.status());
                    job.stop();
                }
                assert!(job.wait_until(|job| job.status().is_over()));
                let over = if is_last { Status::Finished } else { Status::Stopped };
                assert_eq!(job.status(), over, "{workers} workers");
                let read = job.wait().unwrap().records_read;
                assert_eq!(read, if is_last { flights::DEPARTURES - 2 * SHARE } else { SHARE });
            }
            let mut rows = rows.rows();
            rows.sort();
            assert_rows(&rows, &expected, &format!("{topic}, {backend:?}"));
        }
    }
}
