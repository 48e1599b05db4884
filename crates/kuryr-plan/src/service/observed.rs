//! What of one Service is in Octavia and Neutron.

use super::{digest::digest, tree::Member, wanted::Desired};
use kuryr_model::{ClusterId, ListenerPoolId, LoadBalancerId, Mark, Purpose, ServiceUid, lb, neutron::FloatingIp};
use std::collections::{BTreeMap, BTreeSet};

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

impl ObservedTree {
    /// A load balancer with those of `listeners`, `pools` and `monitors` that are below it. Of members only the number is
    /// known.
    #[must_use]
    pub fn new(
        load_balancer: lb::LoadBalancer,
        listeners: &[lb::Listener],
        pools: &[lb::Pool],
        monitors: &[lb::HealthMonitor],
    ) -> Self {
        let id = load_balancer.id;
        let pool = |pool: &lb::Pool| ObservedPool {
            pool: pool.clone(),
            members: if pool.members.is_empty() { Members::Known(Vec::new()) } else { Members::Counted },
            monitor: monitors.iter().find(|monitor| Some(monitor.id) == pool.healthmonitor_id).cloned(),
        };
        Self {
            load_balancer,
            listeners: listeners.iter().filter(|listener| listener.loadbalancers.contains(&id)).cloned().collect(),
            pools: pools.iter().filter(|pool| pool.loadbalancers.contains(&id)).map(pool).collect(),
            failed_over: false,
        }
    }
}

impl Observed {
    /// Whether these members of a listener pool leave one out that gets connections now. That cannot wait: a pod that is
    /// on its way out answers for a moment only. Members of which only the number is known are taken to be others.
    #[must_use]
    pub fn takes_away(&self, pool: ListenerPoolId, members: &[Member]) -> bool {
        let stays = |address, port| {
            members.iter().any(|member| member.weight > 0 && (member.address, member.port) == (address, port))
        };
        let there = self.trees.iter().flat_map(|tree| &tree.pools).filter(|there| there.pool.id == pool);
        there.into_iter().any(|there| match &there.members {
            Members::Known(known) => {
                known.iter().any(|member| member.weight > 0 && !stays(member.address, member.protocol_port))
            }
            Members::Counted => !there.pool.members.is_empty(),
        })
    }
}

/// What one cluster has in Octavia and Neutron.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listed {
    /// Load balancers.
    pub load_balancers: Vec<lb::LoadBalancer>,
    /// Listeners.
    pub listeners: Vec<lb::Listener>,
    /// Listener pools.
    pub pools: Vec<lb::Pool>,
    /// Health monitors.
    pub monitors: Vec<lb::HealthMonitor>,
    /// Floating IPs.
    pub floating: Vec<FloatingIp>,
}

/// What [`gather()`] found.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// What each Service has. Those that are gone and have something are among them.
    pub services: BTreeMap<ServiceUid, Observed>,
    /// Load balancers that were not listed, since they carry no mark, and in which these Services have something: to be
    /// asked for one by one, with all that is below them, and put into [`Observed::trees`] by [`ObservedTree::new`].
    pub elsewhere: BTreeMap<LoadBalancerId, BTreeSet<ServiceUid>>,
}

/// Sorts what carries a cluster's mark by Service: five lists, whatever the number of Services.
#[must_use]
pub fn gather(cluster: &ClusterId, listed: &Listed) -> Gathered {
    let owner = |tags: &[String]| match Mark::read(cluster, tags)?.purpose {
        Purpose::Service(uid) => Some(uid),
        Purpose::Pod(_) | Purpose::Pool | Purpose::Group(_) | Purpose::Base(_) => None,
    };
    let Listed { load_balancers, listeners, pools, monitors, floating } = listed;
    // Which Services have something in which load balancer.
    let mut users: BTreeMap<LoadBalancerId, BTreeSet<ServiceUid>> = BTreeMap::new();
    let below = listeners.iter().map(|listener| (&listener.tags, &listener.loadbalancers));
    for (tags, ids) in below.chain(pools.iter().map(|pool| (&pool.tags, &pool.loadbalancers))) {
        let Some(uid) = owner(tags) else { continue };
        for id in ids {
            users.entry(*id).or_default().insert(uid.clone());
        }
    }
    let mut by_lb: BTreeMap<LoadBalancerId, (Vec<lb::Listener>, Vec<lb::Pool>)> = BTreeMap::new();
    for listener in listeners {
        for id in &listener.loadbalancers {
            by_lb.entry(*id).or_default().0.push(listener.clone());
        }
    }
    for pool in pools {
        for id in &pool.loadbalancers {
            by_lb.entry(*id).or_default().1.push(pool.clone());
        }
    }
    let monitors: BTreeMap<_, _> = monitors.iter().map(|monitor| (monitor.id, monitor)).collect();
    let mut gathered = Gathered::default();
    for load_balancer in load_balancers {
        let (listeners, pools) = by_lb.remove(&load_balancer.id).unwrap_or_default();
        let monitors: Vec<lb::HealthMonitor> =
            pools.iter().filter_map(|pool| monitors.get(&pool.healthmonitor_id?).copied().cloned()).collect();
        let mut services = users.remove(&load_balancer.id).unwrap_or_default();
        services.extend(owner(&load_balancer.tags));
        let tree = ObservedTree::new(load_balancer.clone(), &listeners, &pools, &monitors);
        for uid in services {
            gathered.services.entry(uid).or_default().trees.push(tree.clone());
        }
    }
    for uid in users.values().flatten() {
        gathered.services.entry(uid.clone()).or_default();
    }
    gathered.elsewhere = users;
    for ip in floating {
        let words: Vec<String> = ip.description.split_whitespace().map(str::to_owned).collect();
        if let Some(uid) = owner(&ip.tags).or_else(|| owner(&words)) {
            gathered.services.entry(uid).or_default().floating.push(ip.clone());
        }
    }
    gathered
}

impl Observed {
    /// The listener pools whose members have to be listed before the plan can be trusted: those of which only the number
    /// is known, while what was applied last is not what is desired now (`applied` is the [`super::digest()`] on record).
    #[must_use]
    pub fn unsure(&self, desired: &Desired, applied: Option<&str>) -> Vec<ListenerPoolId> {
        if desired.trees.is_empty() || applied.is_some_and(|applied| applied == digest(desired)) {
            return Vec::new();
        }
        let pools = self.trees.iter().flat_map(|tree| &tree.pools);
        let counted = pools.filter(|pool| pool.members == Members::Counted && desired.owns(&pool.pool.tags));
        counted.map(|pool| pool.pool.id).collect()
    }
}

#[cfg(test)]
#[path = "observed_tests.rs"]
mod tests;
