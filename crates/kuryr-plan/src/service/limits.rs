//! Listeners that let in only whom the pods behind them would, where the load balancer hides its clients from them.

use super::{
    input::{Family, Transport},
    matching::pairs,
    observed::Observed,
    problem::{Effect, Problem, Reason},
    ranges::nobody,
    tree::{ListenerKey, Place, Role},
    wanted::Desired,
};
use crate::policy::{
    Limit, Limits, MAX_CLIENTS, Protocol,
    nets::{intersect, tidy},
};
use ipnet::IpNet;
use kuryr_model::{LoadBalancerId, PortId, lb::Provisioning};
use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
};

/// So many endpoints are named.
const NAMED: usize = 5;

/// Whom the listeners of a Service let in, and from where its load balancers connect to pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Admission {
    /// Its load balancers.
    pub balancers: Vec<Balancer>,
    /// Whom a listener lets in, by protocol and port number: those of all load balancers together. One that lets in
    /// anybody is not here.
    pub admits: BTreeMap<(Protocol, u16), Vec<IpNet>>,
}

/// A load balancer that a Service has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Balancer {
    /// Its id.
    pub id: LoadBalancerId,
    /// Its VIPs.
    pub vips: Vec<IpAddr>,
    /// The port of its VIP.
    pub vip_port: Option<PortId>,
}

impl Desired {
    /// The same with listeners that let in only whom `limits` say, of those that they let in already; and what of that is not
    /// exact, as problems.
    #[must_use]
    pub fn limited(mut self, limits: &Limits) -> Self {
        for tree in &mut self.trees {
            let families = match tree.role {
                // Those that it does not turn out to have are left out later.
                Role::External => vec![Family::V4, Family::V6],
                Role::Cluster | Role::SecondFamily => tree.families.clone(),
            };
            for listener in &mut tree.listeners {
                let Some(limit) = limits.get(&place(listener.key)) else { continue };
                let Some(clients) = &limit.clients else { continue };
                self.problems.extend(problems(listener.key, limit, tree.limits_clients));
                if tree.limits_clients {
                    listener.allowed_cidrs = allowed(&listener.allowed_cidrs, clients, &families);
                }
            }
        }
        self.problems.sort();
        self.problems.dedup();
        self
    }
}

fn place(key: ListenerKey) -> (Protocol, u16) {
    (key.transport.into(), key.number)
}

/// Those who may connect by both, of these families. Nobody is not everybody, which is what Octavia takes an empty list for.
fn allowed(before: &[IpNet], clients: &[IpNet], families: &[Family]) -> Vec<IpNet> {
    let both = if before.is_empty() { tidy(clients.iter().copied()) } else { intersect(before, clients) };
    let kept: Vec<IpNet> = both.into_iter().filter(|net| families.contains(&Family::of(net.addr()))).collect();
    if kept.is_empty() { families.iter().copied().map(nobody).collect() } else { kept }
}

fn problems(key: ListenerKey, limit: &Limit, can_limit: bool) -> Vec<Problem> {
    let about = "spec.ports";
    let mut problems = Vec::new();
    let mut problem = |reason, message| problems.push(Problem::new(reason, about, Effect::Differs, message));
    if !can_limit {
        let message = format!(
            "port {key}: NetworkPolicies isolate pods behind it that cannot see who connects, and the load balancer cannot limit \
             its clients in their place, so these pods are closed to it; use the provider ovn"
        );
        problem(Reason::ClientsNotLimited, message);
        return problems;
    }
    if let Some(count) = limit.too_many {
        let message = format!(
            "port {key}: to let in those whom NetworkPolicies allow takes {count} blocks of addresses, and a listener gets \
             {MAX_CLIENTS} at most: pods that peers select are left out, and nobody gets in if it is too many still; name \
             them by an ipBlock, or use the provider ovn"
        );
        problem(Reason::TooManyClients, message);
    }
    if !limit.wider.is_empty() {
        let mut named: Vec<&str> = limit.wider.iter().take(NAMED).map(String::as_str).collect();
        let more = format!("{} more", limit.wider.len().saturating_sub(NAMED));
        if limit.wider.len() > NAMED {
            named.push(&more);
        }
        let message = format!(
            "port {key}: NetworkPolicies do not let the same clients reach all endpoints, and the load balancer hides its \
             clients, so only those come in whom all endpoints let in; others would do that, too: {}",
            named.join(", ")
        );
        problem(Reason::PoliciesDiffer, message);
    }
    problems
}

/// Whom the listeners of a Service let in, as far as is known: `None` while Octavia is at work on them.
#[must_use]
pub fn admission(desired: &Desired, observed: &Observed) -> Option<Admission> {
    let pairs = pairs(desired, observed);
    let mut admission = Admission::default();
    let mut open: BTreeSet<(Protocol, u16)> = BTreeSet::new();
    for (tree, there) in pairs.wanted.iter().filter_map(|(tree, there)| Some((tree, (*there)?))) {
        // What else it does is somebody else's.
        if matches!(tree.place, Place::Existing(_)) {
            return Some(Admission::default());
        }
        if there.load_balancer.provisioning_status != Provisioning::Active {
            return None;
        }
        admission.balancers.push(Balancer {
            id: there.load_balancer.id,
            vips: there.load_balancer.addresses().collect(),
            vip_port: there.load_balancer.vip_port_id,
        });
        for listener in &there.listeners {
            let place = (Transport::of(listener.protocol).into(), listener.protocol_port);
            let nets: Option<Vec<IpNet>> = listener.allowed_cidrs.iter().map(|text| text.parse().ok()).collect();
            match nets.filter(|nets| !nets.is_empty()) {
                Some(nets) => admission.admits.entry(place).or_default().extend(nets),
                None => drop(open.insert(place)),
            }
        }
    }
    admission.admits.retain(|place, _| !open.contains(place));
    admission.admits.values_mut().for_each(|nets| *nets = tidy(std::mem::take(nets)));
    Some(admission)
}

#[cfg(test)]
#[path = "limits_tests.rs"]
mod tests;
