//! Ports that were made for pods because their pools had none: when their pods go, they come to the pools.
//!
//! Until then they are as ports without pools are, with the pod's mark, so that they are found if the answer is lost. To give one another
//! mark is one request, as to delete it would be; and the next pod needs none, and the trunk of a virtual machine is not changed twice.

use super::{NAME, Spares, State};
use crate::allocator::{Request, Shared};
use kuryr_model::{Mark, PortId, Purpose, neutron::Port};
use kuryr_openstack::network::{PortUpdate, tags::Tagged};

/// So many get their mark at once: pods end together, and what others wait for is not to wait for all of them.
pub(super) const MARKINGS: usize = 3;

impl Shared {
    /// A pod has a port of its own, where there is a pool.
    pub(in crate::allocator) fn has_own(&self, request: &Request, port: &Port) {
        if let Some(spares) = self.spares.as_ref().filter(|_| self.pool_of(request).is_some()) {
            spares.state.lock().missed.insert(port.id, port.clone());
        }
    }

    /// Whether a port is one of a pool: what was listed earlier may tell of it as a pod's.
    pub(in crate::allocator) fn is_of_pool(&self, id: PortId) -> bool {
        self.spares.as_ref().is_some_and(|spares| {
            let state = spares.state.lock();
            state.pools.knows(id) || state.out.contains_key(&id)
        })
    }

    /// Gives a port that was a pod's the mark of pools. If it is not known whether it has it, it is to be deleted.
    pub(super) async fn mark_as_spare(&self, spares: &Spares, port: &mut Port) -> bool {
        let Ok(_turn) = spares.marking.acquire().await else { return false };
        let tags = Mark { cluster: self.cluster.clone(), purpose: Purpose::Pool }.tags();
        match self.cloud.network().background().tags().set(Tagged::Port(port.id), &tags).await {
            Ok(_) => {
                port.tags = tags;
                true
            }
            Err(error) => {
                tracing::info!(port = %port.id, reason = %error, "the port does not get the mark of pools, and is deleted");
                false
            }
        }
    }
}

impl State {
    /// A port that was a pod's says so no more, for people.
    pub(super) fn disown(&mut self, port: &mut Port) {
        let device_id = (!port.device_id.is_empty()).then(String::new);
        self.rename.insert(port.id, PortUpdate { name: Some(NAME.to_owned()), device_id, ..PortUpdate::default() });
        port.device_id.clear();
    }
}
