//! What a node translates for Services: node ports and external addresses.

use super::{
    input::{Endpoint, Family, Kind, Service, ServicePort, Slice, TrafficPolicy, Transport},
    members::endpoints,
};
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
    /// What connections of the node itself and of its own pods are translated to, of the same family: the clusterIP. To
    /// them no policy for traffic from outside applies, as in Kubernetes' own proxy. Their source always becomes the
    /// node's own address.
    pub inside: (IpAddr, u16),
    /// What everybody else's are translated to, all of the same family; one of them for each connection. Empty: packets
    /// are dropped, since the Service wants endpoints of this node only and there is none.
    pub to: Vec<(IpAddr, u16)>,
    /// Whether their source becomes the node's own address, so that the answer comes back through the node.
    pub masquerade: bool,
    /// With several in [`Self::to`]: a client keeps its endpoint for this many seconds.
    pub affinity: Option<u32>,
}

/// The destination that a rule is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum At {
    /// This port number at any address of the node in this family.
    NodePort(Family, u16),
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
///
/// Traffic goes to the clusterIP, whose load balancer does the rest; with `Local` it goes to the endpoints on this node
/// themselves, those that are ready, or else those that are terminating and still answer (KEP-1669).
/// `loadBalancerSourceRanges` do not limit node ports, as in Kubernetes' own proxy.
#[must_use]
pub fn node_ports(service: &Service, slices: &[Slice], node: &ThisNode) -> Vec<NodePortRule> {
    if service.deleting || service.kind == Kind::ExternalName {
        return Vec::new();
    }
    let mut rules = Vec::new();
    for port in &service.ports {
        for cluster_ip in &service.cluster_ips {
            let family = Family::of(*cluster_ip);
            let node_port = port.node_port.map(|number| At::NodePort(family, number));
            let external = service.external_ips.iter().filter(|ip| Family::of(**ip) == family);
            let at: Vec<At> = node_port.into_iter().chain(external.map(|ip| At::External(*ip, port.number))).collect();
            if at.is_empty() {
                continue;
            }
            let local = service.external_policy == TrafficPolicy::Local;
            let inside = (*cluster_ip, port.number);
            let to = if local { local_endpoints(service, port, slices, node, family) } else { vec![inside] };
            rules.extend(at.into_iter().map(|at| NodePortRule {
                service: service.key.clone(),
                transport: port.transport,
                at,
                inside,
                to: to.clone(),
                masquerade: !(local && node.answers_return),
                affinity: service.session_affinity.filter(|_| local),
            }));
        }
    }
    rules.sort();
    rules
}

fn local_endpoints(
    service: &Service,
    port: &ServicePort,
    slices: &[Slice],
    node: &ThisNode,
    family: Family,
) -> Vec<(IpAddr, u16)> {
    let here = |endpoint: &Endpoint| {
        endpoint.node.as_deref() == Some(node.name.as_str()) && Family::of(endpoint.address) == family
    };
    let found = endpoints(service, port, slices, here);
    let best = found.values().map(|(state, _)| *state).max();
    found.into_iter().filter(|(_, (state, _))| Some(*state) == best).map(|(at, _)| at).collect()
}

#[cfg(test)]
#[path = "node_ports_tests.rs"]
mod tests;
