//! Neutron: a file for each kind of object, a function for each call.
//!
//! Lists ask only for the fields that are read and follow pages; filters are by tag wherever the caller looks for what
//! is its own. Deleting what is absent is success. Nothing here retries a create.

pub mod address_groups;
pub mod address_pairs;
pub mod agents;
pub mod extensions;
pub mod floating_ips;
pub mod ip_availability;
pub mod networks;
pub mod ports;
pub mod quotas;
pub mod routers;
pub mod security_groups;
pub mod subnet_pools;
pub mod subnets;
pub mod tags;
pub mod trunks;

pub use crate::rest::Filter;
pub use address_pairs::AddressPairs;
pub use floating_ips::NewFloatingIp;
pub use ports::{NewFixedIp, NewPort, PortUpdate};
pub use routers::NewRouter;
pub use subnets::NewSubnet;
pub use trunks::NewTrunk;

use crate::{
    Service,
    rest::{Kind, Rest},
    session::{CallOptions, Session},
};
use std::{sync::Arc, time::Duration};

/// Neutron's client. Cheap to clone.
#[derive(Clone, Debug)]
pub struct Network {
    rest: Rest,
}

impl Network {
    pub(crate) fn new(session: Arc<Session>, options: CallOptions) -> Self {
        Self { rest: Rest::new(Service::Network, "", session, options) }
    }

    /// The same client for requests that nobody waits for: they go after those that somebody does.
    #[must_use]
    pub fn background(&self) -> Self {
        Self { rest: self.rest.background() }
    }

    /// The same client with another deadline for each call, waiting and repeating included. Two minutes unless said.
    #[must_use]
    pub fn within(&self, time: Duration) -> Self {
        Self { rest: self.rest.within(time) }
    }
}
