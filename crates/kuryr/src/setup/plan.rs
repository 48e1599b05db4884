//! From what is wanted and what is there to the next steps: pure.

use ipnet::IpNet;
use kuryr_model::{
    ClusterId, Mark, NetworkId, Purpose, RouterId, SecurityGroupId, SecurityGroupRuleId, SubnetId, SubnetPoolId,
    mark::Base,
    neutron::{Direction, EtherType, Network, Port, Router, RuleContent, SecurityGroup, Subnet},
};
use kuryr_openstack::network::tags::Tagged;
use std::{
    fmt,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

/// What a cluster is to have.
#[derive(Clone, Debug)]
pub(crate) struct Desired {
    pub(crate) cluster: ClusterId,
    /// Name of the network, and of a router of our own.
    pub(crate) name: String,
    /// The network's MTU; none: Neutron's choice.
    pub(crate) mtu: Option<u32>,
    /// Where the subnets' addresses are from. Empty: the subnets that there are.
    pub(crate) prefixes: Vec<Prefix>,
    /// The addresses of Services. Empty: the subnets that there are, if any.
    pub(crate) services: Vec<IpNet>,
    pub(crate) router: RouterWish,
}

/// Where a subnet's addresses are from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Prefix {
    Cidr(IpNet),
    Pool { pool: SubnetPoolId, ipv6: bool },
}

impl Prefix {
    fn is_that_of(self, subnet: &Subnet) -> bool {
        match self {
            Self::Cidr(cidr) => subnet.cidr == cidr,
            Self::Pool { pool, ipv6 } => subnet.subnetpool_id == Some(pool) && subnet.cidr.addr().is_ipv6() == ipv6,
        }
    }

    fn overlaps(self, subnet: &Subnet) -> bool {
        matches!(self, Self::Cidr(cidr) if cidr.contains(&subnet.cidr) || subnet.cidr.contains(&cidr))
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cidr(cidr) => cidr.fmt(f),
            Self::Pool { pool, ipv6 } => {
                write!(f, "an {} prefix of subnet pool {pool}", if *ipv6 { "IPv6" } else { "IPv4" })
            }
        }
    }
}

/// Which router is to join the pods' subnets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RouterWish {
    /// One of our own, with a way out or without.
    Own {
        external: Option<NetworkId>,
    },
    /// One that somebody else made.
    Existing(RouterId),
    None,
}

/// What carries our mark, and what has joined it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    pub(crate) networks: Vec<Network>,
    pub(crate) subnets: Vec<Subnet>,
    /// Those for Services.
    pub(crate) service_networks: Vec<Network>,
    pub(crate) service_subnets: Vec<Subnet>,
    pub(crate) routers: Vec<Router>,
    /// Routers, of whomever, in our subnets.
    pub(crate) interfaces: Vec<Interface>,
    pub(crate) groups: Vec<(Base, SecurityGroup)>,
    /// What NetworkPolicies have.
    pub(crate) policy_groups: Vec<SecurityGroup>,
    /// Ports on our networks and ports of our pods, without those that Neutron itself keeps there.
    pub(crate) ports: Vec<Port>,
}

impl Found {
    pub(crate) fn all_networks(&self) -> impl Iterator<Item = &Network> {
        self.networks.iter().chain(&self.service_networks)
    }

    pub(crate) fn all_subnets(&self) -> impl Iterator<Item = &Subnet> {
        self.subnets.iter().chain(&self.service_subnets)
    }
}

/// A router in a subnet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Interface {
    pub(crate) router: RouterId,
    pub(crate) subnet: SubnetId,
}

