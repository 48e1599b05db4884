//! Networks.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use kuryr_model::{NetworkId, neutron};
use serde::Serialize;

const KIND: Kind = Kind {
    path: "networks",
    plural: "networks",
    single: "network",
    fields: &["id", "name", "mtu", "tags", "project_id", "router:external"],
};

/// A network to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewNetwork {
    /// For people.
    pub name: String,
    /// For people, and to be found by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Largest packet in bytes; Neutron chooses unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub mtu: Option<u32>,
    /// Whether routers may have their way out on it, and floating IPs are its addresses: for administrators only.
    #[serde(rename = "router:external", skip_serializing_if = "is_false")]
    pub external: bool,
}

// Serde hands it over by reference.
#[allow(clippy::trivially_copy_pass_by_ref)]
fn is_false(value: &bool) -> bool {
    !*value
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Networks<'a>(&'a Rest);

impl Network {
    /// Networks.
    #[must_use]
    pub fn networks(&self) -> Networks<'_> {
        Networks(&self.rest)
    }
}

impl Networks<'_> {
    /// Those that the filter lets through.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<neutron::Network>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: NetworkId) -> Result<neutron::Network, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one.
    pub async fn create(&self, network: &NewNetwork) -> Result<neutron::Network, Error> {
        self.0.create(&KIND, network).await
    }

    /// Changes the MTU of one.
    pub async fn set_mtu(&self, id: NetworkId, mtu: u32) -> Result<neutron::Network, Error> {
        #[derive(Serialize)]
        struct Change {
            mtu: u32,
        }
        self.0.update(&KIND, id, &Change { mtu }, None).await
    }

    /// Deletes one. One that is gone already is deleted.
    pub async fn delete(&self, id: NetworkId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }
}
