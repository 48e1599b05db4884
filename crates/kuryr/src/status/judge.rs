//! What the facts mean: pure.

use super::{
    collect::{CloudFacts, Daemon, Facts, Known, Kubernetes, LeaseFacts, SubnetFacts},
    machines, policies, pools, services,
};
use crate::{
    kubernetes::OLDEST_MINOR,
    setup::group_differs,
    view::{ClusterView, NodeView, PodView, Unreadable, overdue},
};
use jiff::{SignedDuration, Timestamp};
use kuryr_controller::REQUIRED_EXTENSIONS;
use kuryr_model::{
    KuryrPort, ObjectKey, Vif,
    kuryr_port::AttachmentState,
    mark::Base,
    neutron::{Port, PortStatus},
    vif::PlugDriver,
};
use kuryr_openstack::network::{agents::Agent, quotas::Quota};
use serde::Serialize;
use std::collections::{BTreeMap, BTreeSet};

/// For how long a pod may wait before that is worth a word.
const PATIENCE: SignedDuration = SignedDuration::from_secs(30);
/// How many of many are named.
pub(super) const NAMED: usize = 10;
/// Less than this share free is worth a word.
const NEARLY: f64 = 0.05;

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Check {
    pub(crate) area: Area,
    /// What was looked at.
    pub(crate) subject: String,
    pub(crate) state: State,
    /// What was found.
    pub(crate) detail: String,
    /// What to do, if it does not work.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub(crate) fix: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub(crate) enum Area {
    Kubernetes,
    OpenStack,
    Pods,
    Services,
    Policies,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum State {
    /// It works.
    Ok,
    /// It cannot be known, or will soon not work.
    Note,
    /// It does not work.
    Wrong,
}

pub(super) fn check(area: Area, subject: &str, state: State, detail: impl Into<String>, fix: &str) -> Check {
    Check { area, subject: subject.to_owned(), state, detail: detail.into(), fix: fix.to_owned() }
}

/// Everything that was looked at, in the order of the screen.
pub(crate) fn judge(facts: &Facts) -> Vec<Check> {
    let mut checks = Vec::new();
    if let Err(error) = &facts.cluster {
        checks.push(check(Area::Kubernetes, "cluster id", State::Wrong, error, "set [cluster] id"));
    }
    match &facts.kubernetes {
        Ok(kubernetes) => self::kubernetes(kubernetes, &mut checks),
        Err(error) => checks.push(check(Area::Kubernetes, "API server", State::Wrong, error, "")),
    }
    match &facts.cloud {
        Ok(cloud) => {
            self::cloud(cloud, &mut checks);
            services::octavia(cloud, &mut checks);
        }
        Err(error) => checks.push(check(Area::OpenStack, "Keystone", State::Wrong, error, "")),
    }
    let view = facts.kubernetes.as_ref().ok().and_then(|kubernetes| kubernetes.view.as_ref().ok());
    let cloud = facts.cloud.as_ref().ok();
    if let Some(view) = view {
        if let Some(agents) = cloud.and_then(|cloud| cloud.agents.as_ref().ok()) {
            let machine = |node: &&NodeView| facts.machines.iter().flatten().any(|machine| machine.node == node.name);
            hosts(view.nodes.iter().filter(|node| !machine(node)), agents, &mut checks);
        }
        machines::machines(view.nodes.len(), &facts.machines, &mut checks);
        pods(facts.now, view, &mut checks);
        if let Some(ports) = cloud.and_then(|cloud| cloud.ports.as_ref().ok()) {
            down(view, ports, &mut checks);
            if let Ok(cluster) = &facts.cluster {
                checks.extend(pools::pools(cluster, facts.floor, view, &facts.machines, ports));
            }
        }
    }
    if let Ok(kubernetes) = &facts.kubernetes {
        let on = cloud.is_none_or(|cloud| matches!(cloud.services, Ok(None)));
        services::services(facts.now, &kubernetes.services, on, &mut checks);
        policies::policies(facts.now, &kubernetes.policies, &mut checks);
    }
    checks
}

fn kubernetes(kubernetes: &Kubernetes, checks: &mut Vec<Check>) {
    use Area::Kubernetes as Here;
    let wrong = |subject, detail: &str, fix| check(Here, subject, State::Wrong, detail, fix);
    checks.push(match &kubernetes.version {
        Ok((version, minor)) if *minor < OLDEST_MINOR => {
            wrong("API server", version, "use Kubernetes 1.31 or later: nodes select their KuryrPorts by field")
        }
        Ok((version, _)) => check(Here, "API server", State::Ok, version, ""),
        Err(error) => wrong("API server", error, ""),
    });
    let apply = "kuryr crds --apply";
    checks.push(match &kubernetes.definition {
        Ok(Some(definition)) if definition.established && definition.selectable => {
            check(Here, "KuryrPort", State::Ok, "the definition is established", "")
        }
        Ok(Some(definition)) if definition.established => {
            wrong("KuryrPort", "the definition is of an older version: nodes cannot select their own", apply)
        }
        Ok(Some(_)) => wrong("KuryrPort", "the API server has not established the definition", apply),
        Ok(None) => wrong("KuryrPort", "the API server does not know the definition", apply),
        Err(error) => wrong("KuryrPort", error, ""),
    });
    checks.push(leader(&kubernetes.lease_name, &kubernetes.lease));
    match &kubernetes.view {
        Ok(view) => {
            nodes(&view.nodes, checks);
            daemons(view.nodes.len(), kubernetes.daemons.as_ref(), checks);
        }
        Err(error) => checks.push(wrong("objects", error, "")),
    }
}

fn leader(name: &str, lease: &Known<Option<LeaseFacts>>) -> Check {
    let wrong = |detail: String, fix| check(Area::Kubernetes, "controller", State::Wrong, detail, fix);
    let start = "start kuryr controller, or look at its log";
    match lease {
        Err(error) => wrong(error.clone(), ""),
        Ok(None) => wrong(format!("nobody holds the Lease {name}: no controller is active"), start),
        Ok(Some(LeaseFacts { holder, renewed: true, .. })) => {
            check(Area::Kubernetes, "controller", State::Ok, format!("{holder} leads"), "")
        }
        Ok(Some(LeaseFacts { holder, seconds, .. })) => {
            wrong(format!("{holder} did not renew the Lease {name} within {seconds} s: no controller is active"), start)
        }
    }
}

fn nodes(nodes: &[NodeView], checks: &mut Vec<Check>) {
    let ready = nodes.iter().filter(|node| node.ready).count();
    if nodes.is_empty() {
        checks.push(check(Area::Kubernetes, "nodes", State::Note, "there are none", ""));
        return;
    }
    // The nodes themselves follow: a fault counts once.
    let all = if ready == nodes.len() { State::Ok } else { State::Note };
    checks.push(check(Area::Kubernetes, "nodes", all, format!("{ready} of {} are ready", nodes.len()), ""));
    for node in nodes.iter().filter(|node| !node.ready).take(NAMED) {
        let why = if node.why.is_empty() { "not ready" } else { &node.why };
        let fix = "look at kubelet's log and at that of kuryr daemon there";
        checks.push(check(Area::Kubernetes, &format!("node {}", node.name), State::Wrong, why, fix));
    }
    for node in nodes.iter().filter(|node| node.host.ignored.is_some()).take(NAMED) {
        let why = node.host.ignored.clone().unwrap_or_default();
        checks.push(check(Area::Kubernetes, &format!("node {}", node.name), State::Wrong, why, ""));
    }
}

/// Whether the daemons of the nodes can attach pods.
fn daemons(nodes: usize, daemons: Option<&BTreeMap<String, Daemon>>, checks: &mut Vec<Check>) {
    use Area::Kubernetes as Here;
    if nodes == 0 {
        return;
    }
    let Some(daemons) = daemons else {
        let detail = "not asked: [daemon] listen is for their own nodes only";
        return checks.push(check(Here, "daemons", State::Note, detail, ""));
    };
    let ready = daemons.values().filter(|daemon| **daemon == Daemon::Ready).count();
    // Those that are not follow: a fault counts once.
    let all = if ready == nodes { State::Ok } else { State::Note };
    checks.push(check(Here, "daemons", all, format!("{ready} of {nodes} can attach pods"), ""));
    let unlike = |wanted: State| {
        daemons.iter().filter_map(move |(node, daemon)| {
            let (state, detail, fix) = match daemon {
                Daemon::Ready => return None,
                Daemon::NotReady(why) => (State::Wrong, why.clone(), "look at the log of kuryr daemon there"),
                Daemon::Absent(address) => {
                    (State::Wrong, format!("no daemon listens at {address}"), "start kuryr daemon there")
                }
                Daemon::Unknown(why) => (State::Note, format!("it cannot be asked from here: {why}"), ""),
            };
            (state == wanted).then(|| check(Here, &format!("daemon {node}"), state, detail, fix))
        })
    };
    checks.extend(unlike(State::Wrong).chain(unlike(State::Note)).take(NAMED));
}

/// Whether Neutron can bind ports to the nodes.
fn hosts<'a>(nodes: impl Iterator<Item = &'a NodeView>, agents: &[Agent], checks: &mut Vec<Check>) {
    // Where the driver keeps no agents nothing can be said.
    if agents.is_empty() {
        return;
    }
    for node in nodes {
        let fix = "set the annotation kuryr.openstack.org/host of the Node to Neutron's name for it";
        let host = &node.host.name;
        let mut here = agents.iter().filter(|agent| agent.host == *host).peekable();
        let subject = format!("node {}", node.name);
        if here.peek().is_none() {
            let detail = format!("Neutron knows no host {host:?}, so it can bind no port there");
            checks.push(check(Area::OpenStack, &subject, State::Wrong, detail, fix));
        } else if here.all(|agent| !agent.alive) {
            let detail = format!("Neutron has not heard of host {host:?} lately");
            let fix = "look at the network agent (for OVN: ovn-controller) there";
            checks.push(check(Area::OpenStack, &subject, State::Wrong, detail, fix));
        }
    }
}

