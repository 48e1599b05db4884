//! Services: what the plan from what is there to what should be there still has to do.

use super::compare::{Finding, Kind, Prunable, finding};
use crate::view::{LONGEST_DELETION, Unreadable};
use jiff::Timestamp;
use kuryr_controller::survey::{Survey, Surveyed};
use kuryr_model::{ClusterId, KuryrLoadBalancer, Mark, ObjectKey, ServiceUid};
use kuryr_plan::service::{Nothing, Observed, Step, step::Why};
use std::collections::BTreeSet;

const CONTROLLER: &str = "the controller does it; if it does not: kuryr status";

/// Everything that is wrong with Services.
pub(super) fn services(cluster: &ClusterId, now: Timestamp, survey: &Survey, findings: &mut Vec<Finding>) {
    for (key, surveyed) in &survey.services {
        findings.extend(surveyed.plan().steps.iter().filter_map(|step| left(key, step)));
        let held = survey.held.get(key).is_some_and(|held| held.spec.service_uid == surveyed.service.uid);
        if !held && is_held(surveyed) && !survey.unreadable.contains_key(key) {
            let what = "the Service has a cluster IP and no KuryrLoadBalancer".to_owned();
            findings.push(finding(Kind::Missing, "KuryrLoadBalancer", key, what, CONTROLLER));
        }
    }
    if survey.off.is_none() {
        for (key, held) in &survey.held {
            let service = survey.services.get(key).filter(|there| there.service.uid == held.spec.service_uid);
            if !service.is_some_and(is_held) {
                findings.extend(unwanted(now, key, held));
            }
        }
    }
    for (key, why) in &survey.unreadable {
        let what = format!("it cannot be read: {why}");
        findings.push(finding(Kind::Mismatch, "KuryrLoadBalancer", key, what, Unreadable::FIX_BALANCER));
    }
    // On their way out the load balancer goes before its KuryrLoadBalancer.
    let going: BTreeSet<&ServiceUid> =
        survey.held.values().filter(|held| held.deleting()).map(|held| &held.spec.service_uid).collect();
    for (uid, observed) in survey.strays.iter().filter(|(uid, _)| !going.contains(uid)) {
        strays(cluster, uid, observed, findings);
    }
}

/// Whether the Service has a `KuryrLoadBalancer`: also if it cannot be served, so that it says why.
fn is_held(surveyed: &Surveyed) -> bool {
    matches!(surveyed.desired.nothing, None | Some(Nothing::NoVip))
}

/// What a step that is left means. How listeners and listener pools are set up depends on what the controller learned of the
/// provider, which is not known here, so that is not looked at.
fn left(key: &ObjectKey, step: &Step) -> Option<Finding> {
    let what = format!("Service {key}: left to do: {step}");
    let of = |kind, subject: &str, id: &dyn ToString| Some(finding(kind, subject, id, what.clone(), CONTROLLER));
    match step {
        Step::CreateTree(_) => of(Kind::Missing, "load balancer", key),
        Step::CreatePool { .. } | Step::CreateListener { .. } => of(Kind::Missing, "listener", key),
        Step::SetMembers { pool, .. } => of(Kind::Mismatch, "listener pool", pool),
        Step::DeletePool { id, .. } => of(Kind::Stray, "listener pool", id),
        Step::DeleteListener { id, .. } => of(Kind::Stray, "listener", id),
        Step::DeleteTree { load_balancer, why: Why::Unwanted } => of(Kind::Stray, "load balancer", load_balancer),
        Step::DeleteTree { load_balancer, .. }
        | Step::Failover { load_balancer }
        | Step::Wait { load_balancer, .. } => of(Kind::Mismatch, "load balancer", load_balancer),
        Step::CreateFloating { .. } => of(Kind::Missing, "floating IP", key),
        Step::AssociateFloating { id, .. }
        | Step::DisassociateFloating { id }
        | Step::TagFloating { id, .. }
        | Step::ReleaseFloating { id, .. } => of(Kind::Mismatch, "floating IP", id),
        Step::DeleteFloating { id } => of(Kind::Stray, "floating IP", id),
        Step::UpdatePool { .. }
        | Step::UpdateListener { .. }
        | Step::CreateMonitor { .. }
        | Step::UpdateMonitor { .. }
        | Step::DeleteMonitor { .. } => None,
    }
}

/// A `KuryrLoadBalancer` whose Service is gone, another one, or needs none.
fn unwanted(now: Timestamp, key: &ObjectKey, held: &KuryrLoadBalancer) -> Option<Finding> {
    let subject = "KuryrLoadBalancer";
    let Some(deleted) = &held.metadata.deletion_timestamp else {
        let what = format!("its Service (UID {}) is gone or needs none", held.spec.service_uid);
        let mut finding = finding(Kind::Stray, subject, key, what, "prune it: kuryr audit --fix");
        let uid = held.metadata.uid.clone().unwrap_or_default();
        finding.prune = Some(Prunable::KuryrLoadBalancer(key.clone(), uid));
        return Some(finding);
    };
    let since = now.duration_since(deleted.0);
    (since >= LONGEST_DELETION).then(|| {
        let what = format!("has been on its way out for {} s", since.as_secs());
        finding(
            Kind::Stray,
            subject,
            key,
            what,
            "the controller deletes its load balancer; if it does not: kuryr status",
        )
    })
}

