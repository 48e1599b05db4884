//! Subports that stay `DOWN` though their parent is `ACTIVE`: OVN has been seen to forget them. Off the trunk and back they work.

use super::Machines;
use kuryr_model::{
    ClusterId, PortId, TrunkId,
    mark::cluster_tag,
    neutron::{Port, PortStatus},
};
use kuryr_openstack::{Error as CloudError, Filter};
use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

/// How long after subports were added it is looked whether they work. Neutron tells nobody that one does.
const WORKS_WITHIN: Duration = Duration::from_secs(90);

/// Time between two looks, of which both must find it: one that is just being wired is none.
const TWICE: Duration = Duration::from_secs(10);

impl Machines {
    /// Looks after the subports of pods, and after spare ones, for ever.
    pub(crate) async fn revive(&self, cluster: &ClusterId, spare: impl Fn() -> Vec<(TrunkId, PortId)>) {
        loop {
            self.placed.notified().await;
            // As many as come meanwhile are looked at together.
            tokio::time::sleep(WORKS_WITHIN).await;
            if let Err(error) = self.look_for_dead(cluster, &spare).await {
                tracing::warn!(reason = %error, "subports that do not work cannot be looked for");
            }
        }
    }

    async fn look_for_dead(
        &self,
        cluster: &ClusterId,
        spare: impl Fn() -> Vec<(TrunkId, PortId)>,
    ) -> Result<(), CloudError> {
        let first = self.down(cluster).await?;
        if first.is_empty() {
            return Ok(());
        }
        tokio::time::sleep(TWICE).await;
        let second: BTreeSet<PortId> = self.down(cluster).await?.intersection(&first).copied().collect();
        let begun = self.state.lock().begun.clone();
        let mut on: BTreeSet<(TrunkId, PortId)> = spare().into_iter().collect();
        for (parent, carried) in self.index.nested() {
            let Some(trunk) = begun.get(&parent) else { continue };
            on.extend(carried.ids.iter().map(|(port, _)| (*trunk, *port)));
        }
        let mut dead: BTreeMap<TrunkId, Vec<PortId>> = BTreeMap::new();
        for (trunk, port) in on.into_iter().filter(|(_, port)| second.contains(port)) {
            dead.entry(trunk).or_default().push(port);
        }
        let parents: Vec<PortId> =
            begun.iter().filter(|(_, trunk)| dead.contains_key(trunk)).map(|(parent, _)| *parent).collect();
        if parents.is_empty() {
            return Ok(());
        }
        // Where the machine is off all its subports are down, and there is nothing to mend.
        let by_id = Filter::new().any("id", &parents);
        let parents = self.network.background().ports().list(&by_id).await?;
        for parent in parents.iter().filter(|parent| parent.status == PortStatus::Active).map(|parent| parent.id) {
            let Some(trunk) = begun.get(&parent).copied() else { continue };
            for port in dead.remove(&trunk).unwrap_or_default() {
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
