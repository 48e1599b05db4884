//! Subnet pools: used, never made.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use kuryr_model::{SubnetPoolId, neutron::SubnetPool};

const KIND: Kind = Kind {
    path: "subnetpools",
    plural: "subnetpools",
    single: "subnetpool",
    fields: &["id", "name", "prefixes", "default_prefixlen", "tags"],
};

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct SubnetPools<'a>(&'a Rest);

impl Network {
    /// Subnet pools.
    #[must_use]
    pub fn subnet_pools(&self) -> SubnetPools<'_> {
        SubnetPools(&self.rest)
    }
}

impl SubnetPools<'_> {
    /// Those that the filter lets through.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<SubnetPool>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: SubnetPoolId) -> Result<SubnetPool, Error> {
        self.0.get(&KIND, id).await
    }
}
