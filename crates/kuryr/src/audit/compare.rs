//! What should be there and what is: pure.

use super::{
    base::{self, Marked},
    machines::machines,
    policies::policies,
    services::services,
};
use crate::{
    setup::group_differs,
    view::{ClusterView, PodView, Unreadable, overdue},
};
use jiff::Timestamp;
use kuryr_controller::{policy_survey::Survey as Policies, survey::Survey};
use kuryr_model::{
    ClusterId, FloatingIpId, KuryrPort, LoadBalancerId, Mark, NetworkId, ObjectKey, PodUid, PortId, Purpose, RouterId,
    SecurityGroupId, Vif,
    mark::Base,
    neutron::{AddressPair, Port, SecurityGroup, Trunk},
    vif::PlugDriver,
};
use serde::{Deserialize, Serialize};
use std::{
    collections::{BTreeMap, BTreeSet},
    path::PathBuf,
};

/// How a thing is wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Kind {
    /// It should be there.
    Missing,
    /// It is not what another thing says of it.
    Mismatch,
    /// Nobody wants it.
    Stray,
}

impl Kind {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Mismatch => "mismatch",
            Self::Stray => "stray",
        }
    }
}

/// One thing that is wrong. Nodes report in the same form.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Finding {
    /// How.
    pub(crate) kind: Kind,
    /// What sort of thing: `port`, `KuryrPort`, `security group`, `link`.
    pub(crate) subject: String,
    /// Which one.
    pub(crate) id: String,
    /// What is wrong, for people.
    pub(crate) what: String,
    /// What to do, for people.
    pub(crate) fix: String,
    /// How it can be pruned, if it can.
    #[serde(skip)]
    pub(crate) prune: Option<Prunable>,
}

/// What may be deleted, because nobody wants it.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Prunable {
    /// Of the pod with this UID.
    Port(PortId, PodUid),
    /// Of a pool, and there are none.
    SparePort(PortId),
    /// With all that is on it.
    Network(NetworkId),
    Router(RouterId),
    /// By UID, so that one made since under the same name is left alone.
    KuryrPort(ObjectKey, String),
    LoadBalancer(LoadBalancerId),
    FloatingIp(FloatingIpId),
    SecurityGroup(SecurityGroupId),
    /// By UID, too.
    KuryrLoadBalancer(ObjectKey, String),
    /// On a node: by the daemon that has this socket, which knows best what nobody wants there.
    OnNode(PathBuf),
}

/// All that is compared.
#[derive(Debug)]
pub(crate) struct World {
    pub(crate) cluster: ClusterId,
    pub(crate) now: Timestamp,
    /// There are port pools.
    pub(crate) pools: bool,
    pub(crate) view: ClusterView,
    /// Those with our tag, and those that `KuryrPort`s name.
    pub(crate) ports: Vec<Port>,
    /// Those with our tag.
    pub(crate) groups: Vec<SecurityGroup>,
    /// Those of virtual machines that have pods.
    pub(crate) trunks: Vec<Trunk>,
    /// What the ports of such machines may use besides their own addresses, where pods share them.
    pub(crate) pairs: BTreeMap<PortId, Vec<AddressPair>>,
    /// What else there is with our tag.
    pub(crate) marked: Marked,
    /// Services, and what they have.
    pub(crate) services: Survey,
    /// NetworkPolicies, and what is left to do for them.
    pub(crate) policies: Policies,
}

/// Everything that is wrong.
pub(crate) fn compare(world: &World) -> Vec<Finding> {
    let mut findings = Vec::new();
    pods(world, &mut findings);
    kuryr_ports(world, &mut findings);
    machines(world, &mut findings);
    for Unreadable { key, why } in &world.view.unreadable {
        let what = format!("it cannot be read: {why}");
        findings.push(finding(Kind::Mismatch, "KuryrPort", key, what, Unreadable::FIX));
    }
    strays(world, &mut findings);
    groups(world, &mut findings);
    base::strays(&world.cluster, &world.marked, &world.services, &mut findings);
    services(&world.cluster, world.now, &world.services, &mut findings);
    policies(&world.policies, &mut findings);
    findings.sort();
    findings
}

