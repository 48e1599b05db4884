//! What a Service has to have, from what it says and where it is.

use super::{
    annotations::{self, Options},
    exposure::{Exposure, exposure},
    input::{Family, Kind, Service, Slice, TrafficPolicy},
    listeners::{Frame, Style, affinity, listeners, style},
    members::Subnets,
    problem::{Effect, Problem, Reason},
    provider::{Abilities, Feature, Provider},
    ranges::{nobody, only},
    site::Site,
    tree::{Place, Role, Tree, Vip},
    wanted::{Desired, Exposed, Nothing, mark},
};
use ipnet::IpNet;
use kuryr_model::SubnetId;
use std::{collections::BTreeSet, net::IpAddr};

/// What `service` with the endpoints in `slices` has to have.
#[must_use]
pub fn desired(service: &Service, slices: &[Slice], site: &Site) -> Desired {
    if let Some(nothing) = nothing(service) {
        let gone = Desired::gone(site.cluster.clone(), service.uid.clone());
        return Desired { nothing: Some(nothing), ..gone };
    }
    let (options, mut problems) = annotations::parse(&service.annotations);
    let provider = options.provider.clone().unwrap_or_else(|| site.provider.clone());
    let abilities = Abilities::of(&provider, &site.refusals);
    let vips = vips(service, site, &mut problems);
    let families = families(vips.iter().filter_map(|vip| vip.address));
    let style = style(service, &options, abilities, &mut problems);
    let exposure = exposure(service, &options, site, abilities, &families, &mut problems);
    affinity(service, &style, &mut problems);
    policies(service, &exposure, &style, abilities, &mut problems);

    let builder = Builder {
        service,
        options: &options,
        slices,
        site,
        provider: &provider,
        abilities,
        style: &style,
        exposure: &exposure,
    };
    let mut trees = Vec::with_capacity(2);
    if !vips.is_empty() {
        let same_network = vips.iter().all(|vip| vip.network == vips[0].network);
        let apart = vips.len() > 1 && !(same_network && abilities.does(Feature::AdditionalVips));
        trees.push(builder.tree(Role::Cluster, Place::Vips(vips), &families, apart, &mut problems));
    }
    if let Some(place) = &exposure.external {
        trees.push(builder.tree(Role::External, place.clone(), &exposure.external_families, false, &mut problems));
    }
    problems.sort();
    problems.dedup();
    let exposed = Exposed {
        ours: exposure.ours,
        hostname: options.hostname.clone(),
        ports: service.ports.iter().map(|port| (port.transport, port.number)).collect(),
        at: (exposure.ours && !exposure.held).then(|| exposure.role()),
    };
    Desired {
        cluster: site.cluster.clone(),
        uid: service.uid.clone(),
        cluster_ips: service.cluster_ips.clone(),
        nothing: trees.is_empty().then_some(Nothing::NoVip),
        trees,
        held: exposure.held,
        floating: exposure.floating,
        exposed,
        problems,
    }
}

fn nothing(service: &Service) -> Option<Nothing> {
    if service.deleting {
        Some(Nothing::Gone)
    } else if service.kind == Kind::ExternalName {
        Some(Nothing::ExternalName)
    } else if service.cluster_ips.is_empty() {
        Some(Nothing::Headless)
    } else if service.ports.is_empty() {
        Some(Nothing::NoPorts)
    } else {
        None
    }
}

/// The addresses of the tree at the clusterIPs.
fn vips(service: &Service, site: &Site, problems: &mut Vec<Problem>) -> Vec<Vip> {
    let mut vips = Vec::with_capacity(service.cluster_ips.len());
    for address in &service.cluster_ips {
        let about = "spec.clusterIPs";
        match site.services.iter().find(|subnet| subnet.cidr.contains(address)) {
            None => {
                let message = format!(
                    "clusterIP {address} is in none of the service subnets, so nothing answers there: kube-apiserver's \
                     --service-cluster-ip-range and the subnets under [services] in Kuryr's configuration must be the \
                     same"
                );
                problems.push(Problem::new(Reason::VipOutsideSubnets, about, Effect::NotServed, message));
            }
            Some(subnet) if subnet.gateway == Some(*address) => {
                let message = format!(
                    "clusterIP {address} is the gateway of its subnet {}, so nothing answers there: recreate the Service \
                     to get another one, or give the subnet's router another address",
                    subnet.id
                );
                problems.push(Problem::new(Reason::VipTaken, about, Effect::NotServed, message));
            }
            Some(subnet) => {
                vips.push(Vip { network: Some(subnet.network), subnet: Some(subnet.id), address: Some(*address) });
            }
        }
    }
    vips
}

/// The families of addresses, in the order of their first.
fn families(addresses: impl Iterator<Item = IpAddr>) -> Vec<Family> {
    let mut seen = BTreeSet::new();
    addresses.map(Family::of).filter(|family| seen.insert(*family)).collect()
}

