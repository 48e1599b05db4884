//! What the controller counts; every name begins with `kuryr_`.

use kuryr_model::kuryr_load_balancer::LoadBalancerState;
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
struct ReasonTextLabels {
    reason: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
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
    service_steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    service_failures: Family<FailureLabels, Counter>,
    load_balancers: Family<StateLabels, Gauge>,
    services_waiting: Family<ReasonTextLabels, Gauge>,
    pruned_load_balancers: Counter,
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
            service_steps: Family::new_with_constructor(seconds),
            service_failures: Family::default(),
            load_balancers: Family::default(),
            services_waiting: Family::default(),
            pruned_load_balancers: Counter::default(),
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
            "service_step_duration",
            "Time of each step of a Service: queue, react, observe, each call to OpenStack, wait, settle, release",
            Unit::Seconds,
            metrics.service_steps.clone(),
        );
        kuryr.register(
            "service_step_failures",
            "Steps for Services that failed and are tried again",
            metrics.service_failures.clone(),
        );
        kuryr.register("load_balancers", "Services with a load balancer, by its state", metrics.load_balancers.clone());
        kuryr.register(
            "services_waiting",
            "Services whose load balancer is not ready, by the reason",
            metrics.services_waiting.clone(),
        );
        kuryr.register(
            "pruned_load_balancers",
            "Services that were gone and had something in OpenStack still, which was deleted",
            metrics.pruned_load_balancers.clone(),
        );
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

    pub(crate) fn service_step(&self, step: &'static str, took: Duration) {
        self.service_steps.get_or_create(&StepLabels { step }).observe(took.as_secs_f64());
    }

    pub(crate) fn service_step_failed(&self, step: &'static str, reason: &'static str) {
        self.service_failures.get_or_create(&FailureLabels { step, reason }).inc();
    }

    pub(crate) fn pruned_load_balancer(&self) {
        self.pruned_load_balancers.inc();
    }

    /// Sets the numbers of load balancers and of Services that wait, by state and reason.
    pub(crate) fn load_balancers<'a>(
        &self,
        states: impl Iterator<Item = LoadBalancerState>,
        reasons: impl Iterator<Item = &'a str>,
    ) {
        let mut counts: HashMap<LoadBalancerState, i64> = HashMap::new();
        for state in states {
            *counts.entry(state).or_default() += 1;
        }
        for state in LoadBalancerState::ALL {
            let count = counts.get(&state).copied().unwrap_or_default();
            self.load_balancers.get_or_create(&StateLabels { state: state.as_str() }).set(count);
        }
        let mut waiting: HashMap<&str, i64> = HashMap::new();
        for reason in reasons {
            *waiting.entry(reason).or_default() += 1;
        }
        self.services_waiting.clear();
        for (reason, count) in waiting {
            self.services_waiting.get_or_create(&ReasonTextLabels { reason: reason.to_owned() }).set(count);
        }
    }

    /// Sets the numbers of waiting pods.
    pub(crate) fn waiting(&self, reasons: impl Iterator<Item = &'static str>) {
        let mut counts: HashMap<&'static str, i64> = HashMap::new();
        for reason in reasons {
            *counts.entry(reason).or_default() += 1;
        }
        self.waiting.clear();
        for (reason, count) in counts {
            self.waiting.get_or_create(&ReasonLabels { reason }).set(count);
        }
    }
}
