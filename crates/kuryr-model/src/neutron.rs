//! What Neutron answers, reduced to the fields that Kuryr reads. Field names are Neutron's own.
//!
//! A list asked for with `fields=` leaves the others out, so what is not an id has a default.

use crate::{
    FloatingIpId, MacAddress, NetworkId, PortId, ProjectId, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId,
    SubnetPoolId, TrunkId,
};
use ipnet::IpNet;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// A port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Port {
    /// Its id.
    pub id: PortId,
    /// Its network.
    pub network_id: NetworkId,
    /// Its Ethernet address.
    pub mac_address: MacAddress,
    /// For people; Kuryr writes `<namespace>/<pod>`.
    #[serde(default)]
    pub name: String,
    /// Its addresses.
    #[serde(default)]
    pub fixed_ips: Vec<FixedIp>,
    /// The groups whose rules it obeys; with none, everything is dropped.
    #[serde(default)]
    pub security_groups: Vec<SecurityGroupId>,
    /// `ACTIVE` once the data plane has it.
    #[serde(default)]
    pub status: PortStatus,
    /// Who uses it, such as `compute:kuryr`.
    #[serde(default)]
    pub device_owner: String,
    /// What uses it; Kuryr writes the pod's UID.
    #[serde(default)]
    pub device_id: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Grows with every change; for `If-Match`.
    #[serde(default)]
    pub revision_number: u64,
    /// The host that it is bound to.
    #[serde(default, rename = "binding:host_id")]
    pub host_id: String,
    /// How the host is to plug it: `ovs`, `bridge`, `tap`; `binding_failed` if no driver could bind it there.
    #[serde(default, rename = "binding:vif_type")]
    pub vif_type: String,
    /// More about the plug.
    #[serde(default, rename = "binding:vif_details")]
    pub vif_details: VifDetails,
}

/// One address of a port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FixedIp {
    /// The subnet that it is from.
    pub subnet_id: SubnetId,
    /// The address.
    pub ip_address: IpAddr,
}

/// State of a port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum PortStatus {
    /// The data plane has it.
    Active,
    /// Nothing has plugged it, or its wiring is not done.
    #[default]
    Down,
    /// Being wired.
    Build,
    /// The driver gave up on it.
    Error,
    /// Anything else, such as `N/A`.
    #[serde(other)]
    Unknown,
}

/// What a port's mechanism driver says about plugging it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct VifDetails {
    /// `l2` for a bridge, `l3` for a routed interface.
    pub connectivity: Option<String>,
    /// The integration bridge.
    pub bridge_name: Option<String>,
    /// An extra Linux bridge is wanted between the interface and the integration bridge.
    pub ovs_hybrid_plug: bool,
}

/// A network.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Network {
    /// Its id.
    pub id: NetworkId,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Largest packet in bytes; 0 or absent when Neutron does not say.
    #[serde(default)]
    pub mtu: u32,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
    /// Owner.
    #[serde(default)]
    pub project_id: Option<ProjectId>,
    /// Whether it leads out of the cloud: floating IPs are from such networks.
    #[serde(default, rename = "router:external")]
    pub external: bool,
}

/// A subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subnet {
    /// Its id.
    pub id: SubnetId,
    /// Its network.
    pub network_id: NetworkId,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Its addresses.
    pub cidr: IpNet,
    /// Its gateway, if it has one.
    #[serde(default)]
    pub gateway_ip: Option<IpAddr>,
    /// More routes for those in it.
    #[serde(default)]
    pub host_routes: Vec<HostRoute>,
    /// The pool that its prefix is from.
    #[serde(default)]
    pub subnetpool_id: Option<SubnetPoolId>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// A route that a subnet gives to those in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct HostRoute {
    /// Where to.
    pub destination: IpNet,
    /// The next hop.
    pub nexthop: IpAddr,
}

/// A subnet pool.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SubnetPool {
    /// Its id.
    pub id: SubnetPoolId,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// What it hands out prefixes of.
    #[serde(default)]
    pub prefixes: Vec<IpNet>,
    /// Length of a prefix for which the caller names none, in bits.
    #[serde(default, deserialize_with = "number_or_text")]
    pub default_prefixlen: u8,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// Neutron writes `default_prefixlen` as text in some releases and as a number in others.
fn number_or_text<'de, D: serde::Deserializer<'de>>(deserializer: D) -> Result<u8, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Either {
        Number(u8),
        Text(String),
    }
    match Either::deserialize(deserializer)? {
        Either::Number(number) => Ok(number),
        Either::Text(text) => text.parse().map_err(serde::de::Error::custom),
    }
}

