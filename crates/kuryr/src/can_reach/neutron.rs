//! What Neutron's security groups do with a connection at this moment, from what Neutron says that they are.

use kuryr_model::{
    ObjectKey, PortId, SecurityGroupId,
    neutron::{Direction, EtherType, Port, RuleContent, SecurityGroup},
};
use kuryr_plan::policy::{ListenerKey, Protocol, Side, Way, World};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// What Neutron does with one way; `None` where it has no say, or is not asked.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Now {
    pub(crate) sends: Option<bool>,
    pub(crate) receives: Option<bool>,
}

/// What was read of Neutron.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    /// The groups of each pod's port, by the port's addresses.
    carried: BTreeMap<IpAddr, BTreeSet<SecurityGroupId>>,
    /// The rules of each group.
    rules: BTreeMap<SecurityGroupId, Vec<RuleContent>>,
}

impl Groups {
    pub(crate) fn new(ports: &[Port], groups: &[SecurityGroup]) -> Self {
        let carried = ports.iter().flat_map(|port| {
            let groups: BTreeSet<SecurityGroupId> = port.security_groups.iter().copied().collect();
            port.fixed_ips.iter().map(move |fixed| (fixed.ip_address, groups.clone()))
        });
        let rules = groups.iter().map(|group| (group.id, group.rules.iter().map(|rule| rule.allows.clone()).collect()));
        Self { carried: carried.collect(), rules: rules.collect() }
    }

    /// What Neutron does with a way, as far as its ends are ports that were read.
    pub(crate) fn now(&self, world: &World, way: &Way) -> Now {
        let (Some(from), Some(to)) = (way.from, way.to) else { return Now::default() };
        let itself = way.sends == Side::Itself;
        if itself && way.through.is_none() {
            // It never leaves the pod.
            return Now::default();
        }
        let sent_to =
            |listener: ListenerKey| self.lets(Direction::Egress, from, listener.vip, way.protocol, listener.number);
        let sends = self.lets(Direction::Egress, from, to, way.protocol, way.number);
        // The first packet is seen with the Service's address, the later ones with the endpoint's.
        let first = way.through.map_or(Some(true), sent_to);
        let hidden = way.through.filter(|listener| itself || hides_client(world, *listener));
        let seen = hidden.map_or(from, |listener| listener.vip);
        Now {
            sends: way.sender.as_ref().and(sends.zip(first)).map(|(one, other)| one && other),
            receives: way.pod.as_ref().and(self.lets(Direction::Ingress, to, seen, way.protocol, way.number)).map(
                // What the pod cannot see, the listener does, by what policies come to.
                |lets| {
                    lets && (!way.through.is_some_and(|listener| is_guarded(world, listener)) || way.receives.passes())
                },
            ),
        }
    }

    /// Whether the port with the address `own` lets through what comes from (goes to) `other`.
    fn lets(&self, direction: Direction, own: IpAddr, other: IpAddr, protocol: Protocol, number: u16) -> Option<bool> {
        let carried = self.carried.get(&own)?;
        let none = BTreeSet::new();
        let others = self.carried.get(&other).unwrap_or(&none);
        let family = if other.is_ipv4() { EtherType::IPv4 } else { EtherType::IPv6 };
        let matches = |rule: &RuleContent| {
            rule.direction == direction
                && rule.ethertype == family
                && rule.protocol.as_deref().is_none_or(|name| is_protocol(name, protocol))
                && rule.port_range_min.is_none_or(|first| first <= number)
                && rule.port_range_max.is_none_or(|last| number <= last)
                && rule.remote_ip_prefix.is_none_or(|prefix| prefix.contains(&other))
                && rule.remote_group_id.is_none_or(|group| others.contains(&group))
        };
        Some(carried.iter().filter_map(|id| self.rules.get(id)).flatten().any(matches))
    }
}

/// Neutron takes numbers for protocols, too.
fn is_protocol(name: &str, protocol: Protocol) -> bool {
    let number = match protocol {
        Protocol::Tcp => "6",
        Protocol::Udp => "17",
        Protocol::Sctp => "132",
    };
    name == protocol.as_neutron() || name == number || matches!(name, "any" | "0")
}

fn hides_client(world: &World, listener: ListenerKey) -> bool {
    world.services.values().any(|service| service.hides_client && service.vips.contains(&listener.vip))
}

fn is_guarded(world: &World, listener: ListenerKey) -> bool {
    world.services.values().any(|service| service.guard.is_some() && service.vips.contains(&listener.vip))
}

