//! Which of the load balancers that are there is which of those that are wanted.

use super::{
    input::Family,
    observed::{Observed, ObservedTree},
    ranges::only,
    tree::{Place, Role, Tree},
    wanted::Desired,
};
use kuryr_model::{LoadBalancerId, lb::Provisioning, neutron::FloatingIp};
use std::{borrow::Cow, collections::BTreeSet, net::IpAddr};

/// Wanted load balancers with those that are there.
#[derive(Debug)]
pub(crate) struct Pairs<'a> {
    pub(crate) wanted: Vec<(Cow<'a, Tree>, Option<&'a ObservedTree>)>,
    /// Those that nothing wants. Not all of them are ours.
    pub(crate) leftover: Vec<&'a ObservedTree>,
}

impl<'a> Pairs<'a> {
    /// Where a Service is reached that is exposed at `role`: the load balancer with an address of `family`, of those that
    /// share the role of the clusterIPs; the only one otherwise.
    pub(crate) fn at(&self, role: Role, family: Family) -> Option<&'a ObservedTree> {
        let external = self.wanted.iter().find(|(tree, _)| tree.role == Role::External && role == Role::External);
        let has = |tree: &Tree| tree.addresses().any(|address| Family::of(address) == family);
        let cluster = || self.wanted.iter().find(|(tree, _)| tree.role != Role::External && has(tree));
        external.or_else(cluster).and_then(|(_, observed)| *observed)
    }
}

/// Whether a floating IP is the Service's: made for it, or adopted by it.
pub(crate) fn is_our_floating(desired: &Desired, floating: &FloatingIp) -> bool {
    let words = || floating.description.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
    desired.owns(&floating.tags) || desired.owns(&words())
}

/// Pairs what is wanted with what is there.
///
/// A load balancer at clusterIPs is known by its addresses, one that somebody else made by its id, and any other of ours
/// is the one that the Service's annotations ask for.
pub(crate) fn pairs<'a>(desired: &'a Desired, observed: &'a Observed) -> Pairs<'a> {
    let own: Vec<&ObservedTree> = observed
        .trees
        .iter()
        .filter(|tree| desired.owns(&tree.load_balancer.tags))
        .filter(|tree| tree.load_balancer.provisioning_status != Provisioning::Deleted)
        .collect();
    let mut used: BTreeSet<LoadBalancerId> = BTreeSet::new();
    let mut wanted = Vec::with_capacity(desired.trees.len() + 1);
    for tree in desired.trees.iter().flat_map(|tree| arrange(tree, &own)) {
        let found = match &tree.place {
            Place::Existing(id) => observed.trees.iter().find(|there| there.load_balancer.id == *id),
            _ if tree.role == Role::External => best(&own, &used, |there| {
                (!there.load_balancer.addresses().any(|ip| desired.cluster_ips.contains(&ip)))
                    .then(|| fits(&tree, there))
            }),
            _ => best(&own, &used, |there| {
                there
                    .load_balancer
                    .addresses()
                    .any(|ip| tree.addresses().any(|wanted| wanted == ip))
                    .then(|| fits(&tree, there))
            }),
        };
        // An annotation may name the Service's own load balancer: then there is only that one.
        if let Some(there) = found
            && !used.insert(there.load_balancer.id)
        {
            continue;
        }
        wanted.push((of_families(tree, found), found));
    }
    let leftover = observed
        .trees
        .iter()
        .filter(|tree| !used.contains(&tree.load_balancer.id))
        .filter(|tree| tree.load_balancer.provisioning_status != Provisioning::Deleted)
        .collect();
    Pairs { wanted, leftover }
}

/// The tree that may be taken (`Some`), rather one that fits (`true`), rather one that stays.
fn best<'a>(
    own: &[&'a ObservedTree],
    used: &BTreeSet<LoadBalancerId>,
    judge: impl Fn(&ObservedTree) -> Option<bool>,
) -> Option<&'a ObservedTree> {
    let free = own.iter().filter(|tree| !used.contains(&tree.load_balancer.id));
    let judged = free.filter_map(|tree| Some((judge(tree)?, *tree)));
    let going = |tree: &ObservedTree| tree.load_balancer.provisioning_status == Provisioning::PendingDelete;
    judged.min_by_key(|(fits, tree)| (!fits, going(tree), tree.load_balancer.id)).map(|(_, tree)| tree)
}