/// One change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    CreateNetwork { name: String, mtu: Option<u32>, base: Base },
    SetMtu(NetworkId, u32),
    CreateSubnet { network: NetworkId, name: String, prefix: Prefix, base: Base },
    CreateRouter { name: String, external: Option<NetworkId> },
    SetGateway(RouterId, NetworkId),
    AddInterface(Interface),
    CreateGroup(Base),
    AddRules(SecurityGroupId, Vec<RuleContent>),
    DeleteRule(SecurityGroupId, SecurityGroupRuleId),
    Tag(Tagged, Base),
    RemoveInterface(Interface),
    DeleteRouter(RouterId),
    DeleteSubnet(SubnetId),
    DeleteNetwork(NetworkId),
    DeleteGroup(SecurityGroupId),
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CreateNetwork { name, .. } => write!(f, "make network {name}"),
            Self::SetMtu(id, mtu) => write!(f, "set the MTU of network {id} to {mtu}"),
            Self::CreateSubnet { name, prefix, .. } => write!(f, "make subnet {name} with {prefix}"),
            Self::CreateRouter { name, .. } => write!(f, "make router {name}"),
            Self::SetGateway(id, network) => write!(f, "let router {id} out through network {network}"),
            Self::AddInterface(Interface { router, subnet }) => write!(f, "join router {router} to subnet {subnet}"),
            Self::CreateGroup(base) => write!(f, "make security group {}", group_name(*base)),
            Self::AddRules(group, rules) => write!(f, "add {} rules to security group {group}", rules.len()),
            Self::DeleteRule(_, id) => write!(f, "delete security group rule {id}"),
            Self::Tag(object, _) => write!(f, "tag {object}"),
            Self::RemoveInterface(Interface { router, subnet }) => {
                write!(f, "part router {router} from subnet {subnet}")
            }
            Self::DeleteRouter(id) => write!(f, "delete router {id}"),
            Self::DeleteSubnet(id) => write!(f, "delete subnet {id}"),
            Self::DeleteNetwork(id) => write!(f, "delete network {id}"),
            Self::DeleteGroup(id) => write!(f, "delete security group {id}"),
        }
    }
}

/// What is there contradicts what is wanted: a person has to choose.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum PlanError {
    #[error("there are no pod subnets yet: give the pods' addresses with --pod-cidr or --subnet-pool")]
    NoPrefix,
    #[error("--pod-cidr {wanted} overlaps subnet {subnet} with {cidr}: give that one, or another that is free")]
    Overlap { wanted: Prefix, subnet: SubnetId, cidr: IpNet },
    #[error("--pod-cidr {0} and {1} overlap: give prefixes that have no address in common")]
    Selves(Prefix, Prefix),
    #[error(
        "--service-cidr {wanted} overlaps subnet {subnet} with {cidr}: it must be Kubernetes' own range \
         (--service-cluster-ip-range), of which no other subnet may have addresses"
    )]
    ServicesOverlap { wanted: IpNet, subnet: SubnetId, cidr: IpNet },
    #[error("--service-cidr {0} and {1} overlap: give prefixes that have no address in common")]
    ServicesTwice(IpNet, IpNet),
    #[error("{0} {1}s carry the mark of this cluster, and one is wanted: {2}; delete what is not used")]
    Several(usize, &'static str, String),
    #[error("subnet {subnet} is joined to router {router} already: part them first, or give --router {router}")]
    JoinedElsewhere { subnet: SubnetId, router: RouterId },
}

/// Name of a base security group.
pub(crate) fn group_name(base: Base) -> &'static str {
    match base {
        Base::Pods => "kuryr-pods",
        Base::Services => "kuryr-services",
        Base::IngressOpen => "kuryr-ingress-open",
        Base::EgressOpen => "kuryr-egress-open",
    }
}

/// What an object of ours has as its description from its first moment on.
pub(crate) fn description(cluster: &ClusterId, base: Base) -> String {
    format!("Made by kuryr setup: {}", mark(cluster, base).tags().join(" "))
}

pub(crate) fn mark(cluster: &ClusterId, base: Base) -> Mark {
    Mark { cluster: cluster.clone(), purpose: Purpose::Base(base) }
}

/// The steps that can be taken now. None: all is as it should be.
pub(crate) fn plan(desired: &Desired, found: &Found) -> Result<Vec<Step>, PlanError> {
    check_prefixes(&desired.prefixes)?;
    let mut steps = Vec::new();
    let tag = |steps: &mut Vec<Step>, object: Tagged, tags: &[String], base: Base| {
        if Mark::read(&desired.cluster, tags) != Some(mark(&desired.cluster, base)) {
            steps.push(Step::Tag(object, base));
        }
    };
    match &found.networks[..] {
        [] if desired.prefixes.is_empty() => return Err(PlanError::NoPrefix),
        [] => {
            let (name, mtu) = (desired.name.clone(), desired.mtu);
            steps.push(Step::CreateNetwork { name, mtu, base: Base::Pods });
        }
        [network] => {
            tag(&mut steps, Tagged::Network(network.id), &network.tags, Base::Pods);
            if let Some(mtu) = desired.mtu.filter(|mtu| *mtu != network.mtu) {
                steps.push(Step::SetMtu(network.id, mtu));
            }
            steps.extend(subnets(desired, found, network.id)?);
        }
        several => return Err(too_many("network", several.iter().map(|network| network.id))),
    }
    for subnet in &found.subnets {
        tag(&mut steps, Tagged::Subnet(subnet.id), &subnet.tags, Base::Pods);
    }
    steps.extend(services(desired, found)?);
    for network in &found.service_networks {
        tag(&mut steps, Tagged::Network(network.id), &network.tags, Base::Services);
    }
    for subnet in &found.service_subnets {
        tag(&mut steps, Tagged::Subnet(subnet.id), &subnet.tags, Base::Services);
    }
    steps.extend(router(desired, found)?);
    for router in &found.routers {
        tag(&mut steps, Tagged::Router(router.id), &router.tags, Base::Pods);
    }
    for base in [Base::IngressOpen, Base::EgressOpen] {
        steps.extend(group(base, found)?);
    }
    for (base, group) in &found.groups {
        tag(&mut steps, Tagged::SecurityGroup(group.id), &group.tags, *base);
    }
    Ok(steps)
}

