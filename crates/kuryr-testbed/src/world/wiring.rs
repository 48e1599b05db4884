//! Joins the embedded cloud to the embedded data plane: what the one wants is what the other is told.

use crate::{
    cloud::{self, Cloud},
    dataplane,
};
use kuryr_model::{
    PortId, SecurityGroupId, SubnetId,
    neutron::{Direction, EtherType, RuleContent},
};
use std::{net::IpAddr, sync::Arc};
use tokio::sync::watch;
use tokio_util::task::AbortOnDropHandle;

/// Tells a data plane all that changes in a cloud, until it is dropped.
pub(super) struct Wire {
    _task: AbortOnDropHandle<()>,
    /// What the data plane is to be made to be.
    pub(super) desired: watch::Receiver<Arc<dataplane::Snapshot>>,
}

impl Wire {
    pub(super) fn new(cloud: &Cloud) -> Self {
        let mut changes = cloud.subscribe();
        let (sender, desired) = watch::channel(Arc::new(snapshot(&cloud.snapshot())));
        let cloud = cloud.clone();
        let task = tokio::spawn(async move {
            while changes.changed().await.is_ok() {
                sender.send_replace(Arc::new(snapshot(&cloud.snapshot())));
            }
        });
        Self { _task: AbortOnDropHandle::new(task), desired }
    }
}

/// What packets can see of a cloud.
fn snapshot(cloud: &cloud::Snapshot) -> dataplane::Snapshot {
    let bound = cloud.ports.iter().filter(|(_, port)| !port.host.is_empty());
    let ports = bound.filter_map(|(id, view)| Some((PortId(*id), port(view)?))).collect();
    let groups = cloud
        .security_groups
        .iter()
        .map(|(id, group)| (SecurityGroupId(*id), group.rules.iter().flat_map(rules).collect()));
    let subnets = cloud.subnets.iter().map(|(id, view)| {
        let external = cloud.networks.get(&view.network).is_some_and(|network| network.external);
        (SubnetId(*id), dataplane::Subnet { net: view.cidr, external })
    });
    let routers = cloud.routers.values().filter(|router| router.admin_state_up).map(|router| {
        let ports = router.interfaces.iter().filter_map(|id| cloud.ports.get(id));
        let interfaces = ports.flat_map(|port| port.fixed_ips.iter().map(|(subnet, ip)| (SubnetId(*subnet), *ip)));
        dataplane::Router { interfaces: interfaces.collect(), external: router.gateway.is_some() }
    });
    let balancers = cloud.load_balancers.iter().filter(|balancer| balancer.admin_state_up);
    dataplane::Snapshot {
        ports,
        groups: groups.collect(),
        subnets: subnets.collect(),
        routers: routers.collect(),
        load_balancers: balancers.map(load_balancer).collect(),
        floating_ips: cloud.floating_ips.iter().filter_map(floating_ip).collect(),
    }
}

fn load_balancer(view: &cloud::LoadBalancerView) -> dataplane::LoadBalancer {
    let listeners = view.listeners.iter().filter(|listener| listener.admin_state_up).map(|listener| {
        let members = listener.members.iter().map(|member| dataplane::Member {
            ip: member.address,
            number: member.port,
            weight: member.weight,
            online: member.online,
        });
        dataplane::Listener {
            protocol: protocol(&listener.protocol),
            number: listener.port,
            clients: listener.allowed_cidrs.clone(),
            sticky: listener.source_ip_affinity,
            members: members.collect(),
        }
    });
    dataplane::LoadBalancer {
        // What is no OVN has machines of its own in some form.
        provider: if view.provider == "ovn" { dataplane::Provider::Ovn } else { dataplane::Provider::Amphora },
        vips: view.vips.clone(),
        listeners: listeners.collect(),
    }
}

/// What a listener's protocol is on the wire: all but two are ways to use TCP.
fn protocol(name: &str) -> u8 {
    match name {
        "UDP" => 17,
        "SCTP" => 132,
        _ => 6,
    }
}

/// Neutron has none for IPv6.
fn floating_ip(view: &cloud::FloatingIpView) -> Option<dataplane::FloatingIp> {
    match (view.floating, view.fixed) {
        (IpAddr::V4(floating), IpAddr::V4(fixed)) => {
            Some(dataplane::FloatingIp { floating, fixed, port: PortId(view.port) })
        }
        _ => None,
    }
}

fn port(view: &cloud::PortView) -> Option<dataplane::Port> {
    let pairs = view.allowed_address_pairs.iter().filter_map(|pair| {
        Some(dataplane::Pair {
            mac: pair.mac.parse().ok(),
            net: pair.ip.parse().or_else(|_| pair.ip.parse().map(|ip: IpAddr| ip.into())).ok()?,
        })
    });
    Some(dataplane::Port {
        host: view.host.clone(),
        mac: view.mac.parse().ok()?,
        ips: view.fixed_ips.iter().map(|(_, ip)| *ip).collect(),
        groups: view.security_groups.iter().map(|id| SecurityGroupId(*id)).collect(),
        port_security: view.port_security,
        pairs: pairs.collect(),
        up: view.admin_state_up,
    })
}

/// What a rule is worth: one that admits an address group is one for each of its addresses.
fn rules(view: &cloud::RuleView) -> Vec<RuleContent> {
    let Some(addresses) = &view.remote_addresses else { return vec![rule(view)] };
    let of_family = addresses.iter().filter(|net| net.addr().is_ipv6() == view.v6);
    of_family.map(|net| RuleContent { remote_ip_prefix: Some(*net), ..rule(view) }).collect()
}

