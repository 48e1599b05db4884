//! What ports of pools are called and who uses them, for people: nobody waits for that, and nothing depends on it.

use crate::allocator::Shared;
use kuryr_model::{ObjectKey, PortId};
use kuryr_openstack::network::PortUpdate;

/// What spare ports are called.
pub(in crate::allocator) const NAME: &str = "kuryr-pool";

/// A port's name for people: `<namespace>/<pod>`, within Neutron's 255 characters.
pub(in crate::allocator) fn of(key: &ObjectKey) -> String {
    let mut name = key.to_string();
    name.truncate(255);
    name
}

impl Shared {
    /// Names a port. If that fails it keeps its old name.
    pub(super) async fn rename(&self, id: PortId, change: PortUpdate) {
        if let Err(error) = self.cloud.network().background().ports().update(id, &change, None).await {
            tracing::debug!(port = %id, reason = %error, "the port keeps its old name");
        }
    }
}
