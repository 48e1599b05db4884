//! What is put into a pod for a port.

use crate::{MacAddress, NetworkId, PortId, SegmentationId};
use ipnet::IpNet;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::net::IpAddr;

/// Everything a node must know to give a pod an interface for a Neutron port, without asking Neutron.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Vif {
    /// Name of the interface inside the pod, `eth0` for the first.
    #[schemars(length(min = 1, max = 15))]
    pub interface: String,
    /// The Neutron port.
    pub port_id: PortId,
    /// The network of the port.
    pub network_id: NetworkId,
    /// The port's Ethernet address.
    pub mac: MacAddress,
    /// The network's MTU in bytes.
    #[schemars(range(min = 68, max = 65535))]
    pub mtu: u32,
    /// The port's addresses, IPv4 before IPv6.
    pub addresses: Vec<VifAddress>,
    /// Routes besides the default routes through the addresses' gateways.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub routes: Vec<VifRoute>,
    /// How the node makes the interface part of the network.
    pub plug: Plug,
}

/// One address of a VIF.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VifAddress {
    /// The address.
    // Here and below: schemars would name a format that Kubernetes warns of, as it does not know it.
    #[schemars(with = "String")]
    pub ip: IpAddr,
    /// Length of the subnet's prefix in bits.
    #[schemars(range(max = 128))]
    pub prefix_length: u8,
    /// The subnet's gateway; none if the subnet has none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(with = "Option<String>")]
    pub gateway: Option<IpAddr>,
}

/// A route that the pod gets from its subnet.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct VifRoute {
    /// Where to, as `address/length`.
    #[schemars(with = "String")]
    pub destination: IpNet,
    /// The next hop.
    #[schemars(with = "String")]
    pub gateway: IpAddr,
}

/// How a node makes a VIF real: the driver and what it must know (design: "Plug drivers").
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Plug {
    /// The driver.
    pub driver: PlugDriver,
    /// The bridge that the host's end joins; drivers `ovs` and `bridge`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub bridge: Option<String>,
    /// The port of the virtual machine that the node is; drivers `vlan`, `macvlan` and `ipvlan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub parent: Option<Parent>,
    /// The subport's id on the parent port's trunk; driver `vlan`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub vlan: Option<SegmentationId>,
}

impl Plug {
    /// A plug of the node's own: no virtual machine has part in it.
    #[must_use]
    pub fn own(driver: PlugDriver, bridge: Option<String>) -> Self {
        Self { driver, bridge, parent: None, vlan: None }
    }
}

/// The port through which a virtual machine reaches its network.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parent {
    /// The Neutron port.
    pub port_id: PortId,
    /// Its Ethernet address: the virtual machine's interface is known by it.
    pub mac: MacAddress,
}

/// The ways to plug that this version knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub enum PlugDriver {
    /// A veth whose host end joins the integration bridge through OVSDB.
    Ovs,
    /// A veth whose host end joins a Linux bridge.
    Bridge,
    /// A veth whose host end is routed.
    Tap,
    /// A VLAN sub-interface of the virtual machine's interface, for a subport of its trunk.
    Vlan,
    /// A sub-interface of the virtual machine's interface with an Ethernet address of its own, which the machine's port allows.
    Macvlan,
    /// A sub-interface of the virtual machine's interface with the machine's Ethernet address; its port allows the pod's addresses.
    Ipvlan,
}

impl PlugDriver {
    /// The driver's name as people and metrics write it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Ovs => "ovs",
            Self::Bridge => "bridge",
            Self::Tap => "tap",
            Self::Vlan => "vlan",
            Self::Macvlan => "macvlan",
            Self::Ipvlan => "ipvlan",
        }
    }

    /// Whether the pod's interface is one of a virtual machine's. It has no end on the node then, and goes with the pod's namespace.
    #[must_use]
    pub fn is_nested(self) -> bool {
        match self {
            Self::Ovs | Self::Bridge | Self::Tap => false,
            Self::Vlan | Self::Macvlan | Self::Ipvlan => true,
        }
    }

    /// Whether the pod's packets pass through its machine's port and none of its own: then the security groups of that one hold for all
    /// pods of the machine, and none for a single pod.
    #[must_use]
    pub fn shares_port(self) -> bool {
        matches!(self, Self::Macvlan | Self::Ipvlan)
    }
}
