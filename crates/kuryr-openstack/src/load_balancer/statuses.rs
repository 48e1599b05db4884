//! The states of a load balancer and all that is below it, in one answer.

use super::LoadBalancing;
use crate::Error;
use kuryr_model::{
    HealthMonitorId, ListenerId, ListenerPoolId, LoadBalancerId, MemberId,
    lb::{Operating, Provisioning},
};
use serde::Deserialize;
use std::net::IpAddr;

/// The states of a load balancer and of what is below it. A listener pool that no listener sends to is not in it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct StatusTree {
    /// The load balancer.
    pub id: LoadBalancerId,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
    /// Its listeners.
    #[serde(default)]
    pub listeners: Vec<ListenerStatus>,
}

/// The states of a listener and of its listener pools.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct ListenerStatus {
    /// The listener.
    pub id: ListenerId,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
    /// Its listener pools.
    #[serde(default)]
    pub pools: Vec<PoolStatus>,
}

/// The states of a listener pool and of what is below it.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct PoolStatus {
    /// The listener pool.
    pub id: ListenerPoolId,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
    /// What watches the members.
    #[serde(default)]
    pub health_monitor: Option<MonitorStatus>,
    /// The members.
    #[serde(default)]
    pub members: Vec<MemberStatus>,
}

/// The states of a health monitor.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MonitorStatus {
    /// The health monitor.
    pub id: HealthMonitorId,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it works.
    #[serde(default)]
    pub operating_status: Operating,
}

/// The states of a member.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct MemberStatus {
    /// The member.
    pub id: MemberId,
    /// Its address.
    pub address: IpAddr,
    /// Its port number.
    pub protocol_port: u16,
    /// Whether Octavia is at work on it.
    #[serde(default)]
    pub provisioning_status: Provisioning,
    /// Whether it serves.
    #[serde(default)]
    pub operating_status: Operating,
}

impl StatusTree {
    /// All members of all listener pools; those of one that several listeners send to once for each.
    pub fn members(&self) -> impl Iterator<Item = &MemberStatus> {
        self.listeners.iter().flat_map(|listener| &listener.pools).flat_map(|pool| &pool.members)
    }
}

impl LoadBalancing {
    /// The states of a load balancer and of all that is below it.
    pub async fn status(&self, id: LoadBalancerId) -> Result<StatusTree, Error> {
        #[derive(Deserialize)]
        struct Statuses {
            loadbalancer: StatusTree,
        }
        let path = format!("/loadbalancers/{id}/status");
        let answer: Statuses = self.rest.ask("loadbalancers/status", &path, String::new(), "statuses").await?;
        Ok(answer.loadbalancer)
    }
}
