//! How a Service is reached from outside: floating IP, another VIP, and who may connect.

use super::{
    annotations::{self, Options, SubnetChoice},
    input::{Family, Kind, Service},
    problem::{Effect, Problem, Reason},
    provider::{Abilities, Feature},
    site::{Class, Site},
    tree::{Floating, KEEP_TAG, Place, Role, Vip, WantedFloating},
    wanted::mark,
};
use ipnet::IpNet;
use kuryr_model::{NetworkId, SubnetId};
use std::net::IpAddr;

const LOAD_BALANCER_IP: &str = "spec.loadBalancerIP";
const RANGES: &str = "spec.loadBalancerSourceRanges";

/// How a Service is reached from outside.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Exposure {
    /// It is Kuryr's to expose.
    pub(crate) ours: bool,
    /// It is not to be exposed until its owner or an operator has put something right.
    pub(crate) held: bool,
    /// Where its own tree is, if it has one beside the one at the clusterIPs.
    pub(crate) external: Option<Place>,
    /// The families of that tree.
    pub(crate) external_families: Vec<Family>,
    /// Its floating IP.
    pub(crate) floating: Floating,
    /// Who may connect; `None`: everybody.
    pub(crate) ranges: Option<Vec<IpNet>>,
    /// The subnet of members whose address is in no known one.
    pub(crate) member_subnet: Option<SubnetId>,
}

impl Exposure {
    /// The tree at which it is reached from outside.
    pub(crate) fn role(&self) -> Role {
        if self.external.is_some() { Role::External } else { Role::Cluster }
    }
}

/// How `service` is reached from outside. `families` are those of its usable clusterIPs.
pub(crate) fn exposure(
    service: &Service,
    options: &Options,
    site: &Site,
    abilities: Abilities<'_>,
    families: &[Family],
    problems: &mut Vec<Problem>,
) -> Exposure {
    let class_is_ours = service.load_balancer_class.as_ref().is_none_or(|class| *class == site.load_balancer_class);
    if service.kind != Kind::LoadBalancer || !class_is_ours {
        return Exposure {
            ours: false,
            held: false,
            external: None,
            external_families: Vec::new(),
            floating: Floating::None,
            ranges: None,
            member_subnet: options.member_subnet,
        };
    }
    let before = problems.len();
    let class = class(options, site, problems);
    let address = address(service, problems);
    let external = place(options, &class, address.filter(|_| options.internal));
    let external_families =
        match (&external, address.filter(|_| options.internal).or(service.cluster_ips.first().copied())) {
            (Some(_), Some(address)) => vec![Family::of(address)],
            _ => Vec::new(),
        };
    let ranges = ranges(service, options, problems);
    if ranges.is_some() && !abilities.does(Feature::AllowedCidrs) {
        let message = format!(
            "{RANGES}: the provider {} cannot limit who may connect, so the Service is not reachable from outside; use \
             another provider ({}), or remove the ranges and limit clients by a NetworkPolicy",
            abilities.provider,
            annotations::LB_PROVIDER
        );
        problems.push(Problem::new(Reason::SourceRangesNotEnforced, RANGES, Effect::NotExposed, message));
    }
    let has_v4 = if external.is_some() { &external_families } else { families }.contains(&Family::V4);
    let mut floating = Floating::None;
    if !options.internal && has_v4 {
        floating = Floating::Wanted(wanted(service, options, &class, site, &external, address, problems));
    } else if options.internal && external.is_none() && address.is_some_and(|ip| !service.cluster_ips.contains(&ip)) {
        let message = format!(
            "{LOAD_BALANCER_IP}: an internal Service is reached at its clusterIP; to have another address, say in which \
             subnet by the annotation {}",
            annotations::SUBNET_ID
        );
        problems.push(Problem::new(Reason::NoEffect, LOAD_BALANCER_IP, Effect::Ignored, message));
    }
    let held = options.held || problems[before..].iter().any(|problem| problem.effect == Effect::NotExposed);
    if held {
        floating = Floating::Withheld;
    }
    let external = external.filter(|_| !held);
    let member_subnet = class.member_subnet.or(options.member_subnet);
    Exposure { ours: true, held, external, external_families, floating, ranges, member_subnet }
}

