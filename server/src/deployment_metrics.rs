//! Metrics of versions for Prometheus: what each is, and how far behind the live one.

use crate::deployments::SeenVersions;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::registry::Unit;
use serde_json::Value as Json;
use std::fmt;
use std::sync::PoisonError;

/// The versions as they were seen last.
#[derive(Debug)]
pub(crate) struct Versions {
    pub(crate) seen: SeenVersions,
}

impl Collector for Versions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let versions = || {
            seen.iter().flat_map(|(flow, all)| {
                let versions = all["versions"].as_array().into_iter().flatten();
                versions.map(move |version| (flow.as_str(), version["version"].to_string(), version))
            })
        };
        let help = "1 for the state that a version is in";
        let mut family = encoder.encode_descriptor("deployment_state", help, None, MetricType::Gauge)?;
        for (flow, number, version) in versions() {
            let state = version["state"].as_str().unwrap_or_default();
            let labels = [("flow", flow), ("version", &*number), ("state", state)];
            ConstGauge::new(1_i64).encode(family.encode_family(&labels)?)?;
        }
        type Read = fn(&Json) -> Option<f64>;
        let behind: Read = |progress| progress["records_behind"].as_f64();
        let time: Read = |progress| progress["event_time_behind_ms"].as_f64().map(|millis| millis / 1000.0);
        for (name, unit, help, read) in [
            (
                "deployment_behind_records",
                None,
                "Records that the live version has read and this one has not",
                behind,
            ),
            ("deployment_behind", Some(Unit::Seconds), "Event time that it is behind the live version", time),
        ] {
            let mut family = encoder.encode_descriptor(name, help, unit.as_ref(), MetricType::Gauge)?;
            for (flow, number, version) in versions() {
                let Some(value) = read(&version["progress"]) else { continue };
                let labels = [("flow", flow), ("version", &*number)];
                ConstGauge::new(value).encode(family.encode_family(&labels)?)?;
            }
        }
        let help = "How often the live version has changed";
        let mut family = encoder.encode_descriptor("deployment_switches", help, None, MetricType::Counter)?;
        for (flow, all) in &*seen {
            let labels = [("flow", &**flow)];
            ConstCounter::new(all["switches"].as_u64().unwrap_or(0))
                .encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
