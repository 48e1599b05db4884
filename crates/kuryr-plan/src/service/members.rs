//! From endpoints to members.

use super::{
    input::{Endpoint, Family, Service, ServicePort, Slice},
    site::SiteSubnet,
    tree::Member,
};
use kuryr_model::SubnetId;
use std::{collections::BTreeMap, net::IpAddr};

/// What an endpoint gets, worst first: of an address that is in two slices, the better one counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum State {
    /// It is on its way out and still answers: no new connections, as long as there is another one.
    Draining,
    /// New connections.
    Ready,
}

impl State {
    /// That of an endpoint; `None`: no traffic at all.
    pub(crate) fn of(endpoint: &Endpoint, publish_not_ready: bool) -> Option<Self> {
        if publish_not_ready || endpoint.ready {
            Some(Self::Ready)
        } else if endpoint.serving && endpoint.terminating {
            Some(Self::Draining)
        } else {
            None
        }
    }
}

/// The endpoints of one port of a Service, each of them once, with the name of its pod.
pub(crate) fn endpoints<'a>(
    service: &Service,
    port: &ServicePort,
    slices: &'a [Slice],
    wanted: impl Fn(&Endpoint) -> bool,
) -> BTreeMap<(IpAddr, u16), (State, Option<&'a str>)> {
    let mut found = BTreeMap::new();
    for slice in slices {
        let numbers = slice.ports.iter().filter(|other| other.name == port.name && other.transport == port.transport);
        for number in numbers.map(|port| port.number) {
            for endpoint in slice.endpoints.iter().filter(|endpoint| wanted(endpoint)) {
                let Some(state) = State::of(endpoint, service.publish_not_ready) else { continue };
                let entry = found.entry((endpoint.address, number)).or_insert((state, endpoint.pod.as_deref()));
                entry.0 = state.max(entry.0);
            }
        }
    }
    found
}

/// The addresses and port numbers behind one port of a Service, whoever gets new connections.
pub(crate) fn all_endpoints(service: &Service, port: &ServicePort, slices: &[Slice]) -> Vec<(IpAddr, u16)> {
    endpoints(service, port, slices, |_| true).into_keys().collect()
}

/// From which subnets members are reached.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Subnets<'a> {
    /// Where pods are.
    pub(crate) pods: &'a [SiteSubnet],
    /// Those for addresses that are in none of them, one of each family at most.
    pub(crate) others: &'a [(Family, SubnetId)],
}

impl Subnets<'_> {
    fn of(&self, address: IpAddr) -> Option<SubnetId> {
        let pods = self.pods.iter().find(|subnet| subnet.cidr.contains(&address)).map(|subnet| subnet.id);
        let family = Family::of(address);
        pods.or_else(|| self.others.iter().find(|(other, _)| *other == family).map(|(_, id)| *id))
    }
}

/// The members for one port of a Service, of the families that its load balancer has addresses of.
///
/// An endpoint that is ready gets traffic; one that is terminating keeps the connections that it has, and gets new ones
/// only if no endpoint of its family is ready (Kubernetes' KEP-1669); any other gets none. Where the provider cannot drain a
/// member (`drains`), one that should get no new connections is left out: with OVN its connections outlive that.
pub(crate) fn members(
    service: &Service,
    port: &ServicePort,
    slices: &[Slice],
    families: &[Family],
    subnets: Subnets<'_>,
    drains: bool,
) -> Vec<Member> {
    let found = endpoints(service, port, slices, |endpoint| families.contains(&Family::of(endpoint.address)));
    let ready = |family| found.iter().any(|((ip, _), (state, _))| *state == State::Ready && Family::of(*ip) == family);
    let any_ready = [Family::V4, Family::V6].map(|family| (family, ready(family)));
    let weight = |address: IpAddr, state| {
        let others = any_ready.iter().any(|(family, ready)| *family == Family::of(address) && *ready);
        u16::from(state == State::Ready || !others)
    };
    let member = |((address, port), (state, pod)): ((IpAddr, u16), (State, Option<&str>))| Member {
        address,
        port,
        weight: weight(address, state),
        subnet: subnets.of(address),
        name: pod.map(|pod| format!("{}/{pod}", service.key.namespace)).unwrap_or_default(),
    };
    found.clone().into_iter().map(member).filter(|member| drains || member.weight > 0).collect()
}
