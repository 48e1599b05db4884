//! What a load balancer can be made of: providers, flavors, availability zones. Made by administrators, only read here.

use super::{Filter, Kind, LoadBalancing};
use crate::Error;
use kuryr_model::FlavorId;
use serde::Deserialize;

const PROVIDERS: Kind =
    Kind { path: "providers", plural: "providers", single: "provider", fields: &["name", "description"] };

const FLAVORS: Kind =
    Kind { path: "flavors", plural: "flavors", single: "flavor", fields: &["id", "name", "description", "enabled"] };

const ZONES: Kind = Kind {
    path: "availabilityzones",
    plural: "availability_zones",
    single: "availability_zone",
    fields: &["name", "description", "enabled"],
};

/// Who can carry out load balancers.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Provider {
    /// Its name, such as `amphora`, `ovn`. One provider may have two names.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
}

/// What a provider is told about the size of a load balancer.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Flavor {
    /// Its id.
    pub id: FlavorId,
    /// Its name.
    #[serde(default)]
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether new load balancers may have it.
    #[serde(default)]
    pub enabled: bool,
}

/// Where load balancers can run. Its name is its id.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct AvailabilityZone {
    /// Its name.
    pub name: String,
    /// For people.
    #[serde(default)]
    pub description: Option<String>,
    /// Whether new load balancers may run there.
    #[serde(default)]
    pub enabled: bool,
}

impl LoadBalancing {
    /// All providers.
    pub async fn providers(&self) -> Result<Vec<Provider>, Error> {
        self.rest.list(&PROVIDERS, &Filter::new()).await
    }

    /// Those flavors that the filter lets through. Needs [`Feature::Flavors`](super::Feature::Flavors).
    pub async fn flavors(&self, filter: &Filter) -> Result<Vec<Flavor>, Error> {
        self.rest.list(&FLAVORS, filter).await
    }

    /// Those zones that the filter lets through. Needs
    /// [`Feature::AvailabilityZones`](super::Feature::AvailabilityZones).
    pub async fn availability_zones(&self, filter: &Filter) -> Result<Vec<AvailabilityZone>, Error> {
        self.rest.list(&ZONES, filter).await
    }
}
