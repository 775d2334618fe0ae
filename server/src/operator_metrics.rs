//! Metrics of operators and checkpoints for Prometheus, under the names that its conventions give: base units, `_total` for counters.

use crate::deployments::millis;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use rivermark_engine::{CheckpointMetrics, Metrics, OperatorKind, OperatorSnapshot, Queries};
use std::fmt;

/// Operators and checkpoints of these flows, looked up when they are asked for.
#[derive(Debug)]
pub(crate) struct Operators {
    pub(crate) flows: Vec<Queries>,
}

/// A counter of operators: name, unit, help, value.
type OfOperator = (&'static str, Option<Unit>, &'static str, fn(&OperatorSnapshot) -> Option<f64>);
/// A gauge of the newest checkpoint.
type OfCheckpoint = (&'static str, Unit, &'static str, fn(&CheckpointMetrics) -> f64);

const COUNTERS: [OfOperator; 5] = [
    ("operator_records_in", None, "Records that came in", |operator| Some(operator.records_in as f64)),
    ("operator_records_out", None, "Records that went out", |operator| Some(operator.records_out as f64)),
    ("operator_late_records", None, "Records late for one of their windows", |operator| {
        Some(operator.late as f64)
    }),
    ("operator_dead_letters", None, "Records on which its function has failed", |operator| {
        Some(operator.dead_letters as f64)
    }),
    (
        "operator_backpressured",
        Some(Unit::Seconds),
        "For how long an exchange was full, summed over workers",
        |operator| (operator.kind == OperatorKind::Exchange).then_some(operator.backpressured.as_secs_f64()),
    ),
];

const CHECKPOINTS: [OfCheckpoint; 3] = [
    (
        "checkpoint_duration",
        Unit::Seconds,
        "From the barrier until the newest checkpoint was stored",
        |newest| newest.duration.as_secs_f64(),
    ),
    ("checkpoint_state", Unit::Bytes, "All state files of the newest checkpoint", |newest| {
        newest.state_bytes as f64
    }),
    ("checkpoint_uploaded", Unit::Bytes, "Those that were new", |newest| newest.uploaded_bytes as f64),
];

impl Collector for Operators {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let metrics: Vec<(&str, Metrics)> =
            self.flows.iter().map(|flow| (flow.flow(), flow.metrics())).collect();
        for (name, unit, help, value) in &COUNTERS {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Counter)?;
            for (flow, operator) in operators(&metrics) {
                let Some(value) = value(operator) else { continue };
                let labels = [("flow", flow), ("operator", &*operator.name)];
                ConstCounter::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "Its watermark, in event time since 1970";
        let seconds = Some(&Unit::Seconds);
        let mut family = encoder.encode_descriptor("operator_watermark", help, seconds, MetricType::Gauge)?;
        for (flow, operator) in operators(&metrics) {
            let Some(watermark) = millis(operator.watermark) else { continue };
            let labels = [("flow", flow), ("operator", &*operator.name)];
            ConstGauge::new(watermark as f64 / 1000.0).encode(family.encode_family(&labels)?)?;
        }
        let help = "Checkpoints that came to nothing";
        let mut family = encoder.encode_descriptor("checkpoints_failed", help, None, MetricType::Counter)?;
        for (flow, metrics) in &metrics {
            let labels = [("flow", *flow)];
            ConstCounter::new(metrics.checkpoints_failed).encode(family.encode_family(&labels)?)?;
        }
        for (name, unit, help, value) in &CHECKPOINTS {
            let mut family = encoder.encode_descriptor(name, help, Some(unit), MetricType::Gauge)?;
            for (flow, metrics) in &metrics {
                let Some(newest) = metrics.checkpoints.last() else { continue };
                let labels = [("flow", *flow)];
                ConstGauge::new(value(newest)).encode(family.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn operators<'a>(metrics: &'a [(&'a str, Metrics)]) -> impl Iterator<Item = (&'a str, &'a OperatorSnapshot)> {
    metrics.iter().flat_map(|(flow, metrics)| metrics.operators.iter().map(|operator| (*flow, operator)))
}
