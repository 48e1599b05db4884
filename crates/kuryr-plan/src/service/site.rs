//! What is known of the cluster and its cloud, beside the Service.

use super::provider::{Provider, Refusals};
use ipnet::IpNet;
use kuryr_model::{ClusterId, NetworkId, SubnetId};
use std::{collections::BTreeMap, net::IpAddr};

/// The `loadBalancerClass` of Services that are Kuryr's, unless configured. Those without a class are Kuryr's too.
pub const LOAD_BALANCER_CLASS: &str = "kuryr.openstack.org/octavia";

/// The cluster and its cloud, as far as Services need them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Site {
    /// The cluster, whose mark everything carries.
    pub cluster: ClusterId,
    /// Where the clusterIPs are.
    pub services: Vec<SiteSubnet>,
    /// Where pods are, in the order in which an address is looked up.
    pub pods: Vec<SiteSubnet>,
    /// Addresses of the nodes: they reach clusterIPs for kubelet, pods in the node's network, and node ports.
    pub nodes: Vec<IpNet>,
    /// Where floating IPs are from, unless a Service says otherwise.
    pub floating_network: Option<NetworkId>,
    /// The subnets of external networks, as far as Neutron shows them.
    pub external_subnets: Vec<ExternalSubnet>,
    /// Who carries out load balancers where a Service does not say.
    pub provider: Provider,
    /// `spec.loadBalancerClass` of the Services that are Kuryr's; those without one are Kuryr's too.
    pub load_balancer_class: String,
    /// The classes that the annotation `loadbalancer.openstack.org/class` may name.
    pub classes: BTreeMap<String, Class>,
    /// What providers have refused so far.
    pub refusals: Refusals,
}

/// A subnet for VIPs or members.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SiteSubnet {
    /// The subnet.
    pub id: SubnetId,
    /// Its network.
    pub network: NetworkId,
    /// Its addresses.
    pub cidr: IpNet,
    /// Its gateway.
    pub gateway: Option<IpAddr>,
}

/// A subnet of an external network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExternalSubnet {
    /// The subnet.
    pub id: SubnetId,
    /// Its network.
    pub network: NetworkId,
    /// Its name.
    pub name: String,
    /// Its tags.
    pub tags: Vec<String>,
}

/// A preconfigured answer to where a load balancer and its floating IP are; goes before the single annotations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Class {
    /// Where the floating IP is from.
    pub floating_network: Option<NetworkId>,
    /// Which subnet of it.
    pub floating_subnet: Option<SubnetId>,
    /// Where the VIP is.
    pub network: Option<NetworkId>,
    /// Which subnet of it.
    pub subnet: Option<SubnetId>,
    /// The subnet of members whose address is in no known one.
    pub member_subnet: Option<SubnetId>,
}
