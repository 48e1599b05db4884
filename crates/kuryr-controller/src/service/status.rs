//! What a `KuryrLoadBalancer` says of its Service: pure.

use super::error::ServiceError;
use crate::own::condition;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Condition;
use kuryr_model::{
    KuryrLoadBalancer, KuryrLoadBalancerStatus, Problem,
    kuryr_load_balancer::{ListenerRef, LoadBalancerRef, LoadBalancerState, Members},
    lb::Provisioning,
    told::CONDITION_READY,
};
use kuryr_plan::service::{Desired, Effect, Place, Problem as PlanProblem, Slice, Step, Summary, summary::TreeSummary};
use std::collections::BTreeMap;

/// The reason of `Ready` = `False` while all goes as it should.
pub(crate) const PENDING: &str = "Pending";

/// How a look at a Service ended.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Phase<'a> {
    /// All that can be done is done.
    Settled,
    /// Octavia is at work.
    Working,
    /// A request is not answered yet.
    Asking(&'a Step),
    /// It is being deleted.
    Deleting,
    /// It does not go on, for this reason.
    Failed(&'a ServiceError),
}

/// All that a status is made of.
pub(crate) struct Facts<'a> {
    pub(crate) held: &'a KuryrLoadBalancer,
    pub(crate) desired: &'a Desired,
    pub(crate) summary: &'a Summary,
    /// Problems of the Service itself and those that stand in the plan's way.
    pub(crate) problems: &'a [PlanProblem],
    pub(crate) members: Members,
    /// The digest of the members that were applied last.
    pub(crate) applied: &'a str,
    pub(crate) phase: Phase<'a>,
    pub(crate) now: Timestamp,
}

/// What the status is to be.
pub(crate) fn status(facts: &Facts<'_>) -> KuryrLoadBalancerStatus {
    let Facts { desired, summary, .. } = facts;
    let shared = |tree: &TreeSummary| {
        let wanted = desired.trees.iter().find(|wanted| Some(wanted.role) == tree.role);
        wanted.is_some_and(|wanted| matches!(wanted.place, Place::Existing(_)))
    };
    let mut external: Vec<_> = summary.floating.iter().map(|floating| floating.address).collect();
    let mut vips = Vec::new();
    for tree in &summary.trees {
        let outer = tree.role == Some(kuryr_plan::service::Role::External) && desired.trees.len() > 1;
        let addresses = if outer { &mut external } else { &mut vips };
        addresses.extend(tree.vips.iter().filter(|ip| !addresses.contains(ip)).copied().collect::<Vec<_>>());
    }
    let load_balancers = summary.trees.iter().filter_map(|tree| {
        Some(LoadBalancerRef {
            id: tree.id?,
            shared: shared(tree),
            provisioning_status: tree.state.map(|(provisioning, _)| provisioning).unwrap_or_default(),
            vip_port_id: tree.vip_port,
            listeners: listeners(tree),
        })
    });
    let mut load_balancers: Vec<LoadBalancerRef> = load_balancers.collect();
    if matches!(facts.phase, Phase::Settled | Phase::Working | Phase::Asking(_)) {
        calm(&mut load_balancers);
    }
    KuryrLoadBalancerStatus {
        provider: summary
            .trees
            .iter()
            .map(|tree| tree.provider.clone())
            .find(|name| !name.is_empty())
            .unwrap_or_default(),
        vips,
        external,
        floating_ip_id: summary.floating.as_ref().map(|floating| floating.id),
        state: Some(state(facts)),
        members: Some(facts.members.clone()),
        load_balancers,
        applied: facts.applied.to_owned(),
        problems: facts.problems.iter().map(problem).collect(),
        conditions: vec![ready(facts)],
    }
}

/// That Octavia is at work on members is no news: a status that said so would be written twice for each change.
fn calm(load_balancers: &mut [LoadBalancerRef]) {
    for load_balancer in load_balancers {
        if load_balancer.provisioning_status == Provisioning::PendingUpdate {
            load_balancer.provisioning_status = Provisioning::Active;
        }
    }
}

fn listeners(tree: &TreeSummary) -> Vec<ListenerRef> {
    let made = tree.listeners.iter().filter_map(|listener| {
        Some(ListenerRef {
            protocol: listener.key.transport.protocol(),
            port_number: listener.key.number,
            id: listener.id?,
            pool_id: listener.pool,
        })
    });
    made.collect()
}

fn problem(problem: &PlanProblem) -> Problem {
    Problem { reason: problem.reason.as_str().to_owned(), message: problem.message.clone() }
}

/// The first problem for which the Service, or a part of it, cannot be reached.
fn severe(problems: &[PlanProblem]) -> Option<&PlanProblem> {
    problems.iter().find(|problem| matches!(problem.effect, Effect::NotServed | Effect::NotExposed))
}