/// What a Service that is gone left behind. In a load balancer of somebody else's only the controller can tell what may go.
fn strays(cluster: &ClusterId, uid: &ServiceUid, observed: &Observed, findings: &mut Vec<Finding>) {
    let prune = "prune it: kuryr audit --fix";
    for tree in &observed.trees {
        let lb = &tree.load_balancer;
        let name = if lb.name.is_empty() { String::new() } else { format!(" {}", lb.name) };
        if Mark::read(cluster, &lb.tags).is_some() {
            let what = format!("made for Service{name} (UID {uid}), which is gone");
            let mut finding = finding(Kind::Stray, "load balancer", &lb.id, what, prune);
            finding.prune = Some(Prunable::LoadBalancer(lb.id));
            findings.push(finding);
        } else {
            let what = format!("has listeners of a Service (UID {uid}) that is gone");
            findings.push(finding(Kind::Stray, "load balancer", &lb.id, what, CONTROLLER));
        }
    }
    for ip in &observed.floating {
        let what = format!("{} was made for a Service (UID {uid}) that is gone", ip.floating_ip_address);
        let mut finding = finding(Kind::Stray, "floating IP", &ip.id, what, prune);
        // Marked only by its description, or adopted: which tags stay, only the controller knows.
        if Mark::read(cluster, &ip.tags).is_some() && ip.tags.len() == 2 {
            finding.prune = Some(Prunable::FloatingIp(ip.id));
        } else {
            CONTROLLER.clone_into(&mut finding.fix);
        }
        findings.push(finding);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_plan::service::{Desired, Kind as ServiceKind, ObservedTree, Service, TrafficPolicy};
    use serde_json::json;

    fn id(n: u8) -> String {
        format!("00000000-0000-4000-8000-0000000000{n:02x}")
    }

    fn load_balancer(uid: &str) -> ObservedTree {
        let load_balancer = json!({
            "id": id(1), "name": "default/web", "tags": ["kuryr:c1", format!("kuryr:service:{uid}")],
            "provisioning_status": "ACTIVE",
        });
        ObservedTree::new(serde_json::from_value(load_balancer).unwrap(), &[], &[], &[])
    }

    fn held(uid: &str, deleted: Option<&str>) -> KuryrLoadBalancer {
        serde_json::from_value(json!({
            "apiVersion": "kuryr.openstack.org/v1", "kind": "KuryrLoadBalancer",
            "metadata": {"namespace": "default", "name": "web", "uid": "k", "deletionTimestamp": deleted},
            "spec": {"serviceUid": uid},
        }))
        .unwrap()
    }

    /// A headless Service: it needs nothing.
    fn headless() -> Surveyed {
        let service = Service {
            key: key(),
            uid: "s".into(),
            kind: ServiceKind::ClusterIp,
            cluster_ips: vec![],
            ports: vec![],
            external_ips: vec![],
            load_balancer_ip: None,
            load_balancer_class: None,
            source_ranges: vec![],
            external_policy: TrafficPolicy::Cluster,
            internal_policy: TrafficPolicy::Cluster,
            session_affinity: None,
            publish_not_ready: false,
            annotations: [].into(),
            deleting: false,
            generation: 0,
        };
        let desired = Desired { nothing: Some(Nothing::Headless), ..Desired::gone("c1".into(), "s".into()) };
        Surveyed { service, slices: vec![], desired, observed: Observed::default() }
    }

    fn key() -> ObjectKey {
        ObjectKey::new("default", "web")
    }

    fn found(survey: &Survey) -> Vec<String> {
        let mut findings = Vec::new();
        services(&"c1".into(), "2026-01-01T00:10:00Z".parse().unwrap(), survey, &mut findings);
        findings.sort();
        findings.iter().map(|f| format!("{} {} {}", f.kind.as_str(), f.subject, f.id)).collect()
    }

    #[test]
    fn a_service_that_needs_nothing_and_has_nothing_is_in_order() {
        let survey = Survey { services: [(key(), headless())].into(), ..Survey::default() };
        assert_eq!(found(&survey), [""; 0]);
    }

    #[test]
    fn what_a_service_has_and_does_not_need_is_stray() {
        let mut surveyed = headless();
        surveyed.observed.trees.push(load_balancer("s"));
        let survey = Survey { services: [(key(), surveyed)].into(), ..Survey::default() };
        assert_eq!(found(&survey), [format!("stray load balancer {}", id(1))]);
    }

    #[test]
    fn what_a_service_left_behind_is_stray_unless_it_is_on_its_way_out() {
        let observed = Observed { trees: vec![load_balancer("gone")], floating: vec![] };
        let mut survey = Survey { strays: [("gone".into(), observed)].into(), ..Survey::default() };
        assert_eq!(found(&survey), [format!("stray load balancer {}", id(1))]);
        survey.held.insert(key(), held("gone", Some("2026-01-01T00:09:30Z")));
        assert_eq!(found(&survey), [""; 0]);
        survey.held.insert(key(), held("gone", Some("2026-01-01T00:00:00Z")));
        assert_eq!(found(&survey), ["stray KuryrLoadBalancer default/web"]);
        survey.held.insert(key(), held("gone", None));
        assert!(found(&survey).contains(&"stray KuryrLoadBalancer default/web".to_owned()));
    }

    #[test]
    fn one_that_cannot_be_read_is_told_and_hides_nothing_else() {
        let mut surveyed = headless();
        surveyed.desired.nothing = None;
        let survey = Survey {
            services: [(key(), surveyed)].into(),
            unreadable: [(key(), "spec: invalid type".to_owned())].into(),
            held: [(ObjectKey::new("default", "other"), held("gone", None))].into(),
            ..Survey::default()
        };
        let found = found(&survey);
        assert!(found.contains(&"mismatch KuryrLoadBalancer default/web".to_owned()), "{found:?}");
        assert!(found.contains(&"stray KuryrLoadBalancer default/other".to_owned()), "{found:?}");
        assert!(!found.contains(&"missing KuryrLoadBalancer default/web".to_owned()), "{found:?}");
    }
}