/// The Neutron ports of the pods on these ways.
pub(crate) fn concerned(ways: &[Way], ports: &BTreeMap<ObjectKey, Vec<PortId>>) -> BTreeSet<PortId> {
    let pods = ways.iter().flat_map(|way| way.sender.iter().chain(&way.pod));
    pods.filter_map(|key| ports.get(key)).flatten().copied().collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use kuryr_plan::policy::{Place, Pod, compile, reach};
    use serde_json::{Value, json};

    fn id(n: u8) -> String {
        format!("00000000-0000-4000-8000-0000000000{n:02x}")
    }

    fn port(address: &str, groups: &[u8]) -> Port {
        let groups: Vec<String> = groups.iter().map(|n| id(*n)).collect();
        let fixed = json!([{"subnet_id": id(250), "ip_address": address}]);
        let value = json!({
            "id": id(200), "network_id": id(251), "mac_address": "fa:16:3e:00:00:01", "fixed_ips": fixed, "security_groups": groups,
        });
        serde_json::from_value(value).unwrap()
    }

    fn group(n: u8, rules: &[Value]) -> SecurityGroup {
        let rule = |(index, rule): (usize, &Value)| {
            let mut whole =
                json!({"id": id(100 + u8::try_from(index).unwrap()), "security_group_id": id(n), "ethertype": "IPv4"});
            whole.as_object_mut().unwrap().extend(rule.as_object().unwrap().clone());
            whole
        };
        let rules: Vec<Value> = rules.iter().enumerate().map(rule).collect();
        serde_json::from_value(json!({"id": id(n), "security_group_rules": rules})).unwrap()
    }

    fn pod(name: &str, address: &str) -> Pod {
        Pod {
            key: ObjectKey::new("a", name),
            uid: name.into(),
            node: None,
            labels: [].into(),
            addresses: [address.parse().unwrap()].into(),
            host_network: false,
            completed: false,
            ports: vec![],
        }
    }

    /// Whether 10.0.0.1 is let out to 10.0.0.2 at TCP 80, and in there.
    fn now(ports: &[Port], groups: &[SecurityGroup]) -> (Option<bool>, Option<bool>) {
        let mut world = World::default();
        for pod in [pod("web", "10.0.0.1"), pod("db", "10.0.0.2")] {
            world.pods.insert(pod.key.clone(), pod);
        }
        assert!(compile(kuryr_plan::policy::Settings::default(), &world).groups.is_empty());
        let place = |name: &str| Place::Pod(ObjectKey::new("a", name));
        let verdict = reach(&world, &place("web"), &place("db"), Protocol::Tcp, 80).unwrap();
        let Now { sends, receives } = Groups::new(ports, groups).now(&world, &verdict.ways[0]);
        (sends, receives)
    }

    #[test]
    fn a_port_lets_through_what_a_rule_of_one_of_its_groups_means_and_nothing_else() {
        let egress = json!({"direction": "egress"});
        for (rule, passes) in [
            (json!({"direction": "ingress"}), true),
            (json!({"direction": "egress"}), false),
            (json!({"direction": "ingress", "ethertype": "IPv6"}), false),
            (json!({"direction": "ingress", "protocol": "tcp", "port_range_min": 80, "port_range_max": 90}), true),
            (json!({"direction": "ingress", "protocol": "6", "port_range_min": 81, "port_range_max": 90}), false),
            (json!({"direction": "ingress", "protocol": "udp"}), false),
            (json!({"direction": "ingress", "remote_ip_prefix": "10.0.0.1/32"}), true),
            (json!({"direction": "ingress", "remote_ip_prefix": "10.0.0.2/32"}), false),
            (json!({"direction": "ingress", "remote_group_id": id(1)}), true),
            (json!({"direction": "ingress", "remote_group_id": id(2)}), false),
        ] {
            let ports = [port("10.0.0.1", &[1]), port("10.0.0.2", &[2])];
            let groups = [group(1, std::slice::from_ref(&egress)), group(2, std::slice::from_ref(&rule))];
            assert_eq!(now(&ports, &groups), (Some(true), Some(passes)), "{rule}");
        }
    }

    #[test]
    fn a_port_without_groups_lets_nothing_through_and_nothing_is_said_of_one_that_was_not_read() {
        assert_eq!(now(&[port("10.0.0.1", &[])], &[]), (Some(false), None));
    }
}
