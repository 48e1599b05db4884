//! Subports that stay `DOWN` though their parent is `ACTIVE`: OVN has been seen to forget them. Off the trunk and back they work.

use super::Machines;
use kuryr_model::{
    ClusterId, PortId,
    mark::cluster_tag,
    neutron::{Port, PortStatus},
};
use kuryr_openstack::{Error as CloudError, Filter};
use std::{collections::BTreeSet, time::Duration};

/// How long after subports were added it is looked whether they work. Neutron tells nobody that one does.
const WORKS_WITHIN: Duration = Duration::from_secs(90);

/// Time between two looks, of which both must find it: one that is just being wired is none.
const TWICE: Duration = Duration::from_secs(10);

impl Machines {
    /// Looks after subports for ever.
    pub(crate) async fn revive(&self, cluster: &ClusterId) {
        loop {
            self.placed.notified().await;
            // As many as come meanwhile are looked at together.
            tokio::time::sleep(WORKS_WITHIN).await;
            if let Err(error) = self.look_for_dead(cluster).await {
                tracing::warn!(reason = %error, "subports that do not work cannot be looked for");
            }
        }
    }

    async fn look_for_dead(&self, cluster: &ClusterId) -> Result<(), CloudError> {
        let first = self.down(cluster).await?;
        if first.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(TWICE).await;
        let second: BTreeSet<PortId> = self.down(cluster).await?.intersection(&first).copied().collect();
        let carried = self.index.nested();
        let dead =
            |parent: &PortId| carried[parent].ids.iter().map(|(port, _)| *port).filter(|port| second.contains(port));
        let parents: Vec<PortId> = carried.keys().filter(|parent| dead(parent).next().is_some()).copied().collect();
        // Where the machine is off all its subports are down, and there is nothing to mend.
        let by_id = Filter::new().any("id", &parents);
        let parents = self.network.background().ports().list(&by_id).await?;
        for parent in parents.iter().filter(|parent| parent.status == PortStatus::Active).map(|parent| parent.id) {
            let Some(trunk) = self.state.lock().begun.get(&parent).copied() else { continue };
            for port in dead(&parent) {
                tracing::warn!(%trunk, %port, "the subport is down and its parent is not: it is taken off the trunk and put back");
                self.trunks.again(trunk, port);
            }
        }
        Ok(())
    }

    /// Our subports that Neutron says are down.
    async fn down(&self, cluster: &ClusterId) -> Result<BTreeSet<PortId>, CloudError> {
        let down =
            Filter::new().tags([cluster_tag(cluster)]).with("device_owner", "trunk:subport").with("status", "DOWN");
        let found: Vec<Port> = self.network.background().ports().list(&down).await?;
        Ok(found.into_iter().map(|port| port.id).collect())
    }
}
