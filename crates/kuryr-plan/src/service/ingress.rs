//! What a Service's `status.loadBalancer.ingress` says.

use super::{desired::Desired, input::Transport, observed::Observed};
use std::net::IpAddr;

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
}

/// One entry of `status.loadBalancer.ingress`: an address or a name, never both.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ingress {
    /// The address.
    pub ip: Option<IpAddr>,
    /// The name.
    pub hostname: Option<String>,
    /// The ports.
    pub ports: Vec<(Transport, u16)>,
}

/// What `status.loadBalancer.ingress` has to say; empty as long as nothing can be reached. `ipMode` is `VIP` throughout:
/// traffic from the cluster to the address goes through the load balancer too.
#[must_use]
pub fn ingress(desired: &Desired, observed: &Observed) -> Vec<Ingress> {
    let _ = (desired, observed);
    Vec::new()
}
