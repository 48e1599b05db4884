//! What security groups do, as Neutron defines them and OVN was seen to enforce them: a port may send and take what any
//! rule of any of its groups allows; a rule's remote group is the addresses of the ports that carry that group. Replies
//! always pass.

use crate::spec::Traffic;
use ipnet::IpNet;
use kuryr_model::{
    PodUid, SecurityGroupId,
    neutron::{Direction, EtherType, RuleContent},
};
use kuryr_plan::policy::{Compiled, GroupKey, Pod};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

pub(crate) struct Cloud {
    /// The rules that each port obeys.
    ports: BTreeMap<PodUid, Vec<RuleContent>>,
    /// The addresses of the ports that carry each group.
    members: BTreeMap<SecurityGroupId, BTreeSet<IpAddr>>,
}

impl Cloud {
    /// Makes groups and ports. Fails where Neutron would: on a rule that it refuses, a second one of the same content,
    /// a group that is not there.
    pub(crate) fn new<'a>(compiled: &Compiled, pods: impl Iterator<Item = &'a Pod>) -> Result<Self, String> {
        let open = [GroupKey::IngressOpen, GroupKey::EgressOpen];
        if let Some(key) = open.iter().find(|key| compiled.groups.contains_key(key)) {
            return Err(format!("{key} is made by setup"));
        }
        let ids: BTreeMap<&GroupKey, SecurityGroupId> =
            open.iter().chain(compiled.groups.keys()).zip(1..).map(|(key, number)| (key, id(number))).collect();
        let mut rules: BTreeMap<&GroupKey, Vec<RuleContent>> = BTreeMap::new();
        for (key, direction) in open.iter().zip([Direction::Ingress, Direction::Egress]) {
            let families = [EtherType::IPv4, EtherType::IPv6];
            rules.insert(key, families.map(|family| RuleContent::everything(direction, family)).to_vec());
        }
        for (key, wanted) in &compiled.groups {
            let mut made = BTreeSet::new();
            for rule in wanted {
                let content =
                    rule.content(|key| ids.get(key).copied()).ok_or(format!("{key}: {rule}: no such group"))?;
                check(&content).map_err(|error| format!("{key}: {rule}: {error}"))?;
                if !made.insert(content) {
                    return Err(format!("{key}: {rule} is there twice"));
                }
            }
            rules.insert(key, made.into_iter().collect());
        }
        let mut cloud = Self { ports: BTreeMap::new(), members: BTreeMap::new() };
        for pod in pods {
            let groups = compiled.pods.get(&pod.uid).ok_or(format!("pod {} has no groups", pod.key))?;
            let port = cloud.ports.entry(pod.uid.clone()).or_default();
            for key in groups {
                let id = ids.get(key).ok_or(format!("pod {} has {key}, which is not there", pod.key))?;
                port.extend(rules.get(key).into_iter().flatten().cloned());
                cloud.members.entry(*id).or_default().extend(&pod.addresses);
            }
        }
        match compiled.pods.len() == cloud.ports.len() {
            true => Ok(cloud),
            false => Err("there are groups for pods that have none".to_owned()),
        }
    }

    /// As Neutron has it: the groups of each pod's port, and their rules.
    pub(crate) fn of_ports<'a>(
        ports: impl Iterator<Item = (&'a PodUid, &'a BTreeSet<SecurityGroupId>)>,
        rules: impl Fn(SecurityGroupId) -> Vec<RuleContent>,
        addresses: impl Fn(&PodUid) -> BTreeSet<IpAddr>,
    ) -> Self {
        let mut cloud = Self { ports: BTreeMap::new(), members: BTreeMap::new() };
        for (pod, groups) in ports {
            let port = cloud.ports.entry(pod.clone()).or_default();
            for id in groups {
                port.extend(rules(*id));
                cloud.members.entry(*id).or_default().extend(addresses(pod));
            }
        }
        cloud
    }

    /// Whether a port may send there.
    pub(crate) fn sends(&self, pod: &Pod, to: IpAddr, traffic: Traffic) -> bool {
        self.passes(pod, Direction::Egress, to, traffic)
    }

    /// Whether a port takes what comes from there.
    pub(crate) fn receives(&self, pod: &Pod, from: IpAddr, traffic: Traffic) -> bool {
        self.passes(pod, Direction::Ingress, from, traffic)
    }

    fn passes(&self, pod: &Pod, direction: Direction, remote: IpAddr, traffic: Traffic) -> bool {
        let family = if remote.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
        self.ports.get(&pod.uid).into_iter().flatten().any(|rule| {
            rule.direction == direction
                && rule.ethertype == family
                && is_of(rule, traffic)
                && self.is_remote(rule, remote)
        })
    }

    fn is_remote(&self, rule: &RuleContent, remote: IpAddr) -> bool {
        let by_group = |id| self.members.get(&id).is_some_and(|members| members.contains(&remote));
        rule.remote_ip_prefix.is_none_or(|net| net.contains(&remote)) && rule.remote_group_id.is_none_or(by_group)
    }
}

fn is_of(rule: &RuleContent, traffic: Traffic) -> bool {
    let Some(protocol) = &rule.protocol else { return true };
    let Traffic::To(wanted, number) = traffic else { return false };
    let (first, last) = (rule.port_range_min.unwrap_or(1), rule.port_range_max.unwrap_or(u16::MAX));
    *protocol == wanted.to_string().to_lowercase() && first <= number && number <= last
}

/// What Neutron refuses in a rule.
fn check(rule: &RuleContent) -> Result<(), &'static str> {
    let family = |net: IpNet| if net.addr().is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
    match (rule.port_range_min, rule.port_range_max) {
        (Some(_), Some(_)) if rule.protocol.is_none() => return Err("port numbers need a protocol"),
        (Some(first), Some(last)) if first == 0 || first > last => return Err("wrong port numbers"),
        (None, None) | (Some(_), Some(_)) => {}
        _ => return Err("one of two port numbers"),
    }
    match rule.remote_ip_prefix {
        Some(net) if family(net) != rule.ethertype => Err("addresses of the other family"),
        Some(net) if net != net.trunc() => Err("host bits"),
        Some(net) if net.prefix_len() == 0 => Err("the same as a rule without addresses"),
        Some(_) if rule.remote_group_id.is_some() => Err("addresses and a group"),
        _ => Ok(()),
    }
}

fn id(number: u32) -> SecurityGroupId {
    format!("00000000-0000-0000-0000-{number:012x}").parse().unwrap()
}
