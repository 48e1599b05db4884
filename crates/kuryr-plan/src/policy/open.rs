//! At which port numbers may one reach another?

use super::{
    reach::{Answer, NoAnswer, Place, reach},
    spec::{Ports, Protocol},
    world::{Pod, World},
};
use kuryr_model::ObjectKey;
use std::{collections::BTreeSet, net::IpAddr};

/// Port numbers of a protocol that have the same answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The protocol.
    pub protocol: Protocol,
    /// The lowest one.
    pub first: u16,
    /// The highest one, included.
    pub last: u16,
    /// The answer.
    pub answer: Answer,
}

/// The answers at all port numbers: of each protocol all from 1 on, in ascending order and in as few spans as can be; of
/// a Service only those that it has.
///
/// # Errors
/// An end is not in `world`.
pub fn open(world: &World, from: &Place, to: &Place) -> Result<Vec<Span>, NoAnswer> {
    let mut spans: Vec<Span> = Vec::new();
    if let Place::Service(key) = to {
        let ports = world.services.get(key).into_iter().flat_map(|service| &service.ports);
        let numbers: BTreeSet<(Protocol, u16)> = ports.map(|port| (port.protocol, port.number)).collect();
        for (protocol, number) in numbers {
            let answer = reach(world, from, to, protocol, number)?.answer();
            spans.push(Span { protocol, first: number, last: number, answer });
        }
        // Of one without ports it is still said that an end is not there.
        if spans.is_empty() {
            reach(world, from, to, Protocol::Tcp, 1)?;
        }
        return Ok(spans);
    }
    for protocol in Protocol::ALL {
        let begins: Vec<u16> = begins(world, from, to, protocol).into_iter().collect();
        for (index, first) in begins.iter().enumerate() {
            let last = begins.get(index + 1).map_or(u16::MAX, |next| next - 1);
            let answer = reach(world, from, to, protocol, *first)?.answer();
            match spans.last_mut() {
                Some(span) if (span.protocol, span.answer) == (protocol, answer) => span.last = last,
                _ => spans.push(Span { protocol, first: *first, last, answer }),
            }
        }
    }
    Ok(spans)
}

/// The port numbers at which the answer may become another: where something that policies or Services say begins, or
/// has just ended.
fn begins(world: &World, from: &Place, to: &Place, protocol: Protocol) -> BTreeSet<u16> {
    let mut begins = BTreeSet::from([1]);
    let mut range = |first: u16, last: u16| {
        begins.insert(first);
        begins.extend(last.checked_add(1));
    };
    let receiver = pod(world, to);
    let namespaces: BTreeSet<&str> =
        [pod(world, from), receiver].into_iter().flatten().map(|pod| &*pod.key.namespace).collect();
    let policies = world.policies.values().filter(|policy| namespaces.contains(&*policy.key.namespace));
    let rules = policies.flat_map(|policy| policy.ingress.iter().chain(&policy.egress).flatten());
    for ports in rules.flat_map(|rule| rule.ports.iter().flatten()) {
        match ports {
            Ports::Range(of, first, last) if *of == protocol => range(*first, *last),
            Ports::Range(..) | Ports::All(_) | Ports::Named(..) => {}
        }
    }
    // What a name of a port may mean.
    for port in receiver.iter().flat_map(|pod| &pod.ports).filter(|port| port.protocol == protocol) {
        range(port.number, port.number);
    }
    if let Place::Address(vip) = to {
        let ports = world.services.values().filter(|service| service.vips.contains(vip));
        let ports = ports.flat_map(|service| &service.ports).filter(|port| port.protocol == protocol);
        ports.for_each(|port| range(port.number, port.number));
    }
    begins.remove(&0);
    begins
}

/// The pod that is meant, if it is one.
fn pod<'a>(world: &'a World, place: &Place) -> Option<&'a Pod> {
    let of = |key: &ObjectKey| world.pods.get(key);
    let at = |address: &IpAddr| world.pods.values().find(|pod| pod.counts() && pod.addresses.contains(address));
    match place {
        Place::Pod(key) => of(key),
        Place::Address(address) => at(address),
        Place::Service(_) | Place::Node(_) => None,
    }
}
