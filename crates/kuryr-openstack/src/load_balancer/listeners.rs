//! Listeners.

use super::{Filter, Kind, LoadBalancing, PoolTree, Rest};
use crate::Error;
use kuryr_model::{
    ListenerId, ListenerPoolId, LoadBalancerId,
    lb::{Listener, Protocol},
};
use serde::Serialize;
use std::collections::BTreeMap;

const KIND: Kind = Kind {
    path: "listeners",
    plural: "listeners",
    single: "listener",
    fields: &[
        "id",
        "name",
        "description",
        "provisioning_status",
        "operating_status",
        "protocol",
        "protocol_port",
        "default_pool_id",
        "connection_limit",
        "timeout_client_data",
        "timeout_member_connect",
        "timeout_member_data",
        "timeout_tcp_inspect",
        "allowed_cidrs",
        "insert_headers",
        "loadbalancers",
        "tags",
    ],
};

/// A listener to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewListener {
    /// For people.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// What it speaks.
    pub protocol: Protocol,
    /// The port number that it listens on. TCP and UDP may have the same one.
    pub protocol_port: u16,
    /// The most connections at once; as many as wanted unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<i64>,
    /// How long a client may be silent, in milliseconds; Octavia's default unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_client_data: Option<u64>,
    /// How long connecting to a member may take, in milliseconds; Octavia's default unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_member_connect: Option<u64>,
    /// How long a member may be silent, in milliseconds; Octavia's default unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_member_data: Option<u64>,
    /// How long to wait for packets to be inspected, in milliseconds; Octavia's default unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_tcp_inspect: Option<u64>,
    /// Only clients in these prefixes may connect; empty: all.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub allowed_cidrs: Vec<String>,
    /// HTTP headers that it adds.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub insert_headers: BTreeMap<String, String>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

/// A listener to be created together with its load balancer.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListenerTree {
    /// The listener.
    #[serde(flatten)]
    pub listener: NewListener,
    /// Where its connections go: a listener pool that is created with it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_pool: Option<PoolTree>,
}

/// What is to change of a listener; what is `None` stays, what is `Some(None)` returns to Octavia's default or to
/// nothing. Its protocol and port number cannot change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ListenerUpdate {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Where its connections go.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub default_pool_id: Option<Option<ListenerPoolId>>,
    /// The most connections at once.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub connection_limit: Option<Option<i64>>,
    /// How long a client may be silent, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_client_data: Option<Option<u64>>,
    /// How long connecting to a member may take, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_member_connect: Option<Option<u64>>,
    /// How long a member may be silent, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_member_data: Option<Option<u64>>,
    /// How long to wait for packets to be inspected, in milliseconds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timeout_tcp_inspect: Option<Option<u64>>,
    /// All prefixes whose clients may connect; none: all clients.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub allowed_cidrs: Option<Vec<String>>,
    /// All HTTP headers that it adds.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub insert_headers: Option<BTreeMap<String, String>>,
    /// All its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Listeners<'a>(&'a Rest);

impl LoadBalancing {
    /// Listeners.
    #[must_use]
    pub fn listeners(&self) -> Listeners<'_> {
        Listeners(&self.rest)
    }
}

impl Listeners<'_> {
    /// Those that the filter lets through; `loadbalancer_id` is a key of it.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Listener>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: ListenerId) -> Result<Listener, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one for a load balancer that is there, with a listener pool that is there.
    pub async fn create(
        &self,
        load_balancer: LoadBalancerId,
        listener: &NewListener,
        default_pool: Option<ListenerPoolId>,
    ) -> Result<Listener, Error> {
        #[derive(Serialize)]
        struct New<'a> {
            loadbalancer_id: LoadBalancerId,
            #[serde(skip_serializing_if = "Option::is_none")]
            default_pool_id: Option<ListenerPoolId>,
            #[serde(flatten)]
            listener: &'a NewListener,
        }
        let new = New { loadbalancer_id: load_balancer, default_pool_id: default_pool, listener };
        self.0.create(&KIND, &new).await
    }

    /// Changes one.
    pub async fn update(&self, id: ListenerId, change: &ListenerUpdate) -> Result<Listener, Error> {
        self.0.update(&KIND, id, change, None).await
    }

    /// Deletes one; its listener pool stays. One that is gone already is deleted.
    pub async fn delete(&self, id: ListenerId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}
