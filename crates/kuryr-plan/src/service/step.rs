//! One call to Octavia or Neutron, with all that it needs.

use super::tree::{Listener, ListenerKey, Member, Monitor, Pool, Tree, WantedFloating};
use kuryr_model::{
    FloatingIpId, HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, PortId, lb::Provisioning,
};

/// What to do next. Everything in a desired object that a call does not take is for logs, or for the steps after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Make a load balancer with all that is below it, in one fully populated POST.
    CreateTree(Box<Tree>),
    /// Make a listener pool without listener, and without members and health monitor: they follow.
    CreatePool {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        pool: Pool,
        /// Its tags.
        tags: Vec<String>,
    },
    /// Give a listener pool exactly these members, in one batch PUT.
    SetMembers {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        pool: ListenerPoolId,
        /// Whose it is.
        listener: ListenerKey,
        /// The members.
        members: Vec<Member>,
    },
    /// Change algorithm and session persistence of a listener pool.
    UpdatePool {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        id: ListenerPoolId,
        /// What it is to be.
        pool: Pool,
    },
    /// Delete a listener pool with its members and health monitor.
    DeletePool {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool.
        id: ListenerPoolId,
    },
    /// Make a health monitor.
    CreateMonitor {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener pool that it watches.
        pool: ListenerPoolId,
        /// The health monitor.
        monitor: Monitor,
        /// Its tags.
        tags: Vec<String>,
    },
    /// Change times and counts of a health monitor.
    UpdateMonitor {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The health monitor.
        id: HealthMonitorId,
        /// What it is to be.
        monitor: Monitor,
    },
    /// Delete a health monitor.
    DeleteMonitor {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The health monitor.
        id: HealthMonitorId,
    },
    /// Make a listener in front of a listener pool.
    CreateListener {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener; its own `pool` is there already.
        listener: Listener,
        /// The listener pool.
        pool: ListenerPoolId,
        /// Its tags.
        tags: Vec<String>,
    },
    /// Change limits, timeouts, allowed clients, headers and listener pool of a listener.
    UpdateListener {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener.
        id: ListenerId,
        /// What it is to be.
        listener: Listener,
        /// The listener pool that it is to have.
        pool: ListenerPoolId,
    },
    /// Delete a listener; its listener pool stays.
    DeleteListener {
        /// Of this load balancer.
        load_balancer: LoadBalancerId,
        /// The listener.
        id: ListenerId,
        /// What it is known by.
        listener: ListenerKey,
    },
    /// Delete a load balancer with all that is below it (cascade).
    DeleteTree {
        /// The load balancer.
        load_balancer: LoadBalancerId,
        /// Why.
        why: Why,
    },
    /// Let Octavia make a load balancer anew that is in `ERROR`.
    Failover {
        /// The load balancer.
        load_balancer: LoadBalancerId,
    },
    /// Octavia is at work on a load balancer: nothing can be done with it until it is not.
    Wait {
        /// The load balancer.
        load_balancer: LoadBalancerId,
        /// Its state.
        status: Provisioning,
    },
    /// Make a floating IP.
    CreateFloating {
        /// The floating IP.
        floating: WantedFloating,
        /// The port that it leads to at once; `None`: nowhere yet, since another one still leads there.
        port: Option<PortId>,
    },
    /// Let a floating IP lead to a port.
    AssociateFloating {
        /// The floating IP.
        id: FloatingIpId,
        /// The port.
        port: PortId,
    },
    /// Let a floating IP lead nowhere.
    DisassociateFloating {
        /// The floating IP.
        id: FloatingIpId,
    },
    /// Replace the tags of a floating IP.
    TagFloating {
        /// The floating IP.
        id: FloatingIpId,
        /// All its tags.
        tags: Vec<String>,
    },
    /// Delete a floating IP.
    DeleteFloating {
        /// The floating IP.
        id: FloatingIpId,
    },
}

/// Why a load balancer is deleted. In every case but the first one it is made anew afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Why {
    /// Nothing wants it.
    Unwanted,
    /// It is in `ERROR`, and failing it over does not help or cannot be done.
    Error,
    /// It has addresses that it should not have, or lacks its own.
    Addresses,
    /// It is of another provider.
    Provider,
    /// It is of another flavor.
    Flavor,
    /// It is in another availability zone.
    AvailabilityZone,
}