fn rule(view: &cloud::RuleView) -> RuleContent {
    RuleContent {
        direction: if view.ingress { Direction::Ingress } else { Direction::Egress },
        ethertype: if view.v6 { EtherType::IPv6 } else { EtherType::IPv4 },
        protocol: view.protocol.clone(),
        port_range_min: view.port_range_min,
        port_range_max: view.port_range_max,
        remote_ip_prefix: view.remote_ip_prefix,
        remote_group_id: view.remote_group.map(SecurityGroupId),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cloud::{FloatingIpView, ListenerView, LoadBalancerView, MemberView, NetworkView, SubnetView};
    use uuid::Uuid;

    fn listener(protocol: &str, port: u16, up: bool) -> ListenerView {
        let member =
            MemberView { address: IpAddr::from([10, 0, 0, 5]), port: 8080, weight: 0, subnet: None, online: false };
        ListenerView {
            protocol: protocol.into(),
            port,
            allowed_cidrs: vec!["10.0.0.0/8".parse().unwrap()],
            source_ip_affinity: true,
            members: vec![member],
            admin_state_up: up,
        }
    }

    fn balancer(provider: &str, up: bool, listeners: Vec<ListenerView>) -> LoadBalancerView {
        LoadBalancerView {
            id: Uuid::new_v4(),
            provider: provider.into(),
            admin_state_up: up,
            vip_port: Uuid::new_v4(),
            vips: vec![[10, 0, 0, 9].into()],
            listeners,
        }
    }

    #[test]
    fn load_balancers_are_told_of_as_far_as_they_pass_traffic() {
        let listeners = ["TCP", "UDP", "SCTP", "HTTP"]
            .into_iter()
            .zip(80..)
            .map(|(name, port)| listener(name, port, name != "UDP"));
        let cloud = cloud::Snapshot {
            load_balancers: vec![
                balancer("ovn", true, listeners.collect()),
                balancer("amphora", true, Vec::new()),
                balancer("ovn", false, vec![listener("TCP", 80, true)]),
            ],
            ..cloud::Snapshot::default()
        };
        let told = snapshot(&cloud).load_balancers;
        let providers: Vec<_> = told.iter().map(|balancer| balancer.provider).collect();
        assert_eq!(providers, [dataplane::Provider::Ovn, dataplane::Provider::Amphora]);
        let services: Vec<_> = told[0].listeners.iter().map(|listener| (listener.protocol, listener.number)).collect();
        assert_eq!(services, [(6, 80), (132, 82), (6, 83)]);
        let first = &told[0].listeners[0];
        assert!(first.sticky && first.clients.len() == 1);
        let member = dataplane::Member { ip: [10, 0, 0, 5].into(), number: 8080, weight: 0, online: false };
        assert_eq!(first.members, [member]);
    }

    #[test]
    fn a_rule_that_admits_an_address_group_is_worth_its_addresses_of_the_family() {
        let mut view = cloud::RuleView {
            id: Uuid::new_v4(),
            ingress: true,
            v6: false,
            protocol: Some("tcp".into()),
            port_range_min: Some(80),
            port_range_max: Some(90),
            remote_ip_prefix: None,
            remote_group: None,
            remote_addresses: None,
        };
        let open = RuleContent {
            protocol: Some("tcp".into()),
            port_range_min: Some(80),
            port_range_max: Some(90),
            ..RuleContent::everything(Direction::Ingress, EtherType::IPv4)
        };
        assert_eq!(rules(&view), std::slice::from_ref(&open), "one without is worth what it says");
        let nets = ["10.0.0.0/24", "10.0.1.7/32", "fd00::/64"].map(|net| net.parse().unwrap());
        view.remote_addresses = Some(nets.to_vec());
        let expected = |nets: &[ipnet::IpNet], open: &RuleContent| -> Vec<RuleContent> {
            nets.iter().map(|net| RuleContent { remote_ip_prefix: Some(*net), ..open.clone() }).collect()
        };
        assert_eq!(rules(&view), expected(&nets[..2], &open));
        view.v6 = true;
        assert_eq!(rules(&view), expected(&nets[2..], &RuleContent { ethertype: EtherType::IPv6, ..open }));
        view.remote_addresses = Some(Vec::new());
        assert_eq!(rules(&view), [], "an empty one admits nobody");
    }

    #[test]
    fn external_subnets_and_floating_ips_are_told_of() {
        let (network, subnet, port) = (Uuid::new_v4(), Uuid::new_v4(), Uuid::new_v4());
        let mut cloud = cloud::Snapshot::default();
        let view = NetworkView {
            id: network,
            name: "public".into(),
            mtu: 1500,
            admin_state_up: true,
            external: true,
            subnets: vec![subnet],
            tags: Vec::new(),
        };
        cloud.networks.insert(network, view);
        let view = SubnetView {
            id: subnet,
            name: "public".into(),
            network,
            cidr: "172.24.0.0/24".parse().unwrap(),
            gateway: None,
            host_routes: Vec::new(),
            dns_nameservers: Vec::new(),
            tags: Vec::new(),
        };
        cloud.subnets.insert(subnet, view);
        let (floating, fixed) = ([172, 24, 0, 7], [10, 0, 0, 5]);
        cloud.floating_ips = vec![FloatingIpView { floating: floating.into(), fixed: fixed.into(), port }];
        let told = snapshot(&cloud);
        assert!(told.subnets[&SubnetId(subnet)].external);
        let expected = dataplane::FloatingIp { floating: floating.into(), fixed: fixed.into(), port: PortId(port) };
        assert_eq!(told.floating_ips, [expected]);
    }
}
