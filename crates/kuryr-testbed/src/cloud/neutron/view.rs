//! What the data plane reads: the state as typed values.

use std::collections::BTreeMap;
use std::net::IpAddr;

use ipnet::IpNet;
use uuid::Uuid;

pub use super::port_checks::AddressPair;
use super::ports::{Port, PortStatus, ROUTER_INTERFACE};
use super::{AddressGroups, Neutron};

/// A port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PortView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its project's id.
    pub project: String,
    /// Its network.
    pub network: Uuid,
    /// Its MAC address, lower case with colons.
    pub mac: String,
    /// Its addresses, each with its subnet.
    pub fixed_ips: Vec<(Uuid, IpAddr)>,
    /// `binding:host_id`; empty when unbound.
    pub host: String,
    /// `binding:vif_type`.
    pub vif_type: &'static str,
    /// Its security groups. A port with port security and no group drops everything.
    pub security_groups: Vec<Uuid>,
    /// Whether security groups and address checks apply at all.
    pub port_security: bool,
    /// Further addresses that it may use.
    pub allowed_address_pairs: Vec<AddressPair>,
    /// Whether it may pass traffic.
    pub admin_state_up: bool,
    /// What the data plane has said.
    pub status: PortStatus,
    /// What it belongs to.
    pub device_id: String,
    /// What kind of thing it belongs to.
    pub device_owner: String,
    /// Its tags in order.
    pub tags: Vec<String>,
    /// Counts its changes.
    pub revision: u64,
}

/// A network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its MTU in bytes.
    pub mtu: u16,
    /// Whether ports on it may pass traffic.
    pub admin_state_up: bool,
    /// Whether routers may have their gateway on it.
    pub external: bool,
    /// Its subnets in the order in which they were made.
    pub subnets: Vec<Uuid>,
    /// Its tags in order.
    pub tags: Vec<String>,
}

/// A subnet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SubnetView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Its network.
    pub network: Uuid,
    /// Its addresses.
    pub cidr: IpNet,
    /// The next hop of its default route.
    pub gateway: Option<IpAddr>,
    /// Routes that its hosts have: destination and next hop.
    pub host_routes: Vec<(IpNet, IpAddr)>,
    /// Name servers of its hosts.
    pub dns_nameservers: Vec<IpAddr>,
    /// Its tags in order.
    pub tags: Vec<String>,
}

/// A security group.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SecurityGroupView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Whether answers to what it allows are allowed.
    pub stateful: bool,
    /// Its rules in the order in which they were made.
    pub rules: Vec<RuleView>,
    /// Its tags in order.
    pub tags: Vec<String>,
}

/// A rule of a security group: what it allows.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RuleView {
    /// Its id.
    pub id: Uuid,
    /// Towards the port (else from it).
    pub ingress: bool,
    /// For IPv6 (else for IPv4).
    pub v6: bool,
    /// Name or number of the protocol, as in the API; `None` for any.
    pub protocol: Option<String>,
    /// Lowest port number, or ICMP type.
    pub port_range_min: Option<u16>,
    /// Highest port number, or ICMP code.
    pub port_range_max: Option<u16>,
    /// The other side's addresses.
    pub remote_ip_prefix: Option<IpNet>,
    /// The group whose members the other side is one of.
    pub remote_group: Option<Uuid>,
    /// The addresses of the address group that the other side is in, where those are enforced.
    pub remote_addresses: Option<Vec<IpNet>>,
}

/// A router.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RouterView {
    /// Its id.
    pub id: Uuid,
    /// Its name.
    pub name: String,
    /// Whether it routes.
    pub admin_state_up: bool,
    /// Its ports on networks inside; [`Snapshot::ports`] has their addresses.
    pub interfaces: Vec<Uuid>,
    /// The external network of its gateway, and its port there.
    pub gateway: Option<(Uuid, Uuid)>,
    /// Its tags in order.
    pub tags: Vec<String>,
}

