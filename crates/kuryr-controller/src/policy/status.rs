//! What a `KuryrNetworkPolicy` says of its NetworkPolicy: pure.

use super::{error::Failure, keeper::State};
use crate::own::condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kuryr_model::{
    KuryrNetworkPolicyStatus, ObjectKey, PodUid, Problem,
    kuryr_network_policy::{GroupRef, LISTED, PeerSetRef},
    neutron::Direction,
    told::{self, CONDITION_READY},
};
use kuryr_plan::{
    enforce::Object,
    policy::{GroupKey, Limit, MAX_CLIENTS, Protocol, Report},
};
use std::collections::BTreeSet;

/// How far a policy is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// All of it holds.
    Holds,
    /// It is being brought about.
    Pending,
    /// Something of it failed.
    Failed(Failure),
    /// All of it is in Neutron, and has no effect on some of its pods, which share the ports of their machines: which, in words.
    Open(String),
}

/// What is to be said of a policy; `None` if it is not known.
pub(super) fn status(
    state: &State,
    key: &ObjectKey,
    before: &KuryrNetworkPolicyStatus,
    now: Timestamp,
) -> Option<(KuryrNetworkPolicyStatus, Phase)> {
    let known = state.policies.get(key)?;
    let compiler = state.enforcer.compiler();
    let report = compiler.report(key)?;
    let isolated = compiler.isolated_by(key)?;
    let phase = phase(state, &report);
    let size = |key: &GroupKey| count(compiler.rules(key).map_or(0, BTreeSet::len));
    let group = |key: &GroupKey| GroupRef { name: state.readable(key), id: state.enforcer.id(key), rules: size(key) };
    let peer_set = |(key, pods): (&GroupKey, &usize)| PeerSetRef {
        peers: match key {
            GroupKey::Peers(set) => set.to_string(),
            other => state.readable(other),
        },
        pods: count(*pods),
        id: state.enforcer.id(key),
    };
    let status = KuryrNetworkPolicyStatus {
        applied_generation: match phase {
            Phase::Holds | Phase::Open(_) => Some(known.generation),
            Phase::Pending | Phase::Failed(_) => before.applied_generation,
        },
        isolates: isolated.into_iter().map(direction).collect::<Vec<_>>().join(","),
        selected_pods: count(report.pods.len()),
        rules: report.groups.iter().map(size).sum(),
        peers: count(report.peers.values().sum()),
        pods: report.pods.iter().take(LISTED).map(|key| key.name.clone()).collect(),
        groups: report.groups.iter().take(LISTED).map(group).collect(),
        peer_sets: report.peers.iter().take(LISTED).map(peer_set).collect(),
        problems: problems(state, key, &report),
        conditions: vec![ready(&phase, known.generation, before, now)],
    };
    Some((status, phase))
}

fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Ingress => "Ingress",
        Direction::Egress => "Egress",
    }
}

fn count(number: usize) -> u32 {
    u32::try_from(number).unwrap_or(u32::MAX)
}

/// A policy holds when its groups and peer sets are as they are to be, and so are the ports of the pods that it selects and
/// of those that it names.
fn phase(state: &State, report: &Report) -> Phase {
    let enforcer = &state.enforcer;
    let keys: BTreeSet<&GroupKey> = report.groups.iter().chain(report.peers.keys()).collect();
    let selected = |pod: &PodUid| {
        let groups = enforcer.compiler().groups(pod);
        groups.is_some_and(|groups| groups.iter().any(|key| keys.contains(key)))
    };
    let groups: Vec<&&GroupKey> = keys.iter().filter(|key| !enforcer.is_settled_group(key)).collect();
    let pods: Vec<&PodUid> = enforcer.unsettled_pods().filter(|pod| selected(pod)).collect();
    let of_groups = groups.iter().filter_map(|key| state.failure(key));
    // What pods of the policy lack because of other groups, those of nodes for example.
    let lacking = pods.iter().filter_map(|pod| enforcer.compiler().groups(pod)).flat_map(|keys| keys.iter());
    let of_lacking = lacking.filter_map(|key| state.failure(key));
    let ports = pods.iter().flat_map(|pod| enforcer.ports_of(pod));
    let of_ports = ports.filter_map(|port| state.failures.get(&Object::Port(port)));
    let failures = of_groups.chain(of_lacking).chain(of_ports);
    match failures.max_by_key(|failure| (failure.persistent, failure.reason)) {
        // One that comes alone is no news.
        Some(failure) if failure.persistent || failure.times > 1 => Phase::Failed(failure.clone()),
        _ if groups.is_empty() && pods.is_empty() => match open(state, report) {
            Some(message) => Phase::Open(message),
            None => Phase::Holds,
        },
        _ => Phase::Pending,
    }
}

