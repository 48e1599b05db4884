//! Members of listener pools.

use super::{Filter, Kind, LoadBalancing, Rest};
use crate::Error;
use kuryr_model::{ListenerPoolId, SubnetId, lb::Member};
use serde::Serialize;
use std::{collections::BTreeMap, net::IpAddr};

const KIND: Kind = Kind {
    path: "pools/members",
    plural: "members",
    single: "member",
    fields: &[
        "id",
        "name",
        "address",
        "protocol_port",
        "weight",
        "subnet_id",
        "provisioning_status",
        "operating_status",
        "backup",
        "tags",
    ],
};

/// A member as it is to be. Which member it is, address and port number say.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub struct NewMember {
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub name: String,
    /// Its address.
    pub address: IpAddr,
    /// Its port number.
    pub protocol_port: u16,
    /// Its share of the connections, 0 to 256; 0: it gets no new ones. Always sent: Octavia makes 1 of one that is not.
    pub weight: u16,
    /// The subnet from which the load balancer reaches it; that of the load balancer's address unless given. Cannot
    /// change.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub subnet_id: Option<SubnetId>,
    /// Whether it is used only when no other serves.
    #[serde(skip_serializing_if = "is_false")]
    pub backup: bool,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
}

// Serde hands it over by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
}

impl NewMember {
    /// A member that gets its share and needs no more than this.
    #[must_use]
    pub fn new(address: IpAddr, protocol_port: u16) -> Self {
        Self {
            name: String::new(),
            address,
            protocol_port,
            weight: 1,
            subnet_id: None,
            backup: false,
            tags: Vec::new(),
        }
    }
}

/// The calls for one listener pool.
#[derive(Clone, Copy, Debug)]
pub struct Members<'a> {
    rest: &'a Rest,
    pool: ListenerPoolId,
}

impl LoadBalancing {
    /// The members of a listener pool.
    #[must_use]
    pub fn members(&self, pool: ListenerPoolId) -> Members<'_> {
        Members { rest: &self.rest, pool }
    }
}

impl Members<'_> {
    fn path(&self) -> String {
        format!("/pools/{}/members", self.pool)
    }

    /// Those that the filter lets through.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Member>, Error> {
        self.rest.list_at(&KIND, &self.path(), filter).await
    }

    /// Makes these the members and no others, in one change of the load balancer: adds, changes and removes. Doing it
    /// twice is doing it once, so that it may be repeated after a lost answer. No member at all is fine.
    pub async fn replace(&self, members: &[NewMember]) -> Result<(), Error> {
        self.rest.put(KIND.path, &self.path(), &BTreeMap::from([(KIND.plural, members)])).await
    }
}
