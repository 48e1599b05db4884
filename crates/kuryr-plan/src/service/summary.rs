//! A Service's load balancers as people are shown them.

use super::{
    desired::Desired,
    observed::Observed,
    tree::{ListenerKey, Role},
};
use kuryr_model::{FloatingIpId, HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, PortId, lb};
use std::net::IpAddr;

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
    let _ = (desired, observed);
    Summary::default()
}