fn cloud(cloud: &CloudFacts, checks: &mut Vec<Check>) {
    use Area::OpenStack as Here;
    let identity = &cloud.identity;
    let who = format!("{} as user {} in project {}", cloud.auth_url, identity.user, identity.project_name);
    checks.push(check(Here, "Keystone", State::Ok, who, ""));
    checks.push(match &cloud.extensions {
        Err(error) => check(Here, "Neutron", State::Wrong, error, ""),
        Ok(_) => check(Here, "Neutron", State::Ok, &cloud.network_url, ""),
    });
    if let Ok(extensions) = &cloud.extensions {
        for (alias, why) in REQUIRED_EXTENSIONS.into_iter().filter(|(alias, _)| !extensions.has(alias)) {
            let fix = "have it enabled in Neutron";
            checks.push(check(Here, "extension", State::Wrong, format!("{alias} is missing: {why}"), fix));
        }
    }
    checks.push(quota(&cloud.quotas));
    match &cloud.subnets {
        Err(error) => checks.push(check(Here, "pod subnets", State::Wrong, error, "check [network] pod_subnets")),
        Ok(subnets) if subnets.is_empty() => {
            checks.push(check(Here, "pod subnets", State::Wrong, "there are none", "kuryr setup"));
        }
        Ok(subnets) => checks.extend(subnets.iter().map(subnet)),
    }
    match &cloud.groups {
        Err(error) => checks.push(check(Here, "security groups", State::Wrong, error, "")),
        Ok(groups) => {
            for base in [Base::IngressOpen, Base::EgressOpen] {
                let found: Vec<_> = groups.iter().filter(|(role, _)| *role == base).collect();
                let purpose = kuryr_model::Purpose::Base(base);
                let wrong = match &found[..] {
                    [] => format!("none is tagged {purpose}"),
                    [(_, group)] if group_differs(base, group) => {
                        format!("{} has other rules than it should", group.name)
                    }
                    [_] => continue,
                    several => format!("{} are tagged {purpose}", several.len()),
                };
                checks.push(check(Here, "security group", State::Wrong, wrong, "kuryr setup"));
            }
        }
    }
}