/// A load balancer as it was last provisioned: a change counts when the load balancer is `ACTIVE` again, not before.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LoadBalancerView {
    /// Its id.
    pub id: Uuid,
    /// The provider that serves it: `ovn`, `amphora`.
    pub provider: String,
    /// Whether it passes traffic.
    pub admin_state_up: bool,
    /// The port that has its addresses.
    pub vip_port: Uuid,
    /// Its addresses: the VIP, then the additional ones.
    pub vips: Vec<IpAddr>,
    /// Its listeners in the order in which they were made.
    pub listeners: Vec<ListenerView>,
}

/// A listener, with the members of its default pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListenerView {
    /// `TCP`, `UDP`, `SCTP`, `HTTP`, ...
    pub protocol: String,
    /// Its port number.
    pub port: u16,
    /// Who may connect; everyone when empty.
    pub allowed_cidrs: Vec<IpNet>,
    /// Whether one client's connections all go to one member: session persistence by source address.
    pub source_ip_affinity: bool,
    /// Those who answer; none without a default pool, or with one that is administratively down.
    pub members: Vec<MemberView>,
    /// Whether it passes traffic.
    pub admin_state_up: bool,
}

/// A member of a pool that is administratively up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MemberView {
    /// Its address.
    pub address: IpAddr,
    /// Its port number.
    pub port: u16,
    /// Its share of new connections, 0 for none.
    pub weight: u16,
    /// The subnet that it is reached through.
    pub subnet: Option<Uuid>,
    /// False when a health monitor has found it to be away.
    pub online: bool,
}

/// A floating IP that is associated with a port.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FloatingIpView {
    /// The address outside.
    pub floating: IpAddr,
    /// The address inside.
    pub fixed: IpAddr,
    /// The port that has the address inside.
    pub port: Uuid,
}

/// All that a data plane needs, at one moment.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Ports by id.
    pub ports: BTreeMap<Uuid, PortView>,
    /// Networks by id.
    pub networks: BTreeMap<Uuid, NetworkView>,
    /// Subnets by id.
    pub subnets: BTreeMap<Uuid, SubnetView>,
    /// Security groups by id.
    pub security_groups: BTreeMap<Uuid, SecurityGroupView>,
    /// Routers by id.
    pub routers: BTreeMap<Uuid, RouterView>,
    /// Load balancers that have been provisioned, in the order of their ids.
    pub load_balancers: Vec<LoadBalancerView>,
    /// Floating IPs that are associated, in the order of their ids.
    pub floating_ips: Vec<FloatingIpView>,
}

fn tags(tags: &std::collections::BTreeSet<String>) -> Vec<String> {
    tags.iter().cloned().collect()
}

fn port_view(port: &Port) -> PortView {
    PortView {
        id: port.standard.id,
        name: port.standard.name.clone(),
        project: port.standard.project.clone(),
        network: port.network,
        mac: port.mac.clone(),
        fixed_ips: port.fixed_ips.iter().map(|ip| (ip.subnet, ip.address)).collect(),
        host: port.host.clone(),
        vif_type: port.binding.vif_type(),
        security_groups: port.groups.clone(),
        port_security: port.port_security,
        allowed_address_pairs: port.pairs.clone(),
        admin_state_up: port.admin_state_up,
        status: port.status,
        device_id: port.device_id.clone(),
        device_owner: port.device_owner.clone(),
        tags: tags(&port.standard.tags),
        revision: port.standard.revision,
    }
}

fn network_view(network: &super::Network) -> NetworkView {
    NetworkView {
        id: network.standard.id,
        name: network.standard.name.clone(),
        mtu: network.mtu,
        admin_state_up: network.admin_state_up,
        external: network.external,
        subnets: network.subnets.clone(),
        tags: tags(&network.standard.tags),
    }
}

