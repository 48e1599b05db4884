//! What the controller counts; every name begins with `kuryr_`.

use crate::pools::PoolReport;
use kuryr_model::kuryr_load_balancer::LoadBalancerState;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

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
struct KindLabels {
    kind: &'static str,
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

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct NodeLabels {
    node: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolLabels {
    node: String,
    place: String,
    network: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolStateLabels {
    node: String,
    place: String,
    network: String,
    state: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct PoolResultLabels {
    node: String,
    place: String,
    network: String,
    result: &'static str,
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
    policy_steps: Family<StepLabels, Histogram, fn() -> Histogram>,
    policy_failures: Family<FailureLabels, Counter>,
    policies: Family<StateLabels, Gauge>,
    policy_backlog: Family<KindLabels, Gauge>,
    policy_settling: Histogram,
    pruned_groups: Counter,
    pool_ports: Family<PoolStateLabels, Gauge>,
    pool_target: Family<PoolLabels, Gauge>,
    pool_requests: Family<PoolResultLabels, Counter>,
    pool_waiting: Family<PoolLabels, Gauge>,
    spare_ports: Gauge,
    spare_budget: Gauge,
    node_room: Family<NodeLabels, Gauge>,
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
            policy_steps: Family::new_with_constructor(seconds),
            policy_failures: Family::default(),
            policies: Family::default(),
            policy_backlog: Family::default(),
            policy_settling: seconds(),
            pruned_groups: Counter::default(),
            pool_ports: Family::default(),
            pool_target: Family::default(),
            pool_requests: Family::default(),
            pool_waiting: Family::default(),
            spare_ports: Gauge::default(),
            spare_budget: Gauge::default(),
            node_room: Family::default(),
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
            "policy_step_duration",
            "Time of each step for policies: look, make, read, rules, port, delete",
            Unit::Seconds,
            metrics.policy_steps.clone(),
        );
        kuryr.register(
            "policy_step_failures",
            "Steps for policies that failed and are tried again",
            metrics.policy_failures.clone(),
        );
        kuryr.register("policies", "NetworkPolicies, by whether all of each holds", metrics.policies.clone());
        kuryr.register(
            "policy_backlog",
            "Security groups and pods that are not yet as NetworkPolicies want them",
            metrics.policy_backlog.clone(),
        );
        kuryr.register_with_unit(
            "policy_settling_duration",
            "Time from a change of what policies want until all of it holds",
            Unit::Seconds,
            metrics.policy_settling.clone(),
        );
        kuryr.register(
            "pruned_security_groups",
            "Security groups with our mark that nobody wanted, and that were deleted",
            metrics.pruned_groups.clone(),
        );
        kuryr.register("pool_ports", "Spare ports of each pool: ready, cooling, refilling", metrics.pool_ports.clone());
        kuryr.register("pool_target", "Ports that each pool should have ready", metrics.pool_target.clone());
        kuryr.register(
            "pool_requests",
            "Pods that asked each pool for a port, by whether there was one: hit, miss",
            metrics.pool_requests.clone(),
        );
        kuryr.register(
            "pool_waiting",
            "Pods that found no port in a pool and have none yet",
            metrics.pool_waiting.clone(),
        );
        kuryr.register("spare_ports", "Spare ports of all pools, with those being made", metrics.spare_ports.clone());
        kuryr.register("spare_ports_budget", "The most spare ports that there may be", metrics.spare_budget.clone());
        kuryr.register(
            "node_room",
            "Pods that still fit on each node that is a virtual machine, as far as a limit is known",
            metrics.node_room.clone(),
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

    pub(crate) fn policy_step(&self, step: &'static str, took: Duration) {
        self.policy_steps.get_or_create(&StepLabels { step }).observe(took.as_secs_f64());
    }

    pub(crate) fn policy_step_failed(&self, step: &'static str, reason: &'static str) {
        self.policy_failures.get_or_create(&FailureLabels { step, reason }).inc();
    }

    /// Sets the numbers of policies that hold and that do not.
    pub(crate) fn policies(&self, ready: usize, not_ready: usize) {
        for (state, count) in [("ready", ready), ("not_ready", not_ready)] {
            self.policies.get_or_create(&StateLabels { state }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    /// Sets the numbers of groups and pods that are not as they are to be.
    pub(crate) fn policy_backlog(&self, (groups, pods): (usize, usize)) {
        for (kind, count) in [("groups", groups), ("pods", pods)] {
            self.policy_backlog.get_or_create(&KindLabels { kind }).set(i64::try_from(count).unwrap_or(i64::MAX));
        }
    }

    pub(crate) fn policies_settled(&self, took: Duration) {
        self.policy_settling.observe(took.as_secs_f64());
    }

    pub(crate) fn pruned_group(&self) {
        self.pruned_groups.inc();
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

    /// Sets the numbers of all pools.
    pub(crate) fn pools(&self, report: &PoolReport) {
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        self.spare_ports.set(number(report.held));
        self.spare_budget.set(number(report.budget));
        self.pool_ports.clear();
        self.pool_target.clear();
        self.pool_requests.clear();
        self.pool_waiting.clear();
        for pool in &report.pools {
            let (node, place, network) = (&pool.node, &pool.place, pool.network.to_string());
            for (state, count) in
                [("ready", pool.view.ready), ("cooling", pool.view.cooling), ("refilling", pool.view.refilling)]
            {
                let labels =
                    PoolStateLabels { node: node.clone(), place: place.clone(), network: network.clone(), state };
                self.pool_ports.get_or_create(&labels).set(number(count));
            }
            for (result, count) in [("hit", pool.view.hits), ("miss", pool.view.misses)] {
                let labels =
                    PoolResultLabels { node: node.clone(), place: place.clone(), network: network.clone(), result };
                self.pool_requests.get_or_create(&labels).inc_by(count);
            }
            let labels = PoolLabels { node: node.clone(), place: place.clone(), network };
            self.pool_target.get_or_create(&labels).set(number(pool.view.target));
            self.pool_waiting.get_or_create(&labels).set(number(pool.view.waiting));
        }
    }

    /// Sets how many more pods fit on nodes.
    pub(crate) fn rooms(&self, rooms: &BTreeMap<String, usize>) {
        self.node_room.clear();
        for (node, free) in rooms {
            let room = self.node_room.get_or_create(&NodeLabels { node: node.clone() });
            room.set(i64::try_from(*free).unwrap_or(i64::MAX));
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
