//! What the daemon counts and measures, for Prometheus.

use crate::{cni::Code, plug::PlugTimes};
use prometheus_client::{
    encoding::{EncodeLabelSet, text},
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::time::Duration;

/// From one millisecond, an eighth of what an ADD may take, to the longest ADD, in seconds.
const BUCKETS: [f64; 15] =
    [0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0, 100.0];

/// A CNI request by verb and the code of its error, 0 for none.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    verb: &'static str,
    code: u32,
}

/// A step of an ADD.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

/// All metrics of the daemon.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Histogram>,
    steps: Family<StepLabels, Histogram>,
    /// ADDs that wait for their pods' ports.
    pub waiting: Gauge,
    /// Attachments of this node.
    pub attachments: Gauge,
    /// 1 once the `KuryrPort`s have been listed.
    pub watch_synced: Gauge,
    /// Times that a watch failed.
    pub watch_failures: Counter,
    /// Times that a `KuryrPort`'s status could not be written.
    pub status_failures: Counter,
    node_ports: Gauge,
    node_ports_times: Histogram,
    /// 1 while node ports are not in order.
    pub node_ports_trouble: Gauge,
    /// Times that the rules of node ports could not be changed.
    pub node_ports_failures: Counter,
    /// Times that somebody else had changed the rules of node ports.
    pub node_ports_repairs: Counter,
}

/// An ADD that waits.
#[derive(Debug)]
pub struct Waits(Gauge);

impl Drop for Waits {
    fn drop(&mut self) {
        self.0.dec();
    }
}

impl Default for Metrics {
    fn default() -> Self {
        let mut registry = Registry::with_prefix("kuryr");
        let requests = Family::new_with_constructor(histogram as fn() -> Histogram);
        let steps = Family::new_with_constructor(histogram as fn() -> Histogram);
        let (waiting, attachments, watch_synced) = (Gauge::default(), Gauge::default(), Gauge::default());
        let (watch_failures, status_failures) = (Counter::default(), Counter::default());
        registry.register_with_unit(
            "cni_request_duration",
            "CNI requests by verb and error code (0: success)",
            Unit::Seconds,
            requests.clone(),
        );
        registry.register_with_unit(
            "cni_step_duration",
            "Steps of ADD: wait for the port, kernel, join the bridge, data plane ready",
            Unit::Seconds,
            steps.clone(),
        );
        registry.register("cni_waiting", "ADDs that wait for their pods' ports now", waiting.clone());
        registry.register("attachments", "Sandboxes that have their pods' ports", attachments.clone());
        registry.register("watch_synced", "Whether the KuryrPorts of this node have been listed", watch_synced.clone());
        registry.register("watch_failures", "Failures of watches", watch_failures.clone());
        registry.register("status_failures", "Failures to write the status of a KuryrPort", status_failures.clone());
        let (node_ports, node_ports_times, node_ports_trouble) = (Gauge::default(), histogram(), Gauge::default());
        let (node_ports_failures, node_ports_repairs) = (Counter::default(), Counter::default());
        registry.register("node_ports", "Destinations of Services that the node translates", node_ports.clone());
        registry.register_with_unit(
            "node_ports_apply_duration",
            "Changes of the rules of node ports",
            Unit::Seconds,
            node_ports_times.clone(),
        );
        registry.register("node_ports_trouble", "Whether node ports are not in order", node_ports_trouble.clone());
        registry.register(
            "node_ports_failures",
            "Failures to change the rules of node ports",
            node_ports_failures.clone(),
        );
        registry.register(
            "node_ports_repairs",
            "Times that somebody else had changed the rules of node ports",
            node_ports_repairs.clone(),
        );
        Self {
            registry,
            requests,
            steps,
            waiting,
            attachments,
            watch_synced,
            watch_failures,
            status_failures,
            node_ports,
            node_ports_times,
            node_ports_trouble,
            node_ports_failures,
            node_ports_repairs,
        }
    }
}

fn histogram() -> Histogram {
    Histogram::new(BUCKETS)
}

impl Metrics {
    /// Counts a CNI request. The verb is one of the specification's, or `other`.
    pub fn request(&self, verb: &str, code: Option<Code>, took: Duration) {
        let known = ["ADD", "DEL", "CHECK", "GC", "STATUS"].into_iter().find(|known| *known == verb);
        let labels = RequestLabels { verb: known.unwrap_or("other"), code: code.map_or(0, |code| code as u32) };
        self.requests.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Counts an ADD as waiting until the result is dropped.
    #[must_use]
    pub fn waits(&self) -> Waits {
        self.waiting.inc();
        Waits(self.waiting.clone())
    }

    /// Measures how long an ADD waited for its `KuryrPort`.
    pub fn waited(&self, took: Duration) {
        self.step("wait", took);
    }

    /// Measures the steps of a plug.
    pub fn plugged(&self, times: &PlugTimes) {
        self.step("plug", times.kernel);
        // Drivers without a switch have no such steps; their zeros would only blur the others' times.
        for (step, took) in [("join", times.join), ("dataplane", times.ready)] {
            if !took.is_zero() {
                self.step(step, took);
            }
        }
    }

    /// Notes that so many destinations are translated now, and how long the change took.
    pub fn node_ports_applied(&self, count: usize, took: Duration) {
        self.node_ports.set(i64::try_from(count).unwrap_or(i64::MAX));
        self.node_ports_times.observe(took.as_secs_f64());
    }

    fn step(&self, step: &'static str, took: Duration) {
        self.steps.get_or_create(&StepLabels { step }).observe(took.as_secs_f64());
    }

    /// All of it in OpenMetrics' text format.
    #[must_use]
    pub fn render(&self) -> String {
        let mut text = String::new();
        // Writing into a string does not fail.
        let _ = text::encode(&mut text, &self.registry);
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_observed_is_rendered() {
        let metrics = Metrics::default();
        metrics.request("ADD", None, Duration::from_millis(3));
        metrics.request("ADD", Some(Code::TryAgain), Duration::from_secs(60));
        metrics.request("EXPLODE", Some(Code::Environment), Duration::ZERO);
        metrics.waited(Duration::from_millis(1));
        metrics.plugged(&PlugTimes { kernel: Duration::from_millis(2), ..PlugTimes::default() });
        metrics.attachments.set(7);
        let text = metrics.render();
        assert!(!text.contains("dataplane"), "{text}");
        for line in [
            "kuryr_cni_request_duration_seconds_bucket{le=\"0.004\",verb=\"ADD\",code=\"0\"} 1",
            "kuryr_cni_request_duration_seconds_count{verb=\"ADD\",code=\"11\"} 1",
            "kuryr_cni_request_duration_seconds_count{verb=\"other\",code=\"4\"} 1",
            "kuryr_cni_step_duration_seconds_count{step=\"wait\"} 1",
            "kuryr_attachments 7",
        ] {
            assert!(text.contains(line), "no {line} in\n{text}");
        }
    }
}
