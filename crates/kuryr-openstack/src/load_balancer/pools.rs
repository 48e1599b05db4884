//! Listener pools.

use super::{Filter, Kind, LoadBalancing, NewHealthMonitor, NewMember, Rest};
use crate::Error;
use kuryr_model::{
    ListenerPoolId, LoadBalancerId,
    lb::{Algorithm, Pool, Protocol, SessionPersistence},
};
use serde::Serialize;

const KIND: Kind = Kind {
    path: "pools",
    plural: "pools",
    single: "pool",
    fields: &[
        "id",
        "name",
        "description",
        "provisioning_status",
        "operating_status",
        "protocol",
        "lb_algorithm",
        "session_persistence",
        "listeners",
        "loadbalancers",
        "healthmonitor_id",
        "members",
        "tags",
    ],
};

/// A listener pool to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewPool {
    /// For people. Within a [`PoolTree`] it must be there, and be another one for each.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What its members speak.
    pub protocol: Protocol,
    /// How a member is chosen.
    pub lb_algorithm: Algorithm,
    /// What binds a client to one member, if anything.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<SessionPersistence>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// A listener pool to be created together with its load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolTree {
    /// The listener pool.
    #[serde(flatten)]
    pub pool: NewPool,
    /// Its members.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub members: Vec<NewMember>,
    /// What is to watch them.
    #[serde(rename = "healthmonitor", skip_serializing_if = "Option::is_none")]
    pub monitor: Option<NewHealthMonitor>,
}

/// What is to change of a listener pool; what is `None` stays, what is `Some(None)` goes. Its protocol cannot change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct PoolUpdate {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// How a member is chosen.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub lb_algorithm: Option<Algorithm>,
    /// What binds a client to one member.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub session_persistence: Option<Option<SessionPersistence>>,
    /// All its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Pools<'a>(&'a Rest);

impl LoadBalancing {
    /// Listener pools.
    #[must_use]
    pub fn pools(&self) -> Pools<'_> {
        Pools(&self.rest)
    }
}

impl Pools<'_> {
    /// Those that the filter lets through; `loadbalancer_id` is a key of it.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Pool>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: ListenerPoolId) -> Result<Pool, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one, still without members, for a load balancer that is there. No listener sends to it yet.
    pub async fn create(&self, load_balancer: LoadBalancerId, pool: &NewPool) -> Result<Pool, Error> {
        #[derive(Serialize)]
        struct New<'a> {
            loadbalancer_id: LoadBalancerId,
            #[serde(flatten)]
            pool: &'a NewPool,
        }
        self.0.create(&KIND, &New { loadbalancer_id: load_balancer, pool }).await
    }

    /// Changes one.
    pub async fn update(&self, id: ListenerPoolId, change: &PoolUpdate) -> Result<Pool, Error> {
        self.0.update(&KIND, id, change, None).await
    }

    /// Deletes one with its members and its health monitor. One that is gone already is deleted.
    pub async fn delete(&self, id: ListenerPoolId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}
