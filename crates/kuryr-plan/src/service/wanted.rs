//! What a Service has to have: the value. What it follows from is in [`desired`](super::desired).

use super::{
    input::Transport,
    problem::Problem,
    tree::{Floating, Role, Tree},
};
use kuryr_model::{ClusterId, Mark, Purpose, ServiceUid};
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
    /// Its load balancers: one for its clusterIPs ([`Role::Cluster`]), and one if it asks for another address
    /// ([`Role::External`]).
    pub trees: Vec<Tree>,
    /// Something about its exposure has to be put right first: a load balancer that it has beside the one for its
    /// clusterIPs is emptied, not deleted, so that its address is not lost.
    pub held: bool,
    /// Its floating IP.
    pub floating: Floating,
    /// What its `status.loadBalancer` is made from.
    pub exposed: Exposed,
    /// What is not done as it asks for, sorted.
    pub problems: Vec<Problem>,
    /// Why there is no load balancer for it, if so.
    pub nothing: Option<Nothing>,
}

/// Why a Service has no load balancer.
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
    /// None of its clusterIPs can be had, as its problems say.
    NoVip,
}

/// How a Service shows itself to the world.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Exposed {
    /// It is of type `LoadBalancer` and of our class: its status is ours to write. Otherwise it must be left alone, but
    /// for an entry that we wrote before.
    pub ours: bool,
    /// Shown in place of an address.
    pub hostname: Option<String>,
    /// Its ports.
    pub ports: Vec<(Transport, u16)>,
    /// The tree at which it is reached; `None`: it must not be, for now.
    pub at: Option<Role>,
}

impl Desired {
    /// Whether something with these tags is the Service's.
    #[must_use]
    pub fn owns(&self, tags: &[String]) -> bool {
        Mark::read(&self.cluster, tags).is_some_and(|mark| mark.purpose == Purpose::Service(self.uid.clone()))
    }

    /// What a Service that is gone has to have: nothing.
    #[must_use]
    pub fn gone(cluster: ClusterId, uid: ServiceUid) -> Self {
        Self {
            cluster,
            uid,
            cluster_ips: Vec::new(),
            trees: Vec::new(),
            held: false,
            floating: Floating::None,
            exposed: Exposed::default(),
            problems: Vec::new(),
            nothing: Some(Nothing::Gone),
        }
    }
}

/// The tags of everything that a Service has in OpenStack.
#[must_use]
pub(crate) fn mark(cluster: &ClusterId, uid: &ServiceUid) -> Vec<String> {
    Mark { cluster: cluster.clone(), purpose: Purpose::Service(uid.clone()) }.tags()
}