/// A router.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Router {
    /// Its id.
    pub id: RouterId,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Its way out, if it has one.
    #[serde(default)]
    pub external_gateway_info: Option<ExternalGateway>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// A router's way out.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExternalGateway {
    /// The external network.
    pub network_id: NetworkId,
}

/// A floating IP: an address of an external network that leads to one address of one port.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FloatingIp {
    /// Its id.
    pub id: FloatingIpId,
    /// The external network.
    pub floating_network_id: NetworkId,
    /// The address by which the world knows it.
    pub floating_ip_address: IpAddr,
    /// The address that it leads to, if any.
    #[serde(default)]
    pub fixed_ip_address: Option<IpAddr>,
    /// The port that has that address.
    #[serde(default)]
    pub port_id: Option<PortId>,
    /// The router that translates.
    #[serde(default)]
    pub router_id: Option<RouterId>,
    /// `DOWN` as long as it leads nowhere.
    #[serde(default)]
    pub status: FloatingIpStatus,
    /// For people, and to be found by from the first moment on.
    #[serde(default)]
    pub description: String,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// State of a floating IP.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum FloatingIpStatus {
    /// It leads to a port.
    Active,
    /// It leads nowhere, or its router is not ready.
    #[default]
    Down,
    /// The driver gave up on it.
    Error,
    /// Anything else.
    #[serde(other)]
    Unknown,
}

/// A trunk: a port that carries others, told apart by their segmentation ids.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Trunk {
    /// Its id.
    pub id: TrunkId,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Its parent port, whose frames have no tag.
    pub port_id: PortId,
    /// `ACTIVE` once the data plane has it.
    #[serde(default)]
    pub status: TrunkStatus,
    /// Neutron changes no subports of a trunk that is switched off.
    #[serde(default = "on")]
    pub admin_state_up: bool,
    /// The ports that it carries.
    #[serde(default)]
    pub sub_ports: Vec<Subport>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

fn on() -> bool {
    true
}

/// A port that a trunk carries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Subport {
    /// The port.
    pub port_id: PortId,
    /// `vlan`; Neutron knows no other, but for `inherit`, which it replaces.
    #[serde(default)]
    pub segmentation_type: String,
    /// Its tag; unique in its trunk. What is no VLAN's is somebody else's and means nothing to Kuryr.
    #[serde(default)]
    pub segmentation_id: u32,
}

/// An address besides its own that a port may use.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct AddressPair {
    /// An address or, as `address/length`, a whole network: those that people made may be.
    pub ip_address: String,
    /// The Ethernet address with which it may be used.
    pub mac_address: MacAddress,
}

impl AddressPair {
    /// The pair of one address.
    #[must_use]
    pub fn new(ip: IpAddr, mac: MacAddress) -> Self {
        Self { ip_address: ip.to_string(), mac_address: mac }
    }

    /// The address, if it is one and not a whole network.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        let net = || self.ip_address.parse::<IpNet>().ok();
        let whole = |net: &IpNet| net.prefix_len() == net.max_prefix_len();
        self.ip_address.parse().ok().or_else(|| net().filter(whole).map(|net| net.addr()))
    }
}

/// State of a trunk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum TrunkStatus {
    /// The data plane has it.
    Active,
    /// Its parent port is bound nowhere, or it is changing.
    #[default]
    Down,
    /// Being wired.
    Build,
    /// Some of its subports do not work.
    Degraded,
    /// The driver gave up on it; Neutron takes no more subports until some are removed.
    Error,
    /// Anything else.
    #[serde(other)]
    Unknown,
}

/// A security group.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroup {
    /// Its id.
    pub id: SecurityGroupId,
    /// For people.
    #[serde(default)]
    pub name: String,
    /// Its rules.
    #[serde(default, rename = "security_group_rules")]
    pub rules: Vec<SecurityGroupRule>,
    /// Its tags.
    #[serde(default)]
    pub tags: Vec<String>,
}

/// A rule as Neutron keeps it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SecurityGroupRule {
    /// Its id.
    pub id: SecurityGroupRuleId,
    /// The group that it is in.
    pub security_group_id: SecurityGroupId,
    /// What it allows.
    #[serde(flatten)]
    pub allows: RuleContent,
}