fn quota(quotas: &Known<BTreeMap<String, Quota>>) -> Check {
    let here = |state, detail: String, fix| check(Area::OpenStack, "port quota", state, detail, fix);
    match quotas.as_ref().map(|quotas| quotas.get("port")) {
        Err(error) => here(State::Note, format!("unknown: {error}"), ""),
        Ok(None) => here(State::Note, "Neutron does not say".to_owned(), ""),
        Ok(Some(quota)) => match quota.free() {
            None => here(State::Ok, format!("{} ports, no limit", quota.used), ""),
            Some(free) => {
                let detail = format!("{} of {} ports used", quota.used, quota.limit);
                let raise = "raise the project's port quota";
                match free {
                    0 => here(State::Wrong, detail, raise),
                    free if (free as f64) < quota.limit as f64 * NEARLY => here(State::Note, detail, raise),
                    _ => here(State::Ok, detail, ""),
                }
            }
        },
    }
}

fn subnet(facts: &SubnetFacts) -> Check {
    let subject = "pod subnet";
    let label = if facts.subnet.name.is_empty() { facts.subnet.id.to_string() } else { facts.subnet.name.clone() };
    let label = format!("{label} {}", facts.subnet.cidr);
    let Some(used) = &facts.used else { return check(Area::OpenStack, subject, State::Ok, label, "") };
    let free = (used.total_ips - used.used_ips as f64).max(0.0);
    let detail = format!("{label}: {} used, {} free", used.used_ips, human(free));
    let more = "add a subnet: kuryr setup --pod-cidr, then [network] pod_subnets";
    if free < 1.0 {
        check(Area::OpenStack, subject, State::Wrong, detail, more)
    } else if free < used.total_ips * NEARLY {
        check(Area::OpenStack, subject, State::Note, detail, more)
    } else {
        check(Area::OpenStack, subject, State::Ok, detail, "")
    }
}