/// Those of `second` that `first` had too.
pub(crate) fn lasting(first: &[Finding], second: Vec<Finding>) -> Vec<Finding> {
    second.into_iter().filter(|finding| first.iter().any(|before| before.key() == finding.key())).collect()
}

impl Finding {
    /// Which thing it is about, and how that is wrong.
    pub(crate) fn key(&self) -> (Kind, &str, &str) {
        (self.kind, &self.subject, &self.id)
    }
}

pub(super) fn finding(kind: Kind, subject: &str, id: &dyn ToString, what: String, fix: &str) -> Finding {
    Finding { kind, subject: subject.to_owned(), id: id.to_string(), what, fix: fix.to_owned(), prune: None }
}

/// Pods that want ports and have none.
fn pods(world: &World, findings: &mut Vec<Finding>) {
    let held: BTreeMap<_, _> = world.view.kuryr_ports.iter().map(|port| (port.key(), port)).collect();
    let readable = |pod: &&PodView| pod.wants_ports() && world.view.unreadable(&pod.key).is_none();
    for pod in world.view.pods.iter().filter(readable) {
        let port = held.get(&pod.key).filter(|port| port.spec.pod_uid == pod.uid);
        let Some(port) = port else {
            let what = "the pod is bound and has no KuryrPort".to_owned();
            let fix = "the controller makes it; if it does not: kuryr status";
            findings.push(finding(Kind::Missing, "KuryrPort", &pod.key, what, fix));
            continue;
        };
        if port.spec.vifs.is_empty() {
            let why = port.unallocated_reason().map_or("and does not say why", |condition| &condition.message);
            let what = format!("pod {} has no port: {why}", pod.key);
            findings.push(finding(Kind::Missing, "port", &pod.key, what, "remove the reason"));
            continue;
        }
        let given: BTreeSet<_> = port.spec.vifs.iter().flat_map(|vif| &vif.addresses).map(|a| a.ip).collect();
        let odd: Vec<_> = pod.addresses.iter().filter(|ip| !given.contains(ip)).map(ToString::to_string).collect();
        if !odd.is_empty() {
            let what = format!("the pod says that it has {}, its KuryrPort does not", odd.join(", "));
            findings.push(finding(Kind::Mismatch, "pod", &pod.key, what, "delete the pod"));
        }
    }
}

fn kuryr_ports(world: &World, findings: &mut Vec<Finding>) {
    let pods: BTreeMap<_, _> = world.view.pods.iter().map(|pod| (&pod.uid, pod)).collect();
    let ports: BTreeMap<_, _> = world.ports.iter().map(|port| (port.id, port)).collect();
    let hosts: BTreeMap<_, _> = world.view.nodes.iter().map(|node| (node.name.as_str(), &*node.host.name)).collect();
    let mut holders: BTreeMap<PortId, ObjectKey> = BTreeMap::new();
    for held in &world.view.kuryr_ports {
        let key = held.key();
        let wanted = pods.get(&held.spec.pod_uid).is_some_and(|pod| pod.key == key && pod.may_hold_ports());
        if !wanted {
            findings.extend(unwanted(world.now, held));
        }
        for vif in &held.spec.vifs {
            let id = vif.port_id;
            if let Some(other) = holders.insert(id, key.clone()) {
                let what = format!("both KuryrPort {other} and KuryrPort {key} have it");
                findings.push(finding(Kind::Mismatch, "port", &id, what, "delete one of the two pods"));
            }
            // On its way out the port goes before its KuryrPort.
            if held.deleting() {
                continue;
            }
            match ports.get(&id) {
                None => {
                    let what = format!("KuryrPort {key} has it, Neutron does not");
                    findings.push(finding(Kind::Missing, "port", &id, what, "delete the pod, so that it gets another"));
                }
                Some(port) => {
                    let host = hosts.get(held.spec.node_name.as_str()).copied();
                    let differences = differences(&world.cluster, &held.spec.pod_uid, host, vif, port);
                    if !differences.is_empty() {
                        let what = format!("is not as KuryrPort {key} says: {}", differences.join("; "));
                        let fix = "somebody changed it: undo that, or delete the pod";
                        findings.push(finding(Kind::Mismatch, "port", &id, what, fix));
                    }
                }
            }
        }
    }
}