/// What a rule allows; two rules of equal content in one group are one rule (Neutron refuses the second).
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct RuleContent {
    /// Into or out of the port.
    pub direction: Direction,
    /// The family that it is for.
    pub ethertype: EtherType,
    /// `tcp`, `udp`, `sctp`, `icmp`, ...; absent for all.
    #[serde(default)]
    pub protocol: Option<String>,
    /// Lowest port number, inclusive.
    #[serde(default)]
    pub port_range_min: Option<u16>,
    /// Highest port number, inclusive.
    #[serde(default)]
    pub port_range_max: Option<u16>,
    /// Only for these remote addresses.
    #[serde(default)]
    pub remote_ip_prefix: Option<IpNet>,
    /// Only for the ports of this group.
    #[serde(default)]
    pub remote_group_id: Option<SecurityGroupId>,
}

impl RuleContent {
    /// The rule that allows everything of one family in one direction.
    #[must_use]
    pub fn everything(direction: Direction, ethertype: EtherType) -> Self {
        Self {
            direction,
            ethertype,
            protocol: None,
            port_range_min: None,
            port_range_max: None,
            remote_ip_prefix: None,
            remote_group_id: None,
        }
    }
}

/// Direction of a rule, seen from the port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Towards the port.
    Ingress,
    /// From the port.
    Egress,
}

/// Family of a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum EtherType {
    /// IPv4.
    IPv4,
    /// IPv6.
    IPv6,
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_port_reads_from_what_neutron_answers() {
        let port: Port = serde_json::from_value(json!({
            "id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab", "network_id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ac",
            "mac_address": "fa:16:3e:aa:bb:cc", "status": "N/A", "admin_state_up": true,
            "fixed_ips": [{"subnet_id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ad", "ip_address": "fd00::5"}],
            "binding:vif_type": "ovs", "binding:vif_details": {"port_filter": true, "bridge_name": "br-int", "bound_drivers": {"0": "ovn"}},
        }))
        .unwrap();
        assert_eq!(port.status, PortStatus::Unknown);
        assert_eq!(port.vif_details.bridge_name.as_deref(), Some("br-int"));
        assert_eq!(port.fixed_ips[0].ip_address, "fd00::5".parse::<IpAddr>().unwrap());
    }

    #[test]
    fn a_floating_ip_that_leads_nowhere_reads() {
        let ip: FloatingIp = serde_json::from_value(json!({
            "id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab", "floating_network_id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ac",
            "floating_ip_address": "203.0.113.9", "fixed_ip_address": null, "port_id": null, "router_id": null,
            "status": "DOWN", "description": "", "tags": [], "port_details": null,
        }))
        .unwrap();
        assert_eq!((ip.port_id, ip.status), (None, FloatingIpStatus::Down));
    }

    #[test]
    fn a_trunk_reads_with_whatever_it_carries() {
        let trunk: Trunk = serde_json::from_value(json!({
            "id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab", "port_id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ac",
            "status": "BUILD", "sub_ports": [
                {"port_id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ad", "segmentation_type": "vlan", "segmentation_id": 7},
                {"port_id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ae", "segmentation_type": "vxlan", "segmentation_id": 70000},
            ],
        }))
        .unwrap();
        assert_eq!((trunk.status, trunk.admin_state_up), (TrunkStatus::Build, true));
        assert_eq!(trunk.sub_ports[1].segmentation_id, 70_000);
    }

    #[test]
    fn a_network_says_whether_it_leads_out_of_the_cloud() {
        let network = json!({"id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab", "router:external": true});
        assert!(serde_json::from_value::<Network>(network).unwrap().external);
    }

    #[test]
    fn a_rule_reads_with_its_content_beside_its_ids() {
        let rule: SecurityGroupRule = serde_json::from_value(json!({
            "id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab", "security_group_id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ac",
            "direction": "egress", "ethertype": "IPv6", "protocol": null, "remote_ip_prefix": null, "description": "",
        }))
        .unwrap();
        assert_eq!(rule.allows, RuleContent::everything(Direction::Egress, EtherType::IPv6));
    }

    #[test]
    fn a_subnet_pools_prefix_length_reads_as_text_or_number() {
        for length in [json!("26"), json!(26)] {
            let pool: SubnetPool = serde_json::from_value(
                json!({"id": "6e2a7d52-6a7e-4f0e-9d6c-0123456789ab", "default_prefixlen": length}),
            )
            .unwrap();
            assert_eq!(pool.default_prefixlen, 26);
        }
    }
}
