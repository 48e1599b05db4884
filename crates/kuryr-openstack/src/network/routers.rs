//! Routers and their interfaces.

use super::{Filter, Kind, Network, Rest};
use crate::Error;
use kuryr_model::{NetworkId, RouterId, SubnetId, neutron::Router};
use serde::Serialize;

const KIND: Kind = Kind {
    path: "routers",
    plural: "routers",
    single: "router",
    fields: &["id", "name", "external_gateway_info", "tags"],
};

/// How Neutron marks the ports of routers in the subnets that they join, by kind of router.
pub const INTERFACE_OWNERS: [&str; 3] =
    ["network:router_interface", "network:router_interface_distributed", "network:ha_router_replicated_interface"];

/// A router to be created.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewRouter {
    /// For people.
    pub name: String,
    /// For people, and to be found by.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Its way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub external_gateway_info: Option<Gateway>,
}

/// A router's way out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Gateway {
    /// The external network.
    pub network_id: NetworkId,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct Routers<'a>(&'a Rest);

impl Network {
    /// Routers.
    #[must_use]
    pub fn routers(&self) -> Routers<'_> {
        Routers(&self.rest)
    }
}

impl Routers<'_> {
    /// Those that the filter lets through.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<Router>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: RouterId) -> Result<Router, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one.
    pub async fn create(&self, router: &NewRouter) -> Result<Router, Error> {
        self.0.create(&KIND, router).await
    }

    /// Gives one a way out.
    pub async fn set_gateway(&self, id: RouterId, gateway: Gateway) -> Result<Router, Error> {
        #[derive(Serialize)]
        struct Change {
            external_gateway_info: Gateway,
        }
        self.0.update(&KIND, id, &Change { external_gateway_info: gateway }, None).await
    }

    /// Deletes one. One that is gone already is deleted.
    pub async fn delete(&self, id: RouterId) -> Result<(), Error> {
        self.0.delete(&KIND, id).await
    }

    /// Joins it to a subnet, at the subnet's gateway address. 400 if it is joined already: look at its ports first.
    pub async fn add_interface(&self, id: RouterId, subnet: SubnetId) -> Result<(), Error> {
        self.interface(id, subnet, "add_router_interface", "routers/add_router_interface").await
    }

    /// Parts it from a subnet. Parted already is parted.
    pub async fn remove_interface(&self, id: RouterId, subnet: SubnetId) -> Result<(), Error> {
        match self.interface(id, subnet, "remove_router_interface", "routers/remove_router_interface").await {
            Err(error) if !error.is_not_found() => Err(error),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    async fn interface(
        &self,
        id: RouterId,
        subnet_id: SubnetId,
        verb: &str,
        resource: &'static str,
    ) -> Result<(), Error> {
        #[derive(Serialize)]
        struct Interface {
            subnet_id: SubnetId,
        }
        self.0.put(resource, &format!("/routers/{id}/{verb}"), &Interface { subnet_id }).await
    }
}