/// Whether a load balancer has the addresses of a tree, as far as they are fixed.
pub(crate) fn fits(tree: &Tree, there: &ObservedTree) -> bool {
    let there = &there.load_balancer;
    match &tree.place {
        Place::Existing(id) => there.id == *id,
        Place::Port(id) => there.vip_port_id == Some(*id),
        Place::Vips(vips) if tree.role == Role::External => vips.iter().all(|vip| {
            vip.subnet.is_none_or(|subnet| there.vip_subnet_id == Some(subnet))
                && (vip.subnet.is_some() || vip.network.is_none_or(|network| there.vip_network_id == Some(network)))
                && vip.address.is_none_or(|address| there.vip_address == Some(address))
        }),
        Place::Vips(_) => {
            let wanted: BTreeSet<IpAddr> = tree.addresses().collect();
            there.addresses().collect::<BTreeSet<_>>() == wanted
        }
    }
}

/// One tree for all clusterIPs, or one for each: as the provider can, and as it began. A load balancer cannot be given a
/// second address, so a Service that gets a second family later has a second one; and a provider that takes several
/// addresses and makes one is answered in the same way.
fn arrange<'a>(tree: &'a Tree, own: &[&ObservedTree]) -> Vec<Cow<'a, Tree>> {
    let wanted: BTreeSet<IpAddr> = tree.addresses().collect();
    if tree.role != Role::Cluster || wanted.len() < 2 {
        return vec![Cow::Borrowed(tree)];
    }
    let stays = |there: &&&ObservedTree| there.load_balancer.provisioning_status != Provisioning::PendingDelete;
    let addresses = |there: &&ObservedTree| there.load_balancer.addresses().collect::<BTreeSet<_>>();
    let mut staying = own.iter().filter(stays).map(addresses);
    let whole = own.iter().map(addresses).any(|there| there == wanted);
    let part = staying.any(|there| !there.is_empty() && there.is_subset(&wanted));
    if whole || !(part || tree.apart) {
        return vec![Cow::Borrowed(tree)];
    }
    [(Role::Cluster, 0), (Role::SecondFamily, 1)]
        .into_iter()
        .filter_map(|(role, n)| one_family(tree, role, n))
        .collect()
}

/// A tree at an address that is not the Service's own to choose has what fits the families that it turns out to have.
fn of_families<'a>(tree: Cow<'a, Tree>, there: Option<&ObservedTree>) -> Cow<'a, Tree> {
    if tree.role != Role::External {
        return tree;
    }
    let mut families: BTreeSet<Family> =
        there.iter().flat_map(|there| there.load_balancer.addresses()).map(Family::of).collect();
    if families.is_empty() {
        families.extend(&tree.families);
    }
    let families: Vec<Family> = families.into_iter().collect();
    let mut tree = tree.into_owned();
    for listener in &mut tree.listeners {
        listener.allowed_cidrs = only(&listener.allowed_cidrs, &families);
        let members = &mut listener.pool.members;
        // A Service of one family behind an address of the other: some providers translate.
        if members.iter().any(|member| families.contains(&Family::of(member.address))) {
            members.retain(|member| families.contains(&Family::of(member.address)));
        }
    }
    Cow::Owned(Tree { families, ..tree })
}

/// The part of a tree that is for its `n`th address.
fn one_family(tree: &Tree, role: Role, n: usize) -> Option<Cow<'static, Tree>> {
    let Place::Vips(vips) = &tree.place else { return None };
    let vip = *vips.get(n)?;
    let family = Family::of(vip.address?);
    let mut part = Tree { role, place: Place::Vips(vec![vip]), families: vec![family], apart: false, ..tree.clone() };
    for listener in &mut part.listeners {
        listener.pool.members.retain(|member| Family::of(member.address) == family);
        listener.allowed_cidrs = only(&listener.allowed_cidrs, &[family]);
    }
    Some(Cow::Owned(part))
}
