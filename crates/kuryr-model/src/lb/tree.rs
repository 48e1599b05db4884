//! A load balancer with all that is below it.

use super::{HealthMonitor, Listener, LoadBalancer, Member, Pool, or_default};
use crate::ListenerPoolId;
use serde::{Deserialize, Deserializer};
use std::collections::BTreeMap;

/// A load balancer with all that is below it.
///
/// Reads from the answer to a create, which has everything nested, and comes out flat: with the ids that one list of
/// each kind would give.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree {
    /// The load balancer.
    pub load_balancer: LoadBalancer,
    /// Its listeners.
    pub listeners: Vec<Listener>,
    /// Its listener pools.
    pub pools: Vec<Pool>,
    /// The members of each listener pool.
    pub members: BTreeMap<ListenerPoolId, Vec<Member>>,
    /// What watches them. Some releases leave it out of the answer to a create.
    pub monitors: Vec<HealthMonitor>,
}

#[derive(Deserialize)]
struct Whole {
    #[serde(flatten)]
    load_balancer: LoadBalancer,
    #[serde(default, deserialize_with = "or_default")]
    listeners: Vec<Listener>,
    #[serde(default, deserialize_with = "or_default")]
    pools: Vec<WholePool>,
}

#[derive(Deserialize)]
struct WholePool {
    #[serde(flatten)]
    pool: Pool,
    #[serde(default, deserialize_with = "or_default")]
    members: Vec<Member>,
    #[serde(default)]
    healthmonitor: Option<HealthMonitor>,
}

impl<'de> Deserialize<'de> for Tree {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Whole::deserialize(deserializer).map(Self::from)
    }
}

/// Octavia leaves out of what is nested the ids of what it is nested in.
impl From<Whole> for Tree {
    fn from(whole: Whole) -> Self {
        let Whole { mut load_balancer, mut listeners, pools: whole_pools } = whole;
        for listener in &mut listeners {
            listener.loadbalancers = vec![load_balancer.id];
        }
        let (mut pools, mut members, mut monitors) = (Vec::new(), BTreeMap::new(), Vec::new());
        for WholePool { mut pool, members: of_pool, healthmonitor } in whole_pools {
            pool.loadbalancers = vec![load_balancer.id];
            pool.members = of_pool.iter().map(|member| member.id).collect();
            if let Some(mut monitor) = healthmonitor {
                pool.healthmonitor_id = Some(monitor.id);
                monitor.pools = vec![pool.id];
                monitors.push(monitor);
            }
            members.insert(pool.id, of_pool);
            pools.push(pool);
        }
        load_balancer.listeners = listeners.iter().map(|listener| listener.id).collect();
        load_balancer.pools = pools.iter().map(|pool| pool.id).collect();
        Self { load_balancer, listeners, pools, members, monitors }
    }
}
