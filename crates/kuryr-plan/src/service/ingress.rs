//! What a Service's `status.loadBalancer.ingress` says.

use super::{
    input::{Family, Transport},
    matching::{Pairs, is_our_floating, pairs},
    observed::Observed,
    tree::{Floating, Role},
    wanted::Desired,
};
use kuryr_model::{
    lb::{LoadBalancer, Provisioning},
    neutron::FloatingIp,
};
use std::net::IpAddr;

/// One entry of `status.loadBalancer.ingress`: an address or a name, never both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The address.
    pub ip: Option<IpAddr>,
    /// The name.
    pub hostname: Option<String>,
    /// The ports.
    pub ports: Vec<(Transport, u16)>,
}

/// What `status.loadBalancer.ingress` has to say; empty as long as nothing can be reached. `ipMode` is `VIP` throughout:
/// traffic from the cluster to the address goes through the load balancer too.
///
/// A Service with a floating IP is shown at it, and at its IPv6 address if that is a public one, since floating IPs are
/// IPv4. One without is shown at its VIPs.
#[must_use]
pub fn ingress(desired: &Desired, observed: &Observed) -> Vec<Ingress> {
    let Some(role) = desired.exposed.at.filter(|_| desired.exposed.ours) else { return Vec::new() };
    let pairs = pairs(desired, observed);
    let addresses: Vec<IpAddr> = match &desired.floating {
        Floating::Withheld => Vec::new(),
        Floating::None => vips(&pairs, role).collect(),
        Floating::Wanted(wanted) => match shown_floating(&pairs, desired, observed) {
            Some(ip) => [ip.floating_ip_address].into_iter().chain(vips(&pairs, role).filter(is_public_v6)).collect(),
            // Whoever made the load balancer knows how its VIP is reached.
            None if !wanted.make && wanted.address.is_none() => vips(&pairs, role).collect(),
            None => vips(&pairs, role).filter(is_public_v6).collect(),
        },
    };
    let entry = |ip, hostname| Ingress { ip, hostname, ports: desired.exposed.ports.clone() };
    match &desired.exposed.hostname {
        Some(name) if !addresses.is_empty() => vec![entry(None, Some(name.clone()))],
        _ => addresses.into_iter().map(|ip| entry(Some(ip), None)).collect(),
    }
}

/// The floating IP that leads to the Service, whoever made it.
pub(crate) fn shown_floating<'a>(
    pairs: &Pairs<'_>,
    desired: &Desired,
    observed: &'a Observed,
) -> Option<&'a FloatingIp> {
    let Floating::Wanted(wanted) = &desired.floating else { return None };
    let port = pairs.at(wanted.to, Family::V4)?.load_balancer.vip_port_id?;
    let right = |ip: &&FloatingIp| wanted.address.is_none_or(|address| ip.floating_ip_address == address);
    let mut here = observed.floating.iter().filter(|ip| ip.port_id == Some(port)).filter(right);
    here.clone().find(|ip| is_our_floating(desired, ip)).or_else(|| here.next())
}

/// The addresses at which load balancers of a role answer.
fn vips(pairs: &Pairs<'_>, role: Role) -> impl Iterator<Item = IpAddr> {
    let is_there = |lb: &LoadBalancer| {
        matches!(lb.provisioning_status, Provisioning::Active | Provisioning::PendingUpdate | Provisioning::Error)
    };
    let mut found: Vec<&LoadBalancer> = [Family::V4, Family::V6]
        .into_iter()
        .filter_map(|family| pairs.at(role, family))
        .map(|tree| &tree.load_balancer)
        .filter(|lb| is_there(lb))
        .collect();
    found.dedup_by_key(|lb| lb.id);
    found.into_iter().flat_map(LoadBalancer::addresses).collect::<Vec<_>>().into_iter()
}

/// Whether an address can be reached from outside without translation: global unicast (RFC 4291), as IPv6 is given out.
fn is_public_v6(address: &IpAddr) -> bool {
    matches!(address, IpAddr::V6(ip) if ip.segments()[0] & 0xe000 == 0x2000)
}
