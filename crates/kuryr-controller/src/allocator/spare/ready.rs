//! The spare ports on trunks: they are room for pods, too.

use super::Spares;
use crate::allocator::Shared;
use kuryr_model::TrunkId;
use kuryr_plan::pool::Place;
use std::collections::HashMap;

impl Shared {
    /// How many pods get a port on each trunk that is there already, be it that some ports still cool.
    pub(in crate::allocator) fn ready_on_trunks(&self) -> HashMap<TrunkId, usize> {
        let mut ready = HashMap::new();
        let views = self.spares.as_ref().map(|spares| spares.state.lock().pools.view(self.now()));
        for (key, view) in views.into_iter().flatten() {
            if let Place::Trunk(trunk) = key.place {
                *ready.entry(trunk).or_default() += view.ready + view.cooling;
            }
        }
        ready
    }

    /// Waits until there may be more or fewer of them.
    pub(in crate::allocator) async fn pools_changed(&self) {
        match &self.spares {
            Some(Spares { told, .. }) => told.notified().await,
            None => std::future::pending().await,
        }
    }
}