fn state(facts: &Facts<'_>) -> LoadBalancerState {
    let trees = &facts.summary.trees;
    let active = |tree: &TreeSummary| {
        matches!(tree.state, Some((Provisioning::Active | Provisioning::PendingUpdate, _)))
            && tree.listeners.iter().all(|listener| listener.id.is_some())
    };
    let all_active = !trees.is_empty() && trees.iter().all(active);
    match facts.phase {
        Phase::Deleting => LoadBalancerState::Deleting,
        _ if all_active => LoadBalancerState::Active,
        Phase::Working | Phase::Asking(_) => LoadBalancerState::Pending,
        Phase::Settled | Phase::Failed(_) => LoadBalancerState::Error,
    }
}

fn unanswered(step: &Step) -> String {
    format!("OpenStack has not answered yet: {step}")
}

fn ready(facts: &Facts<'_>) -> Condition {
    let (status, reason, message) = match facts.phase {
        Phase::Deleting => ("False", "Deleting", String::new()),
        Phase::Failed(error) => ("False", error.reason(), error.to_string()),
        Phase::Working => ("False", PENDING, String::new()),
        Phase::Asking(step) => ("False", PENDING, unanswered(step)),
        Phase::Settled => match severe(facts.problems) {
            Some(problem) => ("False", problem.reason.as_str(), problem.message.clone()),
            None => ("True", "Active", String::new()),
        },
    };
    let generation = facts.held.metadata.generation;
    condition(CONDITION_READY, (status, reason, message), facts.held.ready(), generation, facts.now)
}

/// How many endpoints get new connections, of how many: one that has addresses of two families counts once.
pub(crate) fn members<'a>(slices: impl IntoIterator<Item = &'a Slice>) -> Members {
    let mut endpoints: BTreeMap<String, bool> = BTreeMap::new();
    for endpoint in slices.into_iter().flat_map(|slice| &slice.endpoints) {
        let who = endpoint.pod.clone().unwrap_or_else(|| endpoint.address.to_string());
        let ready = endpoints.entry(who).or_default();
        *ready |= endpoint.ready;
    }
    let count = |count: usize| u32::try_from(count).unwrap_or(u32::MAX);
    Members::new(count(endpoints.values().filter(|ready| **ready).count()), count(endpoints.len()))
}