fn check_prefixes(prefixes: &[Prefix]) -> Result<(), PlanError> {
    for (at, first) in prefixes.iter().enumerate() {
        for second in &prefixes[at + 1..] {
            match (first, second) {
                (Prefix::Cidr(a), Prefix::Cidr(b)) if a.contains(b) || b.contains(a) => {
                    return Err(PlanError::Selves(*first, *second));
                }
                _ => {}
            }
        }
    }
    Ok(())
}

fn too_many<T: ToString>(kind: &'static str, ids: impl ExactSizeIterator<Item = T>) -> PlanError {
    PlanError::Several(ids.len(), kind, ids.map(|id| id.to_string()).collect::<Vec<_>>().join(", "))
}

/// The numbered names that no subnet has yet, without end.
fn free_names(prefix: &str, taken: &[Subnet]) -> impl Iterator<Item = String> {
    let free = |name: &String| taken.iter().all(|subnet| subnet.name != *name);
    (1..).map(move |number| format!("{prefix}-{number}")).filter(free)
}

fn subnets(desired: &Desired, found: &Found, network: NetworkId) -> Result<Vec<Step>, PlanError> {
    if desired.prefixes.is_empty() && found.subnets.is_empty() {
        return Err(PlanError::NoPrefix);
    }
    let mut steps = Vec::new();
    let mut names = free_names(&desired.name, &found.subnets);
    for prefix in &desired.prefixes {
        if found.subnets.iter().any(|subnet| prefix.is_that_of(subnet)) {
            continue;
        }
        if let Some(subnet) = found.subnets.iter().find(|subnet| prefix.overlaps(subnet)) {
            return Err(PlanError::Overlap { wanted: *prefix, subnet: subnet.id, cidr: subnet.cidr });
        }
        let name = names.next().unwrap_or_default();
        steps.push(Step::CreateSubnet { network, name, prefix: *prefix, base: Base::Pods });
    }
    Ok(steps)
}

/// The network of cluster IPs. All its subnets are on one network: a load balancer has its addresses on one.
fn services(desired: &Desired, found: &Found) -> Result<Vec<Step>, PlanError> {
    let base = Base::Services;
    let overlap = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    for (at, wanted) in desired.services.iter().enumerate() {
        if let Some(other) = desired.services[at + 1..].iter().find(|other| overlap(wanted, other)) {
            return Err(PlanError::ServicesTwice(*wanted, *other));
        }
        let others =
            found.all_subnets().filter(|subnet| !found.service_subnets.contains(subnet) || subnet.cidr != *wanted);
        if let Some(subnet) = others.into_iter().find(|subnet| overlap(wanted, &subnet.cidr)) {
            return Err(PlanError::ServicesOverlap { wanted: *wanted, subnet: subnet.id, cidr: subnet.cidr });
        }
    }
    match &found.service_networks[..] {
        [] if desired.services.is_empty() => Ok(Vec::new()),
        // The other network's MTU is as good for answers as for questions.
        [] => Ok(vec![Step::CreateNetwork { name: group_name(base).to_owned(), mtu: desired.mtu, base }]),
        [network] => {
            let known = |wanted: &IpNet| found.service_subnets.iter().any(|subnet| subnet.cidr == *wanted);
            let missing = desired.services.iter().filter(|wanted| !known(wanted));
            let make = |(cidr, name): (&IpNet, String)| Step::CreateSubnet {
                network: network.id,
                name,
                prefix: Prefix::Cidr(*cidr),
                base,
            };
            Ok(missing.zip(free_names(group_name(base), &found.service_subnets)).map(make).collect())
        }
        several => Err(too_many("service network", several.iter().map(|network| network.id))),
    }
}

