//! What a node translates for Services: node ports and external addresses.

use super::input::{Service, Slice, Transport};
use kuryr_model::ObjectKey;
use std::net::IpAddr;

/// One translation of destination addresses on a node.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct NodePortRule {
    /// The Service that it is for.
    pub service: ObjectKey,
    /// The transport protocol.
    pub transport: Transport,
    /// What is translated.
    pub at: At,
    /// What it is translated to, all of the family of [`Self::at`]; one of them for each connection. Empty: packets are
    /// dropped, since the Service wants endpoints of this node only and there is none.
    pub to: Vec<(IpAddr, u16)>,
    /// Whether the source becomes the node's own address, so that the answer comes back through the node.
    pub masquerade: bool,
    /// With several in [`Self::to`]: a client keeps its endpoint for this many seconds.
    pub affinity: Option<u32>,
}

/// The destination that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// This port number at any IPv4 address of the node.
    NodePortV4(u16),
    /// This port number at any IPv6 address of the node.
    NodePortV6(u16),
    /// An address that is routed to the node (`spec.externalIPs`) and a port number.
    External(IpAddr, u16),
}

/// What matters of a node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ThisNode {
    /// Its name.
    pub name: String,
    /// Whether what its pods answer leaves through the node, so that a client's address can be kept. Not so on OVN,
    /// where pods answer through Neutron's router.
    pub answers_return: bool,
}

/// The rules that a node needs for `service`, sorted. `slices` matter only with `externalTrafficPolicy: Local`.
#[must_use]
pub fn node_ports(service: &Service, slices: &[Slice], node: &ThisNode) -> Vec<NodePortRule> {
    let _ = (service, slices, node);
    Vec::new()
}