/// The merge patch from one status to another: what is not there any more is taken away.
pub(crate) fn patch<S: serde::Serialize>(before: &S, after: &S) -> serde_json::Value {
    let object = |status: &S| match serde_json::to_value(status) {
        Ok(serde_json::Value::Object(map)) => map,
        _ => serde_json::Map::new(),
    };
    let (before, mut after) = (object(before), object(after));
    for key in before.into_iter().map(|(key, _)| key) {
        after.entry(key).or_insert(serde_json::Value::Null);
    }
    serde_json::json!({"status": after})
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::lean::tests::seen_slice;
    use kuryr_plan::service::{ListenerKey, Reason, Role, Transport, summary::ListenerSummary};
    use serde_json::json;

    fn id(n: u8) -> String {
        format!("00000000-0000-0000-0000-0000000000{n:02x}")
    }

    fn held(status: &serde_json::Value) -> KuryrLoadBalancer {
        serde_json::from_value(json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrLoadBalancer",
            "metadata": {"namespace": "a", "name": "web"}, "spec": {"serviceUid": "s"}, "status": status,
        }))
        .unwrap()
    }

    fn one_tree(state: Provisioning) -> Summary {
        let listener = ListenerSummary {
            key: ListenerKey { transport: Transport::Tcp, number: 80 },
            id: id(2).parse().ok(),
            pool: id(3).parse().ok(),
            monitor: None,
            operating: None,
            ready: 1,
            draining: 0,
            down: 0,
            total: 1,
        };
        let tree = TreeSummary {
            role: Some(Role::Cluster),
            id: id(1).parse().ok(),
            provider: "ovn".into(),
            vips: vec!["10.96.0.9".parse().unwrap()],
            vip_port: None,
            state: Some((state, Default::default())),
            listeners: vec![listener],
        };
        Summary { trees: vec![tree], ..Summary::default() }
    }

    fn of(
        summary: &Summary,
        problems: &[PlanProblem],
        phase: Phase<'_>,
        held: &KuryrLoadBalancer,
    ) -> KuryrLoadBalancerStatus {
        let desired = Desired::gone("c1".into(), "s".into());
        let (members, now) = (Members::new(1, 1), "2026-01-02T00:00:00Z".parse().unwrap());
        status(&Facts { held, desired: &desired, summary, problems, members, applied: "x", phase, now })
    }

    #[test]
    fn a_load_balancer_that_is_as_wanted_is_ready() {
        let status = of(&one_tree(Provisioning::Active), &[], Phase::Settled, &held(&json!({})));
        assert_eq!((status.state, status.provider.as_str()), (Some(LoadBalancerState::Active), "ovn"));
        assert_eq!((status.conditions[0].status.as_str(), status.conditions[0].reason.as_str()), ("True", "Active"));
        assert_eq!(status.load_balancers[0].listeners[0].port_number, 80);
    }

    #[test]
    fn one_whose_members_are_being_changed_is_still_active() {
        let status = of(&one_tree(Provisioning::PendingUpdate), &[], Phase::Working, &held(&json!({})));
        assert_eq!(status.state, Some(LoadBalancerState::Active));
        assert_eq!(status.load_balancers[0].provisioning_status, Provisioning::Active);
        let made = of(&one_tree(Provisioning::PendingCreate), &[], Phase::Working, &held(&json!({})));
        assert_eq!(made.state, Some(LoadBalancerState::Pending));
    }

    #[test]
    fn a_request_that_is_not_answered_is_told_with_the_address_that_it_is_about() {
        let mut asked = one_tree(Provisioning::PendingCreate);
        (asked.trees[0].id, asked.trees[0].state, asked.trees[0].listeners[0].id) = (None, None, None);
        let step = Step::DeleteFloating { id: id(7).parse().unwrap() };
        let told = of(&asked, &[], Phase::Asking(&step), &held(&json!({})));
        assert_eq!((told.state, told.vips.len()), (Some(LoadBalancerState::Pending), 1));
        assert_eq!((told.conditions[0].status.as_str(), told.conditions[0].reason.as_str()), ("False", "Pending"));
        assert!(told.conditions[0].message.ends_with(&step.to_string()), "{}", told.conditions[0].message);
    }

    #[test]
    fn what_is_in_the_way_of_serving_is_the_reason() {
        let problem = |effect| PlanProblem {
            reason: Reason::NoFloatingNetwork,
            about: "spec.type".into(),
            effect,
            message: "set [services] floating_network".into(),
        };
        let summary = one_tree(Provisioning::Active);
        let mild = of(&summary, &[problem(Effect::Ignored)], Phase::Settled, &held(&json!({})));
        assert_eq!((mild.conditions[0].status.as_str(), mild.problems.len()), ("True", 1));
        let severe = of(&summary, &[problem(Effect::NotExposed)], Phase::Settled, &held(&json!({})));
        assert_eq!(severe.conditions[0].reason, "NoFloatingNetwork");
    }

    #[test]
    fn a_condition_keeps_its_time_while_its_status_stays() {
        let since = "2026-01-01T00:00:00Z";
        let condition = json!({"type": "Ready", "status": "False", "reason": "Pending", "message": "", "lastTransitionTime": since});
        let held = held(&json!({"conditions": [condition]}));
        let error = ServiceError::Broken(id(1).parse().unwrap(), Default::default());
        let failed = of(&Summary::default(), &[], Phase::Failed(&error), &held);
        assert_eq!(failed.state, Some(LoadBalancerState::Error));
        assert_eq!(failed.conditions[0].last_transition_time.0.to_string(), since);
        let good = of(&one_tree(Provisioning::Active), &[], Phase::Settled, &held);
        assert_ne!(good.conditions[0].last_transition_time.0.to_string(), since);
    }

    #[test]
    fn a_pod_of_two_families_is_one_endpoint() {
        let mut v4 = seen_slice(&["10.0.0.1", "10.0.0.2"]).slice;
        let mut v6 = seen_slice(&["fd00::1", "fd00::2"]).slice;
        for slice in [&mut v4, &mut v6] {
            slice.endpoints[0].pod = Some("web-0".into());
            slice.endpoints[1].pod = Some("web-1".into());
            slice.endpoints[1].ready = false;
        }
        assert_eq!(members([&v4, &v6]), Members::new(1, 2));
        assert_eq!(members([&seen_slice(&["10.0.0.1", "10.0.0.2"]).slice]), Members::new(2, 2));
    }

    #[test]
    fn what_is_gone_is_taken_out_of_the_status() {
        let before = of(&one_tree(Provisioning::Active), &[], Phase::Settled, &held(&json!({})));
        let after = of(&Summary::default(), &[], Phase::Deleting, &held(&json!({})));
        let patch = patch(&before, &after);
        assert!(patch["status"]["vips"].is_null() && patch["status"]["loadBalancers"].is_null());
        assert_eq!(patch["status"]["state"], "Deleting");
    }
}
