//! What other services ask of Neutron with a user of their own.

use jiff::Timestamp;
use serde_json::{Map, Value};
use uuid::Uuid;

use super::attrs::Body;
use super::error::Result;
use super::ports::{self, Port};
use super::resource::{Caller, Resource};
use super::view::PortView;
use super::{Neutron, availability, verbs};

impl Neutron {
    /// Makes a port for the caller's project, which it counts for.
    pub(crate) fn make_port(&mut self, caller: &Caller, attributes: Map<String, Value>) -> Result<Option<PortView>> {
        let body = Body::of_create(Port::KIND, attributes)?;
        verbs::check_quota::<Port>(self, caller, std::slice::from_ref(&body))?;
        let id = Port::create(self, caller, &body)?;
        Ok(self.port(id))
    }

    /// Deletes a port, if it is there.
    pub(crate) fn drop_port(&mut self, id: Uuid, now: Timestamp) {
        ports::remove(self, id, now);
    }

    /// How many addresses of a subnet's pools are free.
    pub(crate) fn free_addresses(&self, subnet: Uuid) -> u128 {
        let used = |subnet| u128::try_from(availability::used(self, subnet)).unwrap_or(u128::MAX);
        self.subnets.get(subnet).map_or(0, |subnet| availability::total(subnet).saturating_sub(used(subnet)))
    }
}