/// A `KuryrPort` whose pod is gone, completed, or another one.
fn unwanted(now: Timestamp, held: &KuryrPort) -> Option<Finding> {
    let key = held.key();
    if !held.deleting() {
        let uid = held.metadata.uid.clone().unwrap_or_default();
        let what = format!("its pod (UID {}) is gone or has ended", held.spec.pod_uid);
        let mut finding = finding(Kind::Stray, "KuryrPort", &key, what, "prune it: kuryr audit --fix");
        finding.prune = Some(Prunable::KuryrPort(key, uid));
        return Some(finding);
    }
    let (what, fix) = overdue(now, held)?;
    Some(finding(Kind::Stray, "KuryrPort", &key, what, fix))
}

fn differences(cluster: &ClusterId, uid: &PodUid, host: Option<&str>, vif: &Vif, port: &Port) -> Vec<String> {
    let mut all = Vec::new();
    let mut differ = |what: &str, wanted: &str, found: &str| {
        if wanted != found {
            all.push(format!("{what} is {found:?} instead of {wanted:?}"));
        }
    };
    let list = |ips: BTreeSet<String>| ips.into_iter().collect::<Vec<_>>().join(" ");
    let wanted = list(vif.addresses.iter().map(|address| address.ip.to_string()).collect());
    let found = list(port.fixed_ips.iter().map(|address| address.ip_address.to_string()).collect());
    // Pods of that kind have the machine's.
    if vif.plug.driver != PlugDriver::Ipvlan {
        differ("the MAC address", &vif.mac.to_string(), &port.mac_address.to_string());
    }
    differ("the addresses", &wanted, &found);
    differ("the network", &vif.network_id.to_string(), &port.network_id.to_string());
    // One of a pool says nothing of pods: its KuryrPort alone tells whose it is. What has a device comes to no trunk.
    let of_pool = Mark::read(cluster, &port.tags).is_some_and(|mark| mark.purpose == Purpose::Pool);
    if !of_pool {
        differ("device_id", if vif.plug.driver == PlugDriver::Vlan { "" } else { uid.as_str() }, &port.device_id);
    }
    if let Some(host) = host.filter(|_| !vif.plug.driver.is_nested()) {
        differ("binding:host_id", host, &port.host_id);
    }
    let mark = Mark { cluster: cluster.clone(), purpose: Purpose::Pod(uid.clone()) };
    let tags = Mark::read(cluster, &port.tags).map_or_else(|| port.tags.join(" "), |mark| mark.tags().join(" "));
    if !of_pool {
        differ("its mark", &mark.tags().join(" "), &tags);
    }
    all
}

/// Ports with our mark that no `KuryrPort` has.
fn strays(world: &World, findings: &mut Vec<Finding>) {
    let held: BTreeSet<_> = world.view.kuryr_ports.iter().flat_map(KuryrPort::port_ids).collect();
    for port in world.ports.iter().filter(|port| !held.contains(&port.id)) {
        let uid = match Mark::read(&world.cluster, &port.tags).map(|mark| mark.purpose) {
            Some(Purpose::Pod(uid)) => uid,
            Some(Purpose::Pool) => {
                findings.extend(spare(world, port));
                continue;
            }
            Some(Purpose::Service(_) | Purpose::Group(_) | Purpose::Base(_)) | None => continue,
        };
        // Ports are named like their pods: this one may be in what cannot be read.
        if world.view.unreadable.iter().any(|unreadable| unreadable.key.to_string() == port.name) {
            continue;
        }
        let name = if port.name.is_empty() { String::new() } else { format!(" {}", port.name) };
        let what = format!("made for pod{name} (UID {uid}), and no KuryrPort has it");
        // The controller may be about to hand it out, or, after a restart, to find and use it.
        let mut pods = world.view.pods.iter();
        if pods.any(|pod| pod.uid == uid && pod.node.is_some() && pod.may_hold_ports()) {
            let fix = "the controller gives it to the pod; if it does not: kuryr status";
            findings.push(finding(Kind::Stray, "port", &port.id, what, fix));
            continue;
        }
        let mut finding = finding(Kind::Stray, "port", &port.id, what, "prune it: kuryr audit --fix");
        finding.prune = Some(Prunable::Port(port.id, uid));
        findings.push(finding);
    }
}