/// The gateway of a service subnet: its last address, which Kubernetes is the last to give away.
pub(crate) fn service_gateway(cidr: IpNet) -> IpAddr {
    match cidr {
        IpNet::V4(cidr) => Ipv4Addr::from_bits(cidr.broadcast().to_bits().saturating_sub(1)).into(),
        IpNet::V6(cidr) => cidr.broadcast().into(),
    }
}

/// The first addresses of a Service range that Kubernetes gives away itself only when all others are taken: as many as a
/// sixteenth of the range, from 16 to 256 (`--service-cluster-ip-range`, "avoiding collisions").
const STATIC_PART: u128 = 16;
/// Those at the very begin are chosen by hand: the API server's own, the DNS server's.
const CHOSEN_BY_HAND: u128 = 32;

/// Where the cloud's own ports in a service subnet get their addresses (those of amphorae, of OVN's health checks): where
/// Kubernetes does not. `None`: the range is too small for that.
pub(crate) fn service_pool(cidr: IpNet) -> Option<(IpAddr, IpAddr)> {
    let bits = u32::from(cidr.max_prefix_len() - cidr.prefix_len());
    let size = 1_u128.checked_shl(bits).unwrap_or(u128::MAX);
    let part = (size / STATIC_PART).clamp(STATIC_PART, 256);
    let first = CHOSEN_BY_HAND.min(part / 2);
    let at = |offset: u128| match cidr.network() {
        IpAddr::V4(ip) => {
            u32::try_from(offset).ok().and_then(|o| ip.to_bits().checked_add(o)).map(|b| Ipv4Addr::from_bits(b).into())
        }
        IpAddr::V6(ip) => ip.to_bits().checked_add(offset).map(|bits| Ipv6Addr::from_bits(bits).into()),
    };
    (size > 2 * part).then_some(())?;
    Some((at(first)?, at(part - 1)?))
}

fn router(desired: &Desired, found: &Found) -> Result<Vec<Step>, PlanError> {
    let router = match (desired.router, &found.routers[..]) {
        (RouterWish::None, _) => return Ok(Vec::new()),
        (RouterWish::Existing(id), _) => id,
        (RouterWish::Own { external }, []) => {
            return Ok(vec![Step::CreateRouter { name: desired.name.clone(), external }]);
        }
        (RouterWish::Own { .. }, [router]) => router.id,
        (RouterWish::Own { .. }, several) => return Err(too_many("router", several.iter().map(|router| router.id))),
    };
    let mut steps = Vec::new();
    if let (RouterWish::Own { external: Some(external) }, [own]) = (desired.router, &found.routers[..])
        && own.external_gateway_info.as_ref().is_none_or(|gateway| gateway.network_id != external)
    {
        steps.push(Step::SetGateway(router, external));
    }
    for subnet in found.all_subnets() {
        match found.interfaces.iter().find(|interface| interface.subnet == subnet.id) {
            None => steps.push(Step::AddInterface(Interface { router, subnet: subnet.id })),
            Some(interface) if interface.router == router => {}
            Some(interface) => {
                return Err(PlanError::JoinedElsewhere { subnet: subnet.id, router: interface.router });
            }
        }
    }
    Ok(steps)
}

/// What a base security group allows.
fn rules(base: Base) -> Vec<RuleContent> {
    let direction = match base {
        Base::IngressOpen => Direction::Ingress,
        Base::EgressOpen => Direction::Egress,
        Base::Pods | Base::Services => return Vec::new(),
    };
    [EtherType::IPv4, EtherType::IPv6].map(|family| RuleContent::everything(direction, family)).into()
}

/// The steps that make the rules of one base group what they should be.
pub(crate) fn group_rules(base: Base, group: &SecurityGroup) -> Vec<Step> {
    let wanted = rules(base);
    let missing: Vec<_> =
        wanted.iter().filter(|rule| group.rules.iter().all(|there| there.allows != **rule)).cloned().collect();
    let extra = group.rules.iter().filter(|rule| !wanted.contains(&rule.allows));
    let mut steps: Vec<_> = extra.map(|rule| Step::DeleteRule(group.id, rule.id)).collect();
    if !missing.is_empty() {
        steps.push(Step::AddRules(group.id, missing));
    }
    steps
}

fn group(base: Base, found: &Found) -> Result<Vec<Step>, PlanError> {
    let groups: Vec<_> = found.groups.iter().filter(|(role, _)| *role == base).map(|(_, group)| group).collect();
    match &groups[..] {
        [] => Ok(vec![Step::CreateGroup(base)]),
        [group] => Ok(group_rules(base, group)),
        several => Err(too_many("security group", several.iter().map(|group| group.id))),
    }
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
