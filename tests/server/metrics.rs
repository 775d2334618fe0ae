//! What Prometheus reads of operators and checkpoints.

use crate::client::get;
use crate::{CLICKS, start};

#[test]
fn prometheus_reads_operators_and_checkpoints_under_its_own_conventions() {
    let running = start(CLICKS);
    running.read(4);
    let server = running.server().start().unwrap();
    let text = get(server.address(), "/metrics").body;
    let value = |series: &str| {
        let line =
            text.lines().find(|line| line.starts_with(series)).unwrap_or_else(|| panic!("{series}: {text}"));
        line.rsplit(' ').next().unwrap().parse::<f64>().unwrap()
    };
    let of =
        |name: &str, operator: &str| value(&format!("{name}{{flow=\"clicks\",operator=\"{operator}\"}}"));
    assert_eq!(of("rivermark_operator_records_in_total", "users"), 4.0);
    assert_eq!(of("rivermark_operator_records_out_total", "users"), 0.0);
    assert_eq!(of("rivermark_operator_late_records_total", "per-10s"), 0.0);
    assert_eq!(of("rivermark_operator_watermark_seconds", "users"), 4.0);
    assert!(of("rivermark_operator_backpressured_seconds_total", "exchange-1") >= 0.0);
    assert!(!text.contains("operator_backpressured_seconds_total{flow=\"clicks\",operator=\"users\"}"));
    assert_eq!(value("rivermark_checkpoints_failed_total{flow=\"clicks\"}"), 0.0);
    assert!(value("rivermark_checkpoint_duration_seconds{flow=\"clicks\"}") > 0.0);
    assert!(value("rivermark_checkpoint_state_bytes{flow=\"clicks\"}") > 0.0);
    // Every one says its type, and counters end as counters do.
    let counters = text.lines().filter(|line| line.starts_with("# TYPE") && line.ends_with(" counter"));
    for counter in counters {
        let name = counter.split(' ').nth(2).unwrap();
        let series = text.lines().filter(|line| line.starts_with(name));
        assert!(series.into_iter().all(|line| line.starts_with(&format!("{name}_total"))), "{counter}");
    }
}