fn class(options: &Options, site: &Site, problems: &mut Vec<Problem>) -> Class {
    let Some(name) = &options.class else { return Class::default() };
    if let Some(class) = site.classes.get(name) {
        return class.clone();
    }
    let known: Vec<&str> = site.classes.keys().map(String::as_str).collect();
    let known = if known.is_empty() { "there is none".to_owned() } else { format!("there are {}", known.join(", ")) };
    let message = format!(
        "annotation {} is {name:?}: the configuration of Kuryr has no such class ({known}); until it does, the Service \
         is not reachable from outside",
        annotations::CLASS
    );
    problems.push(Problem::new(Reason::UnknownClass, annotations::CLASS, Effect::NotExposed, message));
    Class::default()
}

fn address(service: &Service, problems: &mut Vec<Problem>) -> Option<IpAddr> {
    let text = service.load_balancer_ip.as_deref().map(str::trim).filter(|text| !text.is_empty())?;
    let address = text.parse().ok();
    if address.is_none() {
        let message = format!(
            "{LOAD_BALANCER_IP} is {text:?}: it must be an address; until then the Service is not reachable from outside"
        );
        problems.push(Problem::new(Reason::BadField, LOAD_BALANCER_IP, Effect::NotExposed, message));
    }
    address
}

/// Where the tree beside the one at the clusterIPs is, if there is to be one.
fn place(options: &Options, class: &Class, address: Option<IpAddr>) -> Option<Place> {
    if let Some(id) = options.load_balancer {
        return Some(Place::Existing(id));
    }
    if let Some(id) = options.port {
        return Some(Place::Port(id));
    }
    let (network, subnet) = (class.network.or(options.network), class.subnet.or(options.subnet));
    (network.is_some() || subnet.is_some()).then(|| Place::Vips(vec![Vip { network, subnet, address }]))
}

fn wanted(
    service: &Service,
    options: &Options,
    class: &Class,
    site: &Site,
    external: &Option<Place>,
    address: Option<IpAddr>,
    problems: &mut Vec<Problem>,
) -> WantedFloating {
    if let Some(address) = address.filter(IpAddr::is_ipv6) {
        let message = format!(
            "{LOAD_BALANCER_IP} is {address}: floating IPs are IPv4; ask for an IPv6 address as internal, with the \
             annotations {} and {}; until then the Service is not reachable from outside",
            annotations::INTERNAL,
            annotations::SUBNET_ID
        );
        problems.push(Problem::new(Reason::BadField, LOAD_BALANCER_IP, Effect::NotExposed, message));
    }
    let choice = class.floating_subnet.map(SubnetChoice::Id).or_else(|| options.floating_subnet.clone());
    let known = |id: SubnetId| site.external_subnets.iter().find(|subnet| subnet.id == id);
    let of_subnet = match &choice {
        Some(SubnetChoice::Id(id)) => known(*id).map(|subnet| subnet.network),
        _ => None,
    };
    let asked = class.floating_network.or(options.floating_network);
    let network = asked.or(of_subnet).or(site.floating_network);
    // Whoever made a load balancer decides whether it is reachable from outside.
    let make = !matches!(external, Some(Place::Existing(_)));
    if network.is_none() && make && address.is_none() {
        let message = format!(
            "no network for floating IPs is known, so the Service is not reachable from outside: set floating_network \
             under [services] in Kuryr's configuration, or the annotation {}; or mark the Service as {}",
            annotations::FLOATING_NETWORK_ID,
            annotations::INTERNAL
        );
        problems.push(Problem::new(
            Reason::NoFloatingNetwork,
            annotations::FLOATING_NETWORK_ID,
            Effect::NotExposed,
            message,
        ));
    }
    let subnets = match (choice, network) {
        (Some(choice), Some(network)) => floating_subnets(&choice, network, site, problems),
        _ => Vec::new(),
    };
    let mut tags = mark(&site.cluster, &service.uid);
    if options.keep_floating_ip {
        tags.push(KEEP_TAG.to_owned());
    }
    let to = if external.is_some() { Role::External } else { Role::Cluster };
    let description = floating_description(service, &mark(&site.cluster, &service.uid));
    WantedFloating { to, network, subnets, address, make, tags, description }
}

/// The description of a floating IP: it carries the mark until the tags do.
fn floating_description(service: &Service, mark: &[String]) -> String {
    format!("Kubernetes Service {}, {}", service.key, mark.join(" "))
}

