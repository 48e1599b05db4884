//! A Service's load balancers as people are shown them.

use super::{
    diff::plan,
    ingress::shown_floating,
    input::Transport,
    matching::pairs,
    observed::{Members, Observed, ObservedTree},
    tree::{Listener, ListenerKey, Member, Role, Tree},
    wanted::Desired,
};
use kuryr_model::{FloatingIpId, HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, PortId, lb};
use std::{fmt, net::IpAddr};

/// What is wanted beside what is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// The load balancers.
    pub trees: Vec<TreeSummary>,
    /// The floating IP.
    pub floating: Option<FloatingSummary>,
    /// Members that get new connections, over all listeners.
    pub members_ready: usize,
    /// All members, over all listeners.
    pub members_total: usize,
    /// Everything wanted is there and Octavia is not at work on it. Says nothing about members.
    pub settled: bool,
}

/// One load balancer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TreeSummary {
    /// Which one; `None`: nothing wants it any more.
    pub role: Option<Role>,
    /// The load balancer, once it is there.
    pub id: Option<LoadBalancerId>,
    /// Its provider.
    pub provider: String,
    /// Its addresses.
    pub vips: Vec<IpAddr>,
    /// The port that has them.
    pub vip_port: Option<PortId>,
    /// Its states.
    pub state: Option<(lb::Provisioning, lb::Operating)>,
    /// Its listeners.
    pub listeners: Vec<ListenerSummary>,
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSummary {
    /// What it is known by.
    pub key: ListenerKey,
    /// The listener, once it is there.
    pub id: Option<ListenerId>,
    /// Its listener pool.
    pub pool: Option<ListenerPoolId>,
    /// Its health monitor.
    pub monitor: Option<HealthMonitorId>,
    /// Whether it serves, as Octavia sees it.
    pub operating: Option<lb::Operating>,
    /// Members that get new connections.
    pub ready: usize,
    /// Members that only keep the connections that they have.
    pub draining: usize,
    /// Members that Octavia's health monitor holds to be down.
    pub down: usize,
    /// All members.
    pub total: usize,
}

/// The floating IP.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FloatingSummary {
    /// The floating IP.
    pub id: FloatingIpId,
    /// Its address.
    pub address: IpAddr,
    /// The port that it leads to.
    pub port: Option<PortId>,
}

/// `desired` beside `observed`.
#[must_use]
pub fn summary(desired: &Desired, observed: &Observed) -> Summary {
    let pairs = pairs(desired, observed);
    let wanted = pairs.wanted.iter().map(|(tree, there)| tree_summary(tree, *there));
    let leftover = pairs.leftover.iter().map(|there| leftover_summary(there));
    let trees: Vec<TreeSummary> = wanted.chain(leftover).collect();
    let listeners = || trees.iter().flat_map(|tree| &tree.listeners);
    let floating = shown_floating(&pairs, desired, observed).map(|ip| FloatingSummary {
        id: ip.id,
        address: ip.floating_ip_address,
        port: ip.port_id,
    });
    Summary {
        members_ready: listeners().map(|listener| listener.ready).sum(),
        members_total: listeners().map(|listener| listener.total).sum(),
        settled: plan(desired, observed).is_empty(),
        floating,
        trees,
    }
}

fn tree_summary(tree: &Tree, there: Option<&ObservedTree>) -> TreeSummary {
    let listeners = tree.listeners.iter().map(|listener| listener_summary(listener, there)).collect();
    match there {
        Some(there) => TreeSummary { role: Some(tree.role), listeners, ..leftover_summary(there) },
        None => TreeSummary {
            role: Some(tree.role),
            id: None,
            provider: tree.provider.to_string(),
            vips: tree.addresses().collect(),
            vip_port: None,
            state: None,
            listeners,
        },
    }
}

fn leftover_summary(there: &ObservedTree) -> TreeSummary {
    let lb = &there.load_balancer;
    TreeSummary {
        role: None,
        id: Some(lb.id),
        provider: lb.provider.clone(),
        vips: lb.addresses().collect(),
        vip_port: lb.vip_port_id,
        state: Some((lb.provisioning_status, lb.operating_status)),
        listeners: Vec::new(),
    }
}

fn listener_summary(listener: &Listener, there: Option<&ObservedTree>) -> ListenerSummary {
    let is_it = |other: &&lb::Listener| {
        other.protocol_port == listener.key.number && Transport::of(other.protocol) == listener.key.transport
    };
    let own = there.and_then(|there| there.listeners.iter().find(is_it));
    let pool = own.and_then(|own| own.default_pool_id);
    let pool = there.and_then(|there| there.pools.iter().find(|other| Some(other.pool.id) == pool));
    let members = &listener.pool.members;
    let draining = members.iter().filter(|member| member.weight == 0).count();
    let is_down = |member: &Member| match pool.map(|pool| &pool.members) {
        Some(Members::Known(known)) => known.iter().any(|there| {
            (there.address, there.protocol_port) == (member.address, member.port)
                && there.operating_status == lb::Operating::Error
        }),
        _ => false,
    };
    let down = members.iter().filter(|member| member.weight > 0 && is_down(member)).count();
    ListenerSummary {
        key: listener.key,
        id: own.map(|own| own.id),
        pool: pool.map(|pool| pool.pool.id),
        monitor: pool.and_then(|pool| pool.pool.healthmonitor_id),
        operating: own.map(|own| own.operating_status),
        ready: members.len() - draining - down,
        draining,
        down,
        total: members.len(),
    }
}

/// Ready members and all: `2/3`.
impl fmt::Display for ListenerSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}/{}", self.key, self.ready, self.total)
    }
}

#[cfg(test)]
#[path = "summary_tests.rs"]
mod tests;
