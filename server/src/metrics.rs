//! Metrics in the text format of OpenMetrics, under names as Prometheus has them: base units, `_total` for counters.

use crate::operator_metrics::Operators;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};
use rivermark_engine::{Epoch, Queries, View};
use std::fmt;
use std::time::Duration;

/// What the server counts of itself.
#[derive(Clone, Debug)]
pub(crate) struct Requests {
    answered: Family<Answered, Counter>,
    seconds: Histogram,
    pub(crate) at_once: Gauge,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Answered {
    status: u16,
}

impl Requests {
    fn new() -> Self {
        let seconds = Histogram::new([0.000_1, 0.000_3, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0]);
        Self { answered: Family::default(), seconds, at_once: Gauge::default() }
    }

    /// A request was answered with `status`.
    pub(crate) fn answered(&self, status: u16, after: Duration) {
        self.answered.get_or_create(&Answered { status }).inc();
        self.seconds.observe(after.as_secs_f64());
    }
}

/// Everything that `/metrics` tells.
pub(crate) fn registry(flows: Vec<Queries>) -> (Registry, Requests) {
    let mut registry = Registry::with_prefix("rivermark");
    let requests = Requests::new();
    registry.register("http_requests", "Requests answered, by status", requests.answered.clone());
    let help = "Time from a request's head to its answer";
    registry.register_with_unit("http_request_duration", help, Unit::Seconds, requests.seconds.clone());
    registry.register("http_requests_at_once", "Requests being answered", requests.at_once.clone());
    registry.register_collector(Box::new(Operators { flows: flows.clone() }));
    registry.register_collector(Box::new(Jobs { flows }));
    (registry, requests)
}

/// The newest view, if there is one now.
fn newest(flow: &Queries) -> Option<View> {
    flow.view_from(Epoch(0), Duration::ZERO).ok()
}

/// Metrics of jobs, looked up when they are asked for.
#[derive(Debug)]
struct Jobs {
    flows: Vec<Queries>,
}

impl Jobs {
    fn counter(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        name: &str,
        help: &str,
        read: impl Fn(&Queries) -> u64,
    ) -> Result<(), fmt::Error> {
        let mut of_flows =
            encoder.encode_descriptor(name, help, None, prometheus_client::metrics::MetricType::Counter)?;
        for flow in &self.flows {
            let labels = [("flow", flow.flow())];
            ConstCounter::new(read(flow)).encode(of_flows.encode_family(&labels)?)?;
        }
        Ok(())
    }

    fn gauge(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, unit): (&str, Option<&Unit>),
        help: &str,
        read: impl Fn(&Queries) -> Option<f64>,
    ) -> Result<(), fmt::Error> {
        let mut of_flows =
            encoder.encode_descriptor(name, help, unit, prometheus_client::metrics::MetricType::Gauge)?;
        for flow in &self.flows {
            let Some(value) = read(flow) else { continue };
            let labels = [("flow", flow.flow())];
            ConstGauge::new(value).encode(of_flows.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Jobs {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let e = &mut encoder;
        let epoch = |flow: &Queries| newest(flow).map(|view| view.epoch().0 as f64);
        self.gauge(e, ("query_epoch", None), "The newest epoch that queries see", epoch)?;
        let version = |flow: &Queries| flow.version().map(|version| version as f64);
        self.gauge(e, ("query_version", None), "The version of the flow that queries see", version)?;
        let memory = |flow: &Queries| newest(flow).map(|view| view.memory() as f64);
        let help = "Memory of the changes since the last base that queries read";
        self.gauge(e, ("query_memory", Some(&Unit::Bytes)), help, memory)?;
        self.counter(e, "records_read", "Records read from all sources", |flow| flow.metrics().records_read)?;
        self.counter(e, "late_records", "Records late for one of their windows", |flow| {
            flow.metrics().late_records
        })?;
        self.counter(e, "dead_letters", "Records on which a function has failed", |flow| {
            flow.metrics().dead_letters
        })?;
        let completed = |flow: &Queries| flow.metrics().checkpoints_completed;
        self.counter(e, "checkpoints_completed", "Checkpoints completed", completed)?;
        self.counter(e, "job_restarts", "Starts of the job after a failure", |flow| flow.metrics().restarts)?;
        let backlog = |flow: &Queries| flow.metrics().backlog.map(|backlog| backlog as f64);
        self.gauge(e, ("backlog_records", None), "Records that lie ahead of the sources' readers", backlog)?;
        let watermark = |flow: &Queries| {
            let millis = flow.metrics().watermark.millis();
            (millis != i64::MIN && millis != i64::MAX).then_some(millis as f64 / 1000.0)
        };
        self.gauge(
            e,
            ("watermark", Some(&Unit::Seconds)),
            "The lowest watermark, in event time since 1970",
            watermark,
        )
    }
}