fn subnet_view(subnet: &super::Subnet) -> SubnetView {
    SubnetView {
        id: subnet.standard.id,
        name: subnet.standard.name.clone(),
        network: subnet.network,
        cidr: subnet.cidr,
        gateway: subnet.gateway,
        host_routes: subnet.host_routes.clone(),
        dns_nameservers: subnet.dns_nameservers.clone(),
        tags: tags(&subnet.standard.tags),
    }
}

impl Neutron {
    pub(crate) fn port(&self, id: Uuid) -> Option<PortView> {
        self.ports.get(id).map(port_view)
    }

    pub(crate) fn port_views(&self) -> Vec<PortView> {
        self.ports.iter().map(port_view).collect()
    }

    pub(crate) fn snapshot(&self) -> Snapshot {
        Snapshot {
            ports: self.ports.iter().map(|port| (port.standard.id, port_view(port))).collect(),
            networks: self.network_views(),
            subnets: self.subnet_views(),
            security_groups: self.group_views(),
            routers: self.router_views(),
            load_balancers: Vec::new(),
            floating_ips: self.floating_ip_views(),
        }
    }

    fn network_views(&self) -> BTreeMap<Uuid, NetworkView> {
        self.networks.iter().map(|network| (network.standard.id, network_view(network))).collect()
    }

    fn subnet_views(&self) -> BTreeMap<Uuid, SubnetView> {
        self.subnets.iter().map(|subnet| (subnet.standard.id, subnet_view(subnet))).collect()
    }

    pub(crate) fn network(&self, id: Uuid) -> Option<NetworkView> {
        self.networks.get(id).map(network_view)
    }

    pub(crate) fn subnet(&self, id: Uuid) -> Option<SubnetView> {
        self.subnets.get(id).map(subnet_view)
    }

    fn group_views(&self) -> BTreeMap<Uuid, SecurityGroupView> {
        let addresses = |id| {
            let group = self.address_groups.get(id);
            group.map(|group| group.addresses.iter().copied().collect()).unwrap_or_default()
        };
        let rule = |rule: &super::Rule| RuleView {
            id: rule.standard.id,
            ingress: rule.spec.direction == "ingress",
            v6: rule.spec.ethertype == "IPv6",
            protocol: rule.spec.protocol.clone(),
            port_range_min: rule.spec.min,
            port_range_max: rule.spec.max,
            remote_ip_prefix: rule.spec.prefix,
            remote_group: rule.spec.remote_group,
            remote_addresses: match self.settings.address_groups {
                AddressGroups::Enforced => rule.spec.address_group.map(addresses),
                AddressGroups::OpenToEveryone => None,
            },
        };
        let view = |group: &super::Group| SecurityGroupView {
            id: group.standard.id,
            name: group.standard.name.clone(),
            stateful: group.stateful,
            rules: group.rules.iter().filter_map(|&id| self.rules.get(id)).map(rule).collect(),
            tags: tags(&group.standard.tags),
        };
        self.groups.iter().map(|group| (group.standard.id, view(group))).collect()
    }

    fn floating_ip_views(&self) -> Vec<FloatingIpView> {
        let view = |floating: &super::FloatingIp| {
            let inside = floating.inside.as_ref()?;
            Some(FloatingIpView { floating: floating.address, fixed: inside.address, port: inside.port })
        };
        self.floating_ips.iter().filter_map(view).collect()
    }

    fn router_views(&self) -> BTreeMap<Uuid, RouterView> {
        let inside = |id: &Uuid| self.ports.get(*id).is_some_and(|port| port.device_owner == ROUTER_INTERFACE);
        let view = |router: &super::Router| RouterView {
            id: router.standard.id,
            name: router.standard.name.clone(),
            admin_state_up: router.admin_state_up,
            interfaces: self.port_index.of_device(&router.standard.id.to_string()).into_iter().filter(inside).collect(),
            gateway: router.gateway.as_ref().map(|gateway| (gateway.network, gateway.port)),
            tags: tags(&router.standard.tags),
        };
        self.routers.iter().map(|router| (router.standard.id, view(router))).collect()
    }
}