/// Says where traffic policies mean something else than in Kubernetes' own proxy.
fn policies(
    service: &Service,
    exposure: &Exposure,
    style: &Style,
    abilities: Abilities<'_>,
    problems: &mut Vec<Problem>,
) {
    if service.internal_policy == TrafficPolicy::Local {
        let about = "spec.internalTrafficPolicy";
        let message = format!(
            "{about} is Local: traffic from a node goes to the endpoints of all nodes, since the load balancer does not \
             know where its clients are"
        );
        problems.push(Problem::new(Reason::NotNodeLocal, about, Effect::Differs, message));
    }
    let hidden = *abilities.provider != Provider::Ovn && !style.tells_the_client();
    if exposure.ours && service.external_policy == TrafficPolicy::Local && hidden {
        let about = "spec.externalTrafficPolicy";
        let message = format!(
            "{about} is Local: endpoints see the address of the load balancer in place of the client's; use the provider \
             ovn, or tell endpoints the client by the annotation {} or {}",
            annotations::PROXY_PROTOCOL,
            annotations::X_FORWARDED_FOR
        );
        problems.push(Problem::new(Reason::ClientAddressHidden, about, Effect::Differs, message));
    }
}

struct Builder<'a> {
    service: &'a Service,
    options: &'a Options,
    slices: &'a [Slice],
    site: &'a Site,
    provider: &'a Provider,
    abilities: Abilities<'a>,
    style: &'a Style,
    exposure: &'a Exposure,
}

impl Builder<'_> {
    fn tree(&self, role: Role, place: Place, families: &[Family], apart: bool, problems: &mut Vec<Problem>) -> Tree {
        let others = self.other_subnets(&place, families);
        // Where a load balancer's families are not known yet, what is of other families is left out later.
        let any = [Family::V4, Family::V6];
        let members = if role == Role::External { &any } else { families };
        let frame = Frame {
            service: self.service,
            options: self.options,
            slices: self.slices,
            abilities: self.abilities,
            style: self.style,
            families: members,
            subnets: Subnets { pods: &self.site.pods, others: &others },
            allowed: &self.allowed(role, members),
        };
        Tree {
            role,
            provider: self.provider.clone(),
            flavor: self.options.flavor.filter(|_| self.takes(Feature::Flavor, annotations::FLAVOR_ID, problems)),
            availability_zone: self
                .options
                .availability_zone
                .clone()
                .filter(|_| self.takes(Feature::AvailabilityZone, annotations::AVAILABILITY_ZONE, problems)),
            name: self.service.key.to_string(),
            description: format!("Kubernetes Service {} of cluster {}", self.service.key, self.site.cluster),
            tags: mark(&self.site.cluster, &self.service.uid),
            listeners: listeners(frame, problems),
            families: families.to_vec(),
            place,
            apart,
            monitors_follow: !self.abilities.does(Feature::MonitorAtOnce),
            limits_clients: self.abilities.does(Feature::AllowedCidrs),
        }
    }

    /// Whether the provider takes what an annotation asks for.
    fn takes(&self, feature: Feature, about: &str, problems: &mut Vec<Problem>) -> bool {
        let does = self.abilities.does(feature);
        if !does {
            let message =
                format!("{about}: the provider {} does not support {feature}; remove it", self.abilities.provider);
            problems.push(Problem::new(Reason::NotSupportedByProvider, about, Effect::Ignored, message));
        }
        does
    }

    /// The subnets from which members are reached that are in none of the pods'. The OVN provider takes no member without
    /// a subnet unless it is in the VIP's: it then gets the VIP's, from which Neutron's router leads everywhere.
    fn other_subnets(&self, place: &Place, families: &[Family]) -> Vec<(Family, SubnetId)> {
        if let Some(subnet) = self.exposure.member_subnet {
            return vec![(Family::V4, subnet), (Family::V6, subnet)];
        }
        match place {
            Place::Vips(vips) if *self.abilities.provider == Provider::Ovn => {
                let family = |vip: &Vip| vip.address.map(Family::of).or(families.first().copied());
                vips.iter().filter_map(|vip| Some((family(vip)?, vip.subnet?))).collect()
            }
            _ => Vec::new(),
        }
    }

    /// Who may connect to the listeners of a tree; empty: everybody. Clients in the cluster are not what source ranges are
    /// about, so they may, at the clusterIPs.
    fn allowed(&self, role: Role, families: &[Family]) -> Vec<IpNet> {
        let Some(ranges) = &self.exposure.ranges else { return Vec::new() };
        if self.exposure.role() != role || !self.abilities.does(Feature::AllowedCidrs) {
            return Vec::new();
        }
        let mut allowed: BTreeSet<IpNet> = ranges.iter().copied().collect();
        // None that could be read: still a limit.
        if allowed.is_empty() {
            allowed.extend([Family::V4, Family::V6].map(nobody));
        }
        if role != Role::External {
            let subnets = self.site.pods.iter().chain(&self.site.services);
            allowed.extend(subnets.map(|subnet| subnet.cidr.trunc()));
            allowed.extend(self.site.nodes.iter().map(IpNet::trunc));
        }
        only(&allowed.into_iter().collect::<Vec<_>>(), families)
    }
}

#[cfg(test)]
#[path = "desired_tests/mod.rs"]
mod tests;