/// The pods of the policy that no security group restricts; `None`: there are none.
fn open(state: &State, report: &Report) -> Option<String> {
    const NAMED: usize = 5;
    let open: Vec<&str> =
        report.pods.iter().filter(|key| state.sharing.contains_key(key)).map(|key| &*key.name).collect();
    if open.is_empty() {
        return None;
    }
    let named = open.iter().take(NAMED).copied().collect::<Vec<_>>().join(", ");
    let more = open.len().saturating_sub(NAMED);
    let more = if more > 0 { format!(" and {more} more") } else { String::new() };
    Some(format!(
        "it has no effect on {named}{more}: their nodes are virtual machines whose ports they share (macvlan, ipvlan), and the security \
         groups of such a port hold for all pods of its machine; let those nodes have kind vlan"
    ))
}

fn problems(state: &State, key: &ObjectKey, report: &Report) -> Vec<Problem> {
    let unread = state.enforcer.compiler().problems(key).into_iter();
    let unread = unread.map(|message| Problem { reason: "NotUnderstood".to_owned(), message });
    let nameless = report.nameless.iter().map(|port| Problem {
        reason: "NoSuchPortName".to_owned(),
        message: format!(
            "no pod that the policy looks for the port name {port} at has a container port of this name and protocol, so this \
             allows nothing; is it misspelt?"
        ),
    });
    let hidden = state.enforcer.compiler().hidden_behind(key).into_iter().map(|service| Problem {
        reason: "ClientHidden".to_owned(),
        message: format!(
            "pods that the policy isolates are behind Service {service}, whose load balancer hides its clients from them: nobody \
             comes in through it unless an ipBlock lets the load balancer's own addresses in"
        ),
    });
    let inexact = state.enforcer.compiler().inexact_behind(key).into_iter().flat_map(|(service, limits)| {
        let ports = limits.into_iter().map(move |(place, limit)| (service.clone(), place, limit));
        ports.map(|(service, place, limit)| inexact(&service, place, &limit))
    });
    let mut problems: Vec<Problem> = unread.chain(nameless).chain(hidden).chain(inexact).collect();
    problems.sort();
    problems
}

/// That not all come in through a Service's listener that pods behind it would let in.
fn inexact(service: &ObjectKey, (protocol, number): (Protocol, u16), limit: &Limit) -> Problem {
    const NAMED: usize = 5;
    let why = match limit.too_many {
        Some(count) => format!(
            "those would be {count} blocks of addresses, more than the {MAX_CLIENTS} that a listener gets, so pods that peers \
             select do not come in"
        ),
        None => {
            let named: Vec<&str> = limit.wider.iter().take(NAMED).map(String::as_str).collect();
            let more = if limit.wider.len() > NAMED { " and others" } else { "" };
            format!("some would let in more than others: {}{more}", named.join(", "))
        }
    };
    Problem {
        reason: "ClientHidden".to_owned(),
        message: format!(
            "pods that the policy isolates are behind port {number}/{protocol} of Service {service}, whose load balancer hides its \
             clients from them, so its listener lets in only whom all endpoints let in; {why}"
        ),
    }
}

fn ready(phase: &Phase, generation: i64, before: &KuryrNetworkPolicyStatus, now: Timestamp) -> Condition {
    let (status, reason, message) = match phase {
        Phase::Holds => ("True", "Enforced", String::new()),
        Phase::Pending => ("False", "Pending", String::new()),
        Phase::Open(message) => ("False", "NotEnforced", message.clone()),
        Phase::Failed(failure) => {
            let then =
                if failure.persistent { "pods that lack something of it are closed" } else { "it is tried again" };
            ("False", failure.reason, format!("{}; {then}", failure.message))
        }
    };
    condition(CONDITION_READY, (status, reason, message), told::ready(&before.conditions), Some(generation), now)
}

#[cfg(test)]
#[path = "status_tests.rs"]
mod tests;
