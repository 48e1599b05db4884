//! All ports of pods, with their groups.

use super::call::Caller;
use kuryr_model::{Mark, PodUid, PortId, Purpose, SecurityGroupId, mark::cluster_tag, neutron::Port};
use kuryr_openstack::{Error, Filter};
use std::collections::BTreeSet;

/// A port: its id, whose it is, and its groups.
pub(super) type Listed = (PortId, PodUid, BTreeSet<SecurityGroupId>);

impl Caller {
    /// All ports that are for pods.
    pub(super) async fn ports(&self) -> Result<Vec<Listed>, Error> {
        let ours = Filter::new().tags([cluster_tag(&self.cluster)]);
        let ports = self.cloud.network().ports().list(&ours).await?;
        let owner = |port: &Port| match Mark::read(&self.cluster, &port.tags)?.purpose {
            Purpose::Pod(uid) => Some(uid),
            Purpose::Service(_) | Purpose::Group(_) | Purpose::Base(_) => None,
        };
        let listed = ports.into_iter().filter_map(|port| {
            let pod = owner(&port)?;
            Some((port.id, pod, port.security_groups.into_iter().collect()))
        });
        Ok(listed.collect())
    }
}
