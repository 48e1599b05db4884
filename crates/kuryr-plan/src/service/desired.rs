//! What a Service has to have.

use super::{Floating, Problem, Service, Site, Slice, Tree, ingress::Exposed};
use kuryr_model::{ClusterId, ServiceUid};
use std::net::IpAddr;

/// What a Service has to have.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Desired {
    /// The cluster, by whose mark what is ours is known.
    pub cluster: ClusterId,
    /// The Service.
    pub uid: ServiceUid,
    /// Its clusterIPs.
    pub cluster_ips: Vec<IpAddr>,
    /// Its load balancers.
    pub trees: Vec<Tree>,
    /// Its floating IP.
    pub floating: Floating,
    /// What its `status.loadBalancer` is made from.
    pub exposed: Exposed,
    /// What is not done as it asks for.
    pub problems: Vec<Problem>,
    /// Why there is no load balancer to be had, if so.
    pub nothing: Option<Nothing>,
}

/// Why a Service needs no load balancer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nothing {
    /// It is gone, or being deleted.
    Gone,
    /// It has no clusterIP: its endpoints are found by the DNS alone.
    Headless,
    /// It is a name in the DNS.
    ExternalName,
    /// It has no ports.
    NoPorts,
    /// None of its clusterIPs is in a service subnet, or they are taken.
    NoVip,
}

/// What `service` with the endpoints in `slices` has to have.
#[must_use]
pub fn desired(service: &Service, slices: &[Slice], site: &Site) -> Desired {
    let _ = slices;
    Desired::gone(site.cluster.clone(), service.uid.clone())
}

impl Desired {
    /// What a Service that is gone has to have: nothing.
    #[must_use]
    pub fn gone(cluster: ClusterId, uid: ServiceUid) -> Self {
        Self {
            cluster,
            uid,
            cluster_ips: Vec::new(),
            trees: Vec::new(),
            floating: Floating::None,
            exposed: Exposed::default(),
            problems: Vec::new(),
            nothing: Some(Nothing::Gone),
        }
    }
}