/// Addresses of an IPv6 subnet are too many to write out.
fn human(count: f64) -> String {
    if count < 1e9 { format!("{count:.0}") } else { format!("{count:.1e}") }
}

/// Where a pod's ports are.
enum Progress {
    /// In the pod.
    Attached,
    /// Not yet, and that is no reason to worry.
    Starting,
    /// Not, and this is why.
    Stuck(String, &'static str),
}

/// `port` is the `KuryrPort` of the pod's name, be it another pod's.
fn progress(now: Timestamp, pod: &PodView, port: Option<&KuryrPort>, odd: Option<&Unreadable>) -> Progress {
    let waited = pod.bound.map(|since| now.duration_since(since));
    let long = waited.is_some_and(|waited| waited > PATIENCE);
    let waited = waited.map(|waited| format!("waiting for {} s: ", waited.as_secs())).unwrap_or_default();
    let controller = "look at the controller's log";
    if let Some(Unreadable { why, .. }) = odd {
        return Progress::Stuck(format!("its KuryrPort cannot be read: {why}"), Unreadable::FIX);
    }
    let others = |port: &&KuryrPort| port.spec.pod_uid != pod.uid;
    match port {
        Some(port) if !others(&port) && port.attachment_state() == Some(AttachmentState::Attached) => {
            Progress::Attached
        }
        Some(port) if !others(&port) && port.spec.vifs.is_empty() && port.unallocated_reason().is_some() => {
            let why = port.unallocated_reason().map_or("", |condition| &condition.message);
            Progress::Stuck(format!("{waited}{why}"), "")
        }
        _ if !long => Progress::Starting,
        None => Progress::Stuck(format!("{waited}it has no KuryrPort"), controller),
        Some(port) if others(&port) => {
            let (node, uid) = (&port.spec.node_name, &port.spec.pod_uid);
            let why = match overdue(now, port) {
                Some((why, _)) => format!("the KuryrPort of the previous pod of this name {why}"),
                None => format!("node {node} still holds the ports of the previous pod of this name ({uid})"),
            };
            Progress::Stuck(
                format!("{waited}{why}"),
                "start the daemon of that node, or delete the Node if it is gone for good",
            )
        }
        Some(port) if port.spec.vifs.is_empty() => Progress::Stuck(format!("{waited}it has no port"), controller),
        Some(port) => Progress::Stuck(
            format!("{waited}it has its port, node {} has not plugged it", port.spec.node_name),
            "look at the pod's events and the log of kuryr daemon there",
        ),
    }
}

fn pods(now: Timestamp, view: &ClusterView, checks: &mut Vec<Check>) {
    let ports: BTreeMap<_, _> = view.kuryr_ports.iter().map(|port| (port.key(), port)).collect();
    let (mut attached, mut starting, mut stuck) = (0usize, 0usize, BTreeMap::new());
    for pod in view.pods.iter().filter(|pod| pod.wants_ports()) {
        match progress(now, pod, ports.get(&pod.key).copied(), view.unreadable(&pod.key)) {
            Progress::Attached => attached += 1,
            Progress::Starting => starting += 1,
            Progress::Stuck(why, fix) => {
                stuck.insert(pod.key.clone(), (why, fix));
            }
        }
    }
    let detail = format!("{attached} have their ports, {starting} are starting, {} are stuck", stuck.len());
    // The pods themselves follow: a fault counts once.
    let state = if stuck.is_empty() { State::Ok } else { State::Note };
    checks.push(check(Area::Pods, "pods", state, detail, ""));
    named(&stuck, "are stuck", checks);
    // What no pod waits for.
    let unreadable = view
        .unreadable
        .iter()
        .map(|odd| (&odd.key, format!("its KuryrPort cannot be read: {}", odd.why), Unreadable::FIX));
    let leaving = view.kuryr_ports.iter().filter_map(|port| Some((port, overdue(now, port)?)));
    let leaving: Vec<_> = leaving.map(|(port, (why, fix))| (port.key(), format!("its KuryrPort {why}"), fix)).collect();
    let left: BTreeMap<_, _> = unreadable
        .chain(leaving.iter().map(|(key, why, fix)| (key, why.clone(), *fix)))
        .filter(|(key, ..)| !stuck.contains_key(*key))
        .map(|(key, why, fix)| (key.clone(), (why, fix)))
        .collect();
    named(&left, "are left", checks);
}

/// The first of many, each with what is wrong and what to do, and how many more there are.
fn named(faults: &BTreeMap<ObjectKey, (String, &str)>, are: &str, checks: &mut Vec<Check>) {
    for (key, (why, fix)) in faults.iter().take(NAMED) {
        checks.push(check(Area::Pods, &key.to_string(), State::Wrong, why, fix));
    }
    if faults.len() > NAMED {
        let more = format!("{} more {are}", faults.len() - NAMED);
        checks.push(check(Area::Pods, "...", State::Wrong, more, ""));
    }
}

/// Ports that their node plugged and Neutron says are down.
fn down<'a>(view: &'a ClusterView, ports: &[Port], checks: &mut Vec<Check>) {
    let attached = |port: &&KuryrPort| port.attachment_state() == Some(AttachmentState::Attached) && !port.deleting();
    // What only holds an address for a virtual machine's pod is switched off.
    let own = |vif: &&Vif| !matches!(vif.plug.driver, PlugDriver::Macvlan | PlugDriver::Ipvlan);
    let ids = |held: &'a KuryrPort| held.spec.vifs.iter().filter(own).map(move |vif| (vif.port_id, held));
    let plugged: BTreeMap<_, _> = view.kuryr_ports.iter().filter(attached).flat_map(ids).collect();
    let dead: BTreeSet<_> = ports
        .iter()
        .filter(|port| matches!(port.status, PortStatus::Down | PortStatus::Error))
        .filter_map(|port| Some((plugged.get(&port.id)?.key(), port.id)))
        .collect();
    for (key, id) in dead.iter().take(NAMED) {
        let detail = format!("its port {id} is plugged, and Neutron says that it is down");
        let fix = "look at the network agent (for OVN: ovn-controller) of its node";
        checks.push(check(Area::Pods, &key.to_string(), State::Wrong, detail, fix));
    }
    if dead.len() > NAMED {
        let more = format!("{} more ports are down", dead.len() - NAMED);
        checks.push(check(Area::Pods, "...", State::Wrong, more, ""));
    }
}

#[cfg(test)]
#[path = "judge_tests.rs"]
mod tests;