/// A port of a pool that no readable `KuryrPort` has.
fn spare(world: &World, port: &Port) -> Option<Finding> {
    // What cannot be read may have it.
    if !world.view.unreadable.is_empty() {
        return None;
    }
    if !world.pools {
        let what = "made for a port pool, and [pools] enabled is false".to_owned();
        let mut finding = finding(Kind::Stray, "port", &port.id, what, "prune it: kuryr audit --fix");
        finding.prune = Some(Prunable::SparePort(port.id));
        return Some(finding);
    }
    let subport = port.device_owner == "trunk:subport";
    if port.host_id.is_empty() && !subport {
        let what = "made for the port pool of a virtual machine, and on no trunk".to_owned();
        let fix = "the controller deletes it; if it does not: kuryr status";
        return Some(finding(Kind::Stray, "port", &port.id, what, fix));
    }
    // Whose a trunk is, the controller finds out; a subport has the host of its machine.
    if !subport && world.view.nodes.iter().all(|node| *node.host.name != port.host_id) {
        let what = format!("made for the port pool of node {:?}, which is not there", port.host_id);
        return Some(finding(
            Kind::Stray,
            "port",
            &port.id,
            what,
            "the controller deletes it; if it does not: kuryr status",
        ));
    }
    let role = |group: &&SecurityGroup| {
        let mark = Mark::read(&world.cluster, &group.tags);
        mark.is_some_and(|mark| matches!(mark.purpose, Purpose::Base(Base::IngressOpen | Base::EgressOpen)))
    };
    let open: BTreeSet<SecurityGroupId> = world.groups.iter().filter(role).map(|group| group.id).collect();
    if port.security_groups.iter().copied().collect::<BTreeSet<_>>() != open {
        let what = "is spare and has other security groups than kuryr-ingress-open and kuryr-egress-open".to_owned();
        let fix = "somebody changed it: delete it, the controller makes another";
        return Some(finding(Kind::Mismatch, "port", &port.id, what, fix));
    }
    None
}

fn groups(world: &World, findings: &mut Vec<Finding>) {
    for base in [Base::IngressOpen, Base::EgressOpen] {
        let purpose = Purpose::Base(base);
        let role = |group: &&SecurityGroup| {
            Mark::read(&world.cluster, &group.tags).is_some_and(|mark| mark.purpose == purpose)
        };
        let found: Vec<_> = world.groups.iter().filter(role).collect();
        match &found[..] {
            [] => {
                let what = "no security group has this tag".to_owned();
                findings.push(finding(Kind::Missing, "security group", &purpose, what, "make it: kuryr setup"));
            }
            [group] if group_differs(base, group) => {
                let what = format!("{} has other rules than it should", group.name);
                findings.push(finding(Kind::Mismatch, "security group", &group.id, what, "put it right: kuryr setup"));
            }
            [_] => {}
            several => {
                for group in several {
                    let what = format!("{} groups have the tag {purpose}", several.len());
                    let fix = "delete those that no port uses";
                    findings.push(finding(Kind::Mismatch, "security group", &group.id, what, fix));
                }
            }
        }
    }
}

#[cfg(test)]
#[path = "compare_tests.rs"]
mod tests;
