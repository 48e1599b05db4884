//! Load balancers.

use super::{Filter, Kind, ListenerTree, LoadBalancing, PoolTree, Rest};
use crate::Error;
use http::Method;
use kuryr_model::{
    FlavorId, LoadBalancerId, NetworkId, PortId, SubnetId,
    lb::{AdditionalVip, LoadBalancer, Provisioning, Tree},
};
use serde::Serialize;
use std::net::IpAddr;

const KIND: Kind = Kind {
    path: "loadbalancers",
    plural: "loadbalancers",
    single: "loadbalancer",
    fields: &[
        "id",
        "name",
        "description",
        "provider",
        "provisioning_status",
        "operating_status",
        "vip_address",
        "vip_port_id",
        "vip_subnet_id",
        "vip_network_id",
        "additional_vips",
        "tags",
        "listeners",
        "pools",
        "flavor_id",
        "availability_zone",
        "admin_state_up",
    ],
};

/// A load balancer to be created, with all that is to be below it.
///
/// Its address: `vip_port_id`, or `vip_network_id`, or `vip_subnet_id` must be there; `vip_address` chooses in it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct NewLoadBalancer {
    /// For people.
    pub name: String,
    /// For people.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub description: String,
    /// Who is to carry it out; Octavia's default unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub provider: Option<String>,
    /// What the provider is told about its size.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub flavor_id: Option<FlavorId>,
    /// Where it is to run.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub availability_zone: Option<String>,
    /// Its first address; any free one unless given.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_address: Option<IpAddr>,
    /// The subnet of its first address.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_subnet_id: Option<SubnetId>,
    /// The network of its addresses.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_network_id: Option<NetworkId>,
    /// A port whose address it is to have; Octavia leaves the port when the load balancer goes.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub vip_port_id: Option<PortId>,
    /// Further addresses, in other subnets of the same network. Needs [`Feature::AdditionalVips`], and a provider that
    /// can: the OVN provider of 2022 (3.0.0) takes them and does nothing, and Octavia's answer shows what was asked for.
    /// Whether an address is there, only Neutron's ports tell.
    ///
    /// [`Feature::AdditionalVips`]: super::Feature::AdditionalVips
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub additional_vips: Vec<AdditionalVip>,
    /// Its tags.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub tags: Vec<String>,
    /// Its listeners.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub listeners: Vec<ListenerTree>,
    /// Listener pools that are no listener's default.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pools: Vec<PoolTree>,
}

/// What is to change of a load balancer; what is `None` stays. Its addresses, provider, flavor and availability zone
/// cannot change.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct LoadBalancerUpdate {
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// For people.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// All its tags.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Whether it is switched on.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub admin_state_up: Option<bool>,
}

/// The calls.
#[derive(Clone, Copy, Debug)]
pub struct LoadBalancers<'a>(&'a Rest);

impl LoadBalancing {
    /// Load balancers.
    #[must_use]
    pub fn load_balancers(&self) -> LoadBalancers<'_> {
        LoadBalancers(&self.rest)
    }
}

impl LoadBalancers<'_> {
    /// Those that the filter lets through. To administrators, those of all projects.
    pub async fn list(&self, filter: &Filter) -> Result<Vec<LoadBalancer>, Error> {
        self.0.list(&KIND, filter).await
    }

    /// One.
    pub async fn get(&self, id: LoadBalancerId) -> Result<LoadBalancer, Error> {
        self.0.get(&KIND, id).await
    }

    /// Creates one with all that is below it, or nothing. Octavia 11 (2022) makes health monitors, too, but leaves them
    /// out of the answer: list them where they are needed. If the answer is lost ([`Error::is_ambiguous`]), look for its
    /// tags before trying again.
    pub async fn create(&self, load_balancer: &NewLoadBalancer) -> Result<Tree, Error> {
        self.0.create(&KIND, load_balancer).await
    }

    /// Changes one.
    pub async fn update(&self, id: LoadBalancerId, change: &LoadBalancerUpdate) -> Result<LoadBalancer, Error> {
        self.0.update(&KIND, id, change, None).await
    }

    /// Deletes one and all that is below it. One that is gone already, or being deleted, is deleted. The deletion goes
    /// on after the answer: [`LoadBalancers::get`] finds nothing when it is through.
    pub async fn delete(&self, id: LoadBalancerId) -> Result<(), Error> {
        let path = format!("/loadbalancers/{id}");
        match self.0.delete_at(KIND.path, &path, "cascade=true".to_owned()).await {
            // Our own first try, whose answer was lost, or somebody else.
            Err(error) if error.immutable_state() == Some(Provisioning::PendingDelete) => Ok(()),
            other => other,
        }
    }

    /// Has the provider build one anew, its address and all that is below it kept. For one in `ERROR` or `ACTIVE`; the
    /// OVN provider cannot ([`Error::is_unsupported`]).
    pub async fn failover(&self, id: LoadBalancerId) -> Result<(), Error> {
        let path = format!("/loadbalancers/{id}/failover");
        let answer = self.0.call(Method::PUT, "loadbalancers/failover", &path, String::new(), None, None).await;
        answer.map(drop)
    }
}
