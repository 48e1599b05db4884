//! What the controller counts; every name begins with `kuryr_`.

use kuryr_model::ObjectKey;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{collections::HashMap, time::Duration};

/// Upper bounds in seconds, from half a millisecond on: what Kuryr does itself is quicker than any cloud.
const BUCKETS: [f64; 14] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0];

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StepLabels {
    step: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct FailureLabels {
    step: &'static str,
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct ResourceLabels {
    resource: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct CallLabels {
    service: String,
    method: String,
    resource: String,
    result: String,
}

/// The controller's metrics. Cheap to clone; all clones count together.
#[derive(Clone)]
pub struct Metrics {
    steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    failures: Family<FailureLabels, Counter>,
    waiting: Family<ReasonLabels, Gauge>,
    bulk: Histogram,
    pruned: Counter,
    leader: Gauge,
    unreadable: Family<ResourceLabels, Counter>,
    watch_failures: Family<ResourceLabels, Counter>,
    calls: Family<CallLabels, Histogram, fn() -> Histogram>,
}

impl Metrics {
    /// Makes the metrics and registers them.
    pub fn new(registry: &mut Registry) -> Self {
        let seconds: fn() -> Histogram = || Histogram::new(BUCKETS);
        let metrics = Self {
            steps: Family::new_with_constructor(seconds),
            failures: Family::default(),
            waiting: Family::default(),
            bulk: Histogram::new([1.0, 2.0, 5.0, 10.0, 20.0, 50.0]),
            pruned: Counter::default(),
            leader: Gauge::default(),
            unreadable: Family::default(),
            watch_failures: Family::default(),
            calls: Family::new_with_constructor(seconds),
        };
        let kuryr = registry.sub_registry_with_prefix("kuryr");
        kuryr.register_with_unit(
            "pod_step_duration",
            "Time of each step of a pod's life in the controller: queue, allocate, write, release",
            Unit::Seconds,
            metrics.steps.clone(),
        );
        kuryr.register("pod_step_failures", "Steps that failed and are tried again", metrics.failures.clone());
        kuryr.register("pods_waiting", "Pods that have no port, by the reason", metrics.waiting.clone());
        kuryr.register("bulk_ports", "Ports asked for in one request", metrics.bulk.clone());
        kuryr.register(
            "pruned_ports",
            "Ports with our mark that nobody wanted, and that were deleted",
            metrics.pruned.clone(),
        );
        kuryr.register("leader", "1 while this controller is the active one", metrics.leader.clone());
        kuryr.register(
            "unreadable_objects",
            "Kubernetes objects skipped because they cannot be read",
            metrics.unreadable.clone(),
        );
        kuryr.register("watch_failures", "Watches that broke and were begun anew", metrics.watch_failures.clone());
        kuryr.register_with_unit(
            "openstack_request_duration",
            "Time of each OpenStack request by service, method, resource and result",
            Unit::Seconds,
            metrics.calls.clone(),
        );
        metrics
    }

    /// Counts one OpenStack request.
    pub fn call(&self, service: &str, method: &str, resource: &str, result: String, took: Duration) {
        let labels = CallLabels {
            service: service.to_owned(),
            method: method.to_owned(),
            resource: resource.to_owned(),
            result,
        };
        self.calls.get_or_create(&labels).observe(took.as_secs_f64());
    }

    pub(crate) fn step(&self, step: &'static str, took: Duration) {
        self.steps.get_or_create(&StepLabels { step }).observe(took.as_secs_f64());
    }

    pub(crate) fn step_failed(&self, step: &'static str, reason: &'static str) {
        self.failures.get_or_create(&FailureLabels { step, reason }).inc();
    }

    pub(crate) fn bulk(&self, ports: usize) {
        self.bulk.observe(u32::try_from(ports).unwrap_or(u32::MAX).into());
    }

    pub(crate) fn pruned(&self) {
        self.pruned.inc();
    }

    pub(crate) fn leader(&self, leads: bool) {
        self.leader.set(i64::from(leads));
    }

    pub(crate) fn unreadable(&self, resource: &'static str) {
        self.unreadable.get_or_create(&ResourceLabels { resource }).inc();
    }

    pub(crate) fn watch_failed(&self, resource: &'static str) {
        self.watch_failures.get_or_create(&ResourceLabels { resource }).inc();
    }

    /// Sets the numbers of waiting pods.
    pub(crate) fn waiting(&self, waiting: &HashMap<ObjectKey, &'static str>) {
        let mut counts: HashMap<&'static str, i64> = HashMap::new();
        for reason in waiting.values() {
            *counts.entry(reason).or_default() += 1;
        }
        self.waiting.clear();
        for (reason, count) in counts {
            self.waiting.get_or_create(&ReasonLabels { reason }).set(count);
        }
    }
}