fn floating_subnets(
    choice: &SubnetChoice,
    network: NetworkId,
    site: &Site,
    problems: &mut Vec<Problem>,
) -> Vec<SubnetId> {
    let (about, value, found) = match choice {
        SubnetChoice::Id(id) => {
            // One that cannot be seen may well be there: Neutron shows the subnets of external networks to few.
            let elsewhere = site.external_subnets.iter().any(|subnet| subnet.id == *id && subnet.network != network);
            let found = if elsewhere { Vec::new() } else { vec![*id] };
            (annotations::FLOATING_SUBNET_ID, id.to_string(), found)
        }
        SubnetChoice::Matching { name, tags } => {
            let fits = |subnet: &&super::site::ExternalSubnet| {
                subnet.network == network
                    && name.as_deref().is_none_or(|pattern| name_fits(pattern, &subnet.name))
                    && tags.as_deref().is_none_or(|wanted| tags_fit(wanted, &subnet.tags))
            };
            let found = site.external_subnets.iter().filter(fits).map(|subnet| subnet.id).collect();
            match (name, tags) {
                (Some(name), _) => (annotations::FLOATING_SUBNET, name.clone(), found),
                (None, tags) => (annotations::FLOATING_SUBNET_TAGS, tags.clone().unwrap_or_default(), found),
            }
        }
    };
    if found.is_empty() {
        let message = format!(
            "{about} is {value:?}: no such subnet can be seen in the external network {network}; name it by {}, or put \
             the value right; until then the Service is not reachable from outside",
            annotations::FLOATING_SUBNET_ID
        );
        problems.push(Problem::new(Reason::UnknownSubnet, about, Effect::NotExposed, message));
    }
    found
}

fn name_fits(pattern: &str, name: &str) -> bool {
    match pattern.strip_prefix('!') {
        Some(pattern) => !glob(pattern.as_bytes(), name.as_bytes()),
        None => glob(pattern.as_bytes(), name.as_bytes()),
    }
}

/// `*` stands for any text, `?` for any one character.
fn glob(pattern: &[u8], text: &[u8]) -> bool {
    // Where to go on after the last star when what follows it does not fit: greedy, so never more than |p| * |t| steps.
    let (mut p, mut t, mut star) = (0, 0, None);
    while t < text.len() {
        match pattern.get(p) {
            Some(b'*') => {
                star = Some((p, t));
                p += 1;
            }
            Some(c) if *c == b'?' || *c == text[t] => (p, t) = (p + 1, t + 1),
            _ => match star {
                Some((at, taken)) => {
                    star = Some((at, taken + 1));
                    (p, t) = (at + 1, taken + 1);
                }
                None => return false,
            },
        }
    }
    pattern[p..].iter().all(|c| *c == b'*')
}

fn tags_fit(wanted: &str, tags: &[String]) -> bool {
    let (not, wanted) = wanted.strip_prefix('!').map_or((false, wanted), |rest| (true, rest));
    let (all, wanted) = wanted.strip_prefix('&').map_or((false, wanted), |rest| (true, rest));
    let mut wanted = wanted.split(',').map(str::trim).filter(|tag| !tag.is_empty());
    let has = |tag: &str| tags.iter().any(|other| other == tag);
    let fits = if all { wanted.all(has) } else { wanted.any(has) };
    fits != not
}

/// Who may connect; `None`: the Service does not limit it.
fn ranges(service: &Service, options: &Options, problems: &mut Vec<Problem>) -> Option<Vec<IpNet>> {
    let (about, texts) = if service.source_ranges.is_empty() {
        (annotations::SOURCE_RANGES, &options.source_ranges)
    } else {
        (RANGES, &service.source_ranges)
    };
    if texts.is_empty() {
        return None;
    }
    let mut ranges = Vec::new();
    for text in texts {
        match text.trim().parse::<IpNet>() {
            Ok(range) => ranges.push(range.trunc()),
            Err(_) => {
                let message = format!(
                    "{about} has {text:?}: it must be a prefix such as 192.0.2.0/24; until then only the other ranges may \
                     connect"
                );
                problems.push(Problem::new(Reason::BadField, about, Effect::Ignored, message));
            }
        }
    }
    let everybody = |family| ranges.iter().any(|range| range.prefix_len() == 0 && Family::of(range.addr()) == family);
    if service.cluster_ips.iter().all(|ip| everybody(Family::of(*ip))) { None } else { Some(ranges) }
}

#[cfg(test)]
#[path = "exposure_tests.rs"]
mod tests;
